"""Runs a program under a seccomp profile of Docker's format: with_seccomp.py PROFILE [--without-io-uring] PROGRAM ARGUMENTS.

libseccomp translates it, as it does for Docker. `--without-io-uring` leaves out what allows io_uring, so that it fails with
EPERM as under Docker's default profile.
"""

import ctypes
import json
import os
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
COMPARISONS = {name: number for number, name in enumerate(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"], 1)}


class Comparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def library():
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.argtypes, seccomp.seccomp_init.restype = [ctypes.c_uint32], ctypes.c_void_p
    seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
    seccomp.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    return seccomp


def action(entry, errno):
    actions = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | errno}
    return actions[entry]


def comparisons(entry):
    found = [
        Comparison(a["index"], COMPARISONS[a["op"].removeprefix("SCMP_CMP_")], a["value"], a.get("valueTwo", 0))
        for a in entry.get("args", [])
    ]
    return (Comparison * len(found))(*found)


def confine(profile):
    seccomp = library()
    filter_ = seccomp.seccomp_init(action(profile["defaultAction"], profile["defaultErrnoRet"]))
    for entry in profile["syscalls"]:
        wanted, compared = action(entry["action"], entry.get("errnoRet", 1)), comparisons(entry)
        for name in entry["names"]:
            number = seccomp.seccomp_syscall_resolve_name(name.encode())
            # Calls of other architectures, and of newer kernels than the library knows, are passed over as Docker does it.
            if number < 0:
                continue
            failed = seccomp.seccomp_rule_add_array(filter_, wanted, number, len(compared), compared)
            if failed:
                sys.exit(f"{name}: {os.strerror(-failed)}")
    failed = seccomp.seccomp_load(filter_)
    if failed:
        sys.exit(f"the filter cannot be loaded: {os.strerror(-failed)}")


path, *command = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    profile = json.load(file)
if command[0] == "--without-io-uring":
    command = command[1:]
    entries = profile["syscalls"]
    profile["syscalls"] = [entry for entry in entries if not any("io_uring" in name for name in entry["names"])]
    assert len(profile["syscalls"]) == len(entries) - 1, "one entry allows io_uring"
confine(profile)
os.execv(command[0], command)
