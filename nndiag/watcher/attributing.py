"""Where attributions come into the training process: after its last step, and on request only.

Captum and numpy are loaded here and nowhere earlier, by `nndiag.attribution`, which this module
knows by name alone: in the training itself there is only the standard library and torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

RUN = ".".join(("nndiag", "attribution", "run"))
DONE, FAILED, NO_MODEL = 70, 71, 72  # how a script ends that ran again
WAIT_S = 600.0  # for the process that does the work
MISSING = "captum is not installed where the script runs: pip install captum"


def missing() -> str:
    """Why there will be no attributions in this process; "" where nothing is known against it."""
    try:
        return "" if find_spec("captum") is not None else MISSING
    except (ImportError, ValueError):
        return MISSING


def after_training(model: Any, rank_directory: str, method: str) -> None:
    """Attribute what was captured. Says what it does on standard error; never raises `Exception`.

    A Ctrl-C ends it: what was captured stays, for `nndiag attribute`.
    """
    try:
        run = import_module(RUN)
        batches = run.Batches(rank_directory, run.Request(method=method), is_trained=True)
        run.attribute_all(model, batches, say)
    except KeyboardInterrupt:
        say("attributions were interrupted; the batches are kept")
    except Exception as error:
        say(f"no attributions: {type(error).__name__}: {str(error)[:300]}")


def again(torch: Any, asked: dict[str, Any]) -> None:
    """Wait for the model of a captured batch to be called, attribute, and end the process.

    `asked`: rank_directories, names, answer, and the fields of a request. The script is not to
    train: if its first optimizer step comes before such a model does, it is ended too. Of several
    processes the first that has the model does the work for all. How it ended stands in the file
    `answer`, for a launcher has an exit status of its own; such a one is told 0, or it would start
    the script anew.
    """
    answer = str(asked.pop("answer"))

    def stop(text: str, status: int) -> None:
        if write_answer(answer, status):
            say(text)
        leave(status)

    def leave(status: int) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(0 if is_one_of_several() else status)

    def is_one_of_several() -> bool:
        world = (rank_and_world() or (0, _number("WORLD_SIZE")))[1]
        return world > 1 or "TORCHELASTIC_RUN_ID" in os.environ

    def claim() -> None:
        """Go on as the only one; else end when that one does: it may still hear from this one."""
        if create(f"{answer}.claimed"):
            return
        until = time.monotonic() + WAIT_S
        while not os.path.exists(answer) and time.monotonic() < until:
            time.sleep(0.05)
        leave(DONE)

    def called(module: Any, inputs: Any, output: Any) -> None:
        try:
            if not looking.is_it(module):
                return
            handle.remove()
            claim()
            looking.attribute(module, say)
        except Exception as error:
            stop(f"no attributions: {type(error).__name__}: {str(error)[:300]}", FAILED)
        stop("the model was there: the script was stopped", DONE)

    def stepped(*_: Any) -> None:
        claim()
        stop(f"the script began to train, but {looking.why_not()}", NO_MODEL)

    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # read when dynamo is loaded: hooks see all modules
    from nndiag.adapters.pytorch.ranks import rank_and_world

    try:
        looking = import_module(RUN).Looking(asked)
        # It is of our hook, and the script could do nothing about it.
        warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global")
        handle = torch.nn.modules.module.register_module_forward_hook(called)
        optimizers = sys.modules[torch.optim.Optimizer.__module__]
        optimizers.register_optimizer_step_pre_hook(stepped)
    except Exception as error:
        stop(MISSING if missing() else f"no attributions: {type(error).__name__}: {error}", FAILED)


def create(path: str, content: str = "") -> bool:
    """Write a new file; False where there is one: of several processes one is the first."""
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(content)
    except FileExistsError:
        return False
    except OSError:  # no room: then the exit status has to do
        pass
    return True


def write_answer(path: str, status: int) -> bool:
    """Tell how it ended; False where another process has told."""
    return create(path, json.dumps({"status": status}))


def read_answer(path: str) -> int | None:
    """How it ended; None where no process has told."""
    try:
        with open(path, encoding="ascii") as file:
            return int(json.load(file)["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _number(variable: str) -> int:
    """What a launcher has put there; 0 for nothing."""
    told = os.environ.get(variable, "")
    return int(told) if told.isdecimal() else 0


def say(text: str) -> None:
    """One line on standard error, if there still is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"nndiag: {text}", file=sys.stderr, flush=True)
