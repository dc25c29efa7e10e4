"""Runs a function in a fork of this process, and brings back what it returns."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Of a process of its own the largest memory is that of this work alone."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        status = 1
        try:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(function(*arguments), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, ended = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(ended):
        raise SystemExit(f"{function.__name__}{arguments} failed")
    return pickle.loads(content)  # of our own child
