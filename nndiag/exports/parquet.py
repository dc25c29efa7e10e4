"""Parquet, by pyarrow. Null where nothing was recorded; NaN and infinities are numbers."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import numpy as np

from nndiag import __version__
from nndiag.errors import MissingLibrary
from nndiag.exports.tables import STEP, Tables

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    raise MissingLibrary(
        command="nndiag export --to parquet", library="pyarrow", extra="export"
    ) from None

SUFFIX = ".parquet"


def write(name: str, tables: Tables, file: BinaryIO) -> None:
    """Write a table. The schema's metadata has the run's path, format and verdict."""
    make = {"steps": _steps, "layers": _layers, "findings": _findings}[name]
    run = tables.diagnosis.run
    told = {
        "nndiag": __version__,
        "path": run.path,
        "format": run.format,
        "verdict": str(tables.diagnosis.verdict),
    }
    table = make(tables).replace_schema_metadata({"nndiag": json.dumps(told)})
    pyarrow.parquet.write_table(table, file)


def _steps(tables: Tables) -> Any:
    steps = tables.steps
    columns = {STEP: pyarrow.array(steps.steps)}
    for column in steps.columns:
        # from_pandas=False: a NaN that was recorded is no null
        columns[column.name] = pyarrow.array(
            column.values, mask=~column.is_there, from_pandas=False
        )
    return pyarrow.table(columns)


def _layers(tables: Tables) -> Any:
    series = tables.layers
    lengths = [len(one) for one in series]
    steps = np.concatenate([one.steps for one in series] or [np.empty(0, np.int64)])
    values = np.concatenate([one.values for one in series] or [np.empty(0)])
    return pyarrow.table(
        {
            STEP: pyarrow.array(steps),
            "metric": _repeated([one.label for one in series], lengths),
            "where": _repeated([one.where for one in series], lengths),
            "owner": _repeated([one.owner for one in series], lengths),
            "value": pyarrow.array(values, from_pandas=False),
        }
    )


def _repeated(texts: list[str], lengths: list[int]) -> Any:
    """Each text as often as its series is long; stored once."""
    distinct = list(dict.fromkeys(texts))
    places = np.array([distinct.index(text) for text in texts], np.int32)
    codes = pyarrow.array(np.repeat(places, lengths))
    words = pyarrow.array([_text(text) for text in distinct], pyarrow.string())
    return pyarrow.DictionaryArray.from_arrays(codes, words)


def _findings(tables: Tables) -> Any:
    text, whole, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    kinds = {
        **dict.fromkeys(("name", "severity"), text),
        "confidence": real,
        **dict.fromkeys(("step_start", "step_end"), whole),
        **dict.fromkeys(("series", "owner"), text),
        "layers": pyarrow.list_(text),
        **dict.fromkeys(("message", "remedies", "evidence"), text),
    }
    as_json = ("remedies", "evidence")
    return pyarrow.table(
        {
            field: pyarrow.array(
                [json.dumps(f[field]) if field in as_json else f[field] for f in tables.findings],
                kind,
            )
            for field, kind in kinds.items()
        }
    )


def _text(value: str) -> str:
    """Arrow takes UTF-8 only: halves of surrogate pairs become "?"."""
    return value.encode("utf-8", "replace").decode()
