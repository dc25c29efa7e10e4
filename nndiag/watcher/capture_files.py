"""Captured batches on disk: `rank-K/captures/<name>/`, whole or not at all.

capture.json           what, when and why; how the arguments of the call are put together
batch.safetensors      the tensors of the call, the targets and the loss of each sample
weights.safetensors    parameters and buffers as they were; missing where they were too large
"""

from __future__ import annotations

import contextlib
import os
import shutil

from nndiag.adapters.base import Capture
from nndiag.journal.format import (
    BATCH_FILE,
    CAPTURE_FILE,
    CAPTURE_SCHEMA,
    CAPTURES_FOLDER,
    WEIGHTS_FILE,
)
from nndiag.journal.tensors import write_tensors
from nndiag.journal.writer import make_new_directory, make_real_directory, write_json


def write(rank_directory: str, capture: Capture, replaces: str = "") -> None:
    """Write one, then drop the one that it replaces. Raises `OSError`; then nothing is left."""
    folder = os.path.join(rank_directory, CAPTURES_FOLDER)
    make_real_directory(folder)
    unfinished = os.path.join(folder, f".{capture.name}")
    make_new_directory(unfinished)
    try:
        write_tensors(os.path.join(unfinished, BATCH_FILE), capture.batch)
        if capture.weights:
            write_tensors(os.path.join(unfinished, WEIGHTS_FILE), capture.weights)
        told = {"schema": CAPTURE_SCHEMA, **capture.told}
        write_json(os.path.join(unfinished, CAPTURE_FILE), told)
        os.rename(unfinished, os.path.join(folder, capture.name))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if replaces:
        with contextlib.suppress(OSError):
            shutil.rmtree(os.path.join(folder, replaces))
