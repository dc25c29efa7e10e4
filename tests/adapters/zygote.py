"""Runs scripts in forks of one process that has already imported torch, watched or not.

Importing torch takes seconds, forking does not: so a family of tests pays for it once. A line of
JSON on standard input is a job, a line on standard output its exit status.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import sys
import threading
import types

import torch
import torch._dynamo  # the first optimizer would import it, in each fork

import nndiag.adapters.pytorch.observer
import nndiag.watcher.session  # noqa: F401

torch.set_num_threads(1)


def run(job: dict) -> None:
    """In the fork: become the script."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        file = os.open(job[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.chdir(job["cwd"])
    os.environ.update(job["environment"])
    sys.argv = [job["script"], *job["arguments"]]
    sys.path[0] = os.path.dirname(job["script"])
    main = types.ModuleType("__main__")
    main.__file__ = job["script"]
    sys.modules["__main__"] = main
    if job["run"]:
        os.environ["NNDIAG_RUN"] = job["run"]
        os.environ["NNDIAG_SETTINGS"] = json.dumps(job["settings"])
        from nndiag.watcher import session

        session.start(torch, {})
    with open(job["script"], encoding="utf-8") as file:
        code = compile(file.read(), job["script"], "exec")
    exec(code, main.__dict__)
    end()


def end() -> None:
    """End as Python does, but for taking all of torch apart: that takes longer than the script."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(0)


def serve() -> None:
    gc.freeze()  # a fork that ends need not look through all of torch again
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            answers.detach()
            run(json.loads(line))
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    serve()
