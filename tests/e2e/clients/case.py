"""A client program prints a line for each of its cases: capability, name, outcome. The outcome is what the client saw, values
and SQLSTATEs; `FAILED` stands before what was not expected."""

import asyncio
import datetime
import inspect
import json
import os

CASES = []


def case(capability):
    def register(function):
        CASES.append((capability, function))
        return function

    return register


def shown(value):
    """As JSON would have it, and the type beside what JSON does not know."""
    if isinstance(value, dict):
        return {str(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return {type(value).__name__: value.isoformat()}
    return {type(value).__name__: str(value)}


def sqlstate(error):
    """The SQLSTATE of a driver's error, or of the one that it wraps."""
    while error is not None:
        found = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if found:
            return {"sqlstate": found, "class": type(error).__name__}
        error = getattr(error, "orig", None) or error.__cause__
    return None


def refusal(action):
    """What the server says to `action`, which must fail."""
    try:
        action()
    except Exception as error:
        return sqlstate(error) or {"FAILED": repr(error)}
    return {"FAILED": "nothing was refused"}


def main():
    for capability, function in CASES:
        try:
            outcome = function()
            if inspect.iscoroutine(outcome):
                outcome = asyncio.run(outcome)
            outcome = json.dumps(shown(outcome), ensure_ascii=False, sort_keys=True)
        except Exception as error:
            text = str(error).replace("\n", " ")
            outcome = f"FAILED {type(error).__name__} {(sqlstate(error) or {}).get('sqlstate')} {text}"
        print(f"{capability}\t{function.__name__}\t{outcome}", flush=True)


def text_of(variable):
    with open(os.environ[variable], encoding="utf-8") as file:
        return file.read()


SCHEMA = os.environ["CLIENT_SCHEMA"]
MAKE = text_of("CLIENT_MAKE")
VALUES = text_of("CLIENT_VALUES")
