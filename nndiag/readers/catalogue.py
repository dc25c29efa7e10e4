"""Every reader there is, in the order they are asked: the surest sign first, a text last."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from nndiag.errors import BadUsage
from nndiag.readers import run_directory
from nndiag.readers.base import Reader
from nndiag.readers.formats import (
    csv_table,
    detectron2,
    fairseq,
    hf_trainer_state,
    json_lines,
    keras_csv,
    keras_history,
    lightning_csv,
    llama_factory,
    llm_c,
    megatron,
    mmengine,
    modded_nanogpt,
    nanogpt,
    plain_text,
    ultralytics,
)
from nndiag.readers.stores import dvclive, mlflow_files, mlflow_sqlite, trackio
from nndiag.readers.tensorboard import tensorboard_events
from nndiag.readers.wandb import wandb_run

READERS: tuple[Reader, ...] = (
    run_directory,
    # told by their first bytes or by the layout of their folder
    wandb_run,
    tensorboard_events,
    mlflow_sqlite,
    trackio,
    mlflow_files,
    dvclive,
    # JSON
    hf_trainer_state,
    llama_factory,
    mmengine,
    detectron2,
    keras_history,
    megatron,
    json_lines,
    # tables
    lightning_csv,
    keras_csv,
    ultralytics,
    csv_table,
    # printed lines
    nanogpt,
    llm_c,
    modded_nanogpt,
    fairseq,
    plain_text,
)


def chosen(name: str | None) -> Sequence[Reader]:
    """All readers, or the one that `--reader` names.

    Raises:
        BadUsage: no reader is called so.
    """
    if name is None:
        return READERS
    named = [reader for reader in READERS if reader.name == name]
    if not named:
        known = ", ".join(reader.name for reader in READERS)
        raise BadUsage(where="--reader", what=f"no reader is called {name!r}", do=f"known: {known}")
    return named


def page(reader: Reader) -> str:
    """All that is to be said of a format: the docstring of its module."""
    return inspect.cleandoc(reader.__doc__ or "")


def headline(reader: Reader) -> str:
    """The first sentence of its page."""
    return page(reader).split("\n\n")[0].replace("\n", " ")
