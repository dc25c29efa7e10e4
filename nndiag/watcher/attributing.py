"""Where attributions come into the training process: after its last step, and on request only.

Captum and numpy are loaded here and nowhere earlier, by `nndiag.attribution`, which this module
knows by name alone: in the training itself there is only the standard library and torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

RUN = ".".join(("nndiag", "attribution", "run"))
DONE, FAILED, NO_MODEL = 70, 71, 72  # how a script ends that ran again
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

    `asked`: rank_directory, names, and the fields of a request. The script is not to train: if its
    first optimizer step comes before such a model does, it is ended too.
    """

    def stop(text: str, status: int) -> None:
        say(text)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)

    def called(module: Any, inputs: Any, output: Any) -> None:
        try:
            if not looking.is_it(module):
                return
            handle.remove()
            looking.attribute(module, say)
        except Exception as error:
            stop(f"no attributions: {type(error).__name__}: {str(error)[:300]}", FAILED)
        stop("the model was there: the script was stopped", DONE)

    def stepped(*_: Any) -> None:
        stop(f"the script began to train, but {looking.why_not()}", NO_MODEL)

    os.environ["TORCH_COMPILE_DISABLE"] = "1"  # read when dynamo is loaded: hooks see all modules
    try:
        looking = import_module(RUN).Looking(asked)
        handle = torch.nn.modules.module.register_module_forward_hook(called)
        optimizers = sys.modules[torch.optim.Optimizer.__module__]
        optimizers.register_optimizer_step_pre_hook(stepped)
    except Exception as error:
        stop(MISSING if missing() else f"no attributions: {type(error).__name__}: {error}", FAILED)


def say(text: str) -> None:
    """One line on standard error, if there still is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(f"nndiag: {text}", file=sys.stderr, flush=True)
