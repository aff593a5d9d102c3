"""Runs a program that may not use io_uring, as under Docker's seccomp profile: its system calls fail with EPERM."""

import ctypes
import errno
import os
import struct
import sys

# The same numbers on every architecture: io_uring_setup, io_uring_enter, io_uring_register.
FIRST, LAST = 425, 427
LOAD, GREATER_OR_EQUAL, GREATER, RETURN = 0x20, 0x35, 0x25, 0x06
FAIL, ALLOW = 0x00050000 | errno.EPERM, 0x7FFF0000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def forbid():
    instructions = [
        (LOAD, 0, 0, 0),
        (GREATER_OR_EQUAL, 0, 2, FIRST),
        (GREATER, 1, 0, LAST),
        (RETURN, 0, 0, FAIL),
        (RETURN, 0, 0, ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    program = Program(len(instructions), code)
    wanted = [(PR_SET_NO_NEW_PRIVS, 1), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))]
    for call in wanted:
        if prctl(*call, *[0] * (5 - len(call))) != 0:
            sys.exit(f"prctl{call}: {os.strerror(ctypes.get_errno())}")


forbid()
os.execv(sys.argv[1], sys.argv[1:])
