"""Tables into files, folders, a stream or W&B: what `export` and `watch --wandb` share."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nndiag.errors import BadUsage, UnreadableLog

if TYPE_CHECKING:
    from nndiag.analysis import Analysis
    from nndiag.exports.tables import Tables
    from nndiag.exports.wandb_run import Written

MODULES = {
    "csv": "csv_tables",
    "jsonl": "json_lines",
    "parquet": "parquet",
    "tensorboard": "tensorboard_events",
    "wandb": "wandb_run",
}
REPORT = "report.json"  # beside the tables: verdict, notes, what was not judged
MOST_LISTED = 9


def only_run(path: str, result: Analysis) -> Tables:
    """The tables of the one run that was found. Raises `NndiagError` for none or several."""
    from nndiag.exports.tables import tables_of

    if result.errors:
        raise result.errors[0]
    if not result.diagnoses:
        raise UnreadableLog(where=path, what="holds no run")
    if len(result.diagnoses) > 1:
        paths = [diagnosis.run.path for diagnosis in result.diagnoses]
        more = f" and {len(paths) - MOST_LISTED} more" if len(paths) > MOST_LISTED else ""
        raise BadUsage(
            where=path,
            what=f"holds {len(paths)} runs; one is exported at a time",
            do=f"name one of: {', '.join(paths[:MOST_LISTED])}{more}",
        )
    return tables_of(result.diagnoses[0])


def default_place(path: str, to: str, table: str | None) -> Path:
    """Beside the run: `runs/a` gives `runs/a-csv/`, or `runs/a-steps.csv` for one table."""
    store, _, run = path.partition("#") if not Path(path).exists() else (path, "", "")
    own = Path("stdin" if store == "-" else store)
    stem = own.stem if own.suffix and not own.is_dir() else own.resolve().name
    parts = [stem, *([re.sub(r"[^\w.-]+", "_", run)] if run else []), table or to]
    name = "-".join(parts)
    return own.parent / (f"{name}.{to}" if table else name)


def to_stream(tables: Tables, to: str, table: str, stream: BinaryIO) -> None:
    """One table as text."""
    for text in format_of(to).table(table, tables):
        stream.write(text.encode("utf-8", "replace"))
    stream.flush()


def to_file(tables: Tables, to: str, table: str, target: Path, *, force: bool) -> None:
    """One table as a file."""
    from nndiag.exports import files

    form = format_of(to)
    with files.new_file(target, force=force) as file:
        _put(form, to, table, tables, file)


def to_folder(tables: Tables, to: str, target: Path, *, force: bool) -> None:
    """All of it, as a folder."""
    from nndiag.exports import files
    from nndiag.exports.tables import TABLES

    form = format_of(to)
    with files.new_folder(target, force=force) as folder:
        if to == "tensorboard":
            with files.open_new(folder / form.FILE) as file:
                file.writelines(form.events(tables, time.time()))
            return
        for table in TABLES:
            with files.open_new(folder / f"{table}{form.SUFFIX}") as file:
                _put(form, to, table, tables, file)
        with files.open_new(folder / REPORT) as file:
            files.write_all(file, _report(tables))


def into_wandb(tables: Tables, name: str, folder: Path | None = None) -> Written:
    """A new W&B run called `name`; its files under `folder`. Raises `NndiagError`."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be made: {error.strerror or error}"
            raise BadUsage(where=f"-o {folder}", what=what) from None
    written: Written = format_of("wandb").write(tables, name, folder=folder)
    return written


def told(written: Written) -> Iterator[str]:
    """What became of a W&B run, in lines."""
    rows, alerts = counted(written.rows, "step"), counted(written.alerts, "alert")
    if written.url:
        yield f"W&B: {rows} and {alerts} in a new run: {written.url}"
        return
    why = f" ({written.why_offline})" if written.why_offline else ""
    yield f"W&B: {rows} and {alerts} in a new run, offline{why}"
    yield f"to upload it: wandb sync {written.folder}"


def counted(number: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_of(to: str) -> Any:
    """The module of a format. Raises `MissingLibrary` where it needs one that is not there."""
    return import_module(f"nndiag.exports.{MODULES[to]}")


def _put(form: Any, to: str, table: str, tables: Tables, file: BinaryIO) -> None:
    from nndiag.exports import files

    if to == "parquet":
        form.write(table, tables, file)
    else:
        files.write_all(file, form.table(table, tables))


def _report(tables: Tables) -> list[str]:
    from nndiag.reports import json_report

    return [json_report.text([tables.diagnosis])]
