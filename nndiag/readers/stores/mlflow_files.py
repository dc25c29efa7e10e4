"""MLflow's file store: `mlruns/<experiment>/<run>/metrics/<name>`, a file for each metric.

A line is `timestamp value step`; before MLflow 1.0 `timestamp value`; with a data set there are
two more fields, where MLflow's own reader takes the step for 0. Metrics with a slash in their name
lie in subfolders. Beside the metrics of the training lie whatever else a program logs as a number:
pid, timestamp, done. A run that was deleted in MLflow stays in its place; `meta.yaml` says so.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import TextLines, head_of, text_of
from nndiag.readers.stores.separate_metrics import Collected, Points, metric_files
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import number
from nndiag.records import Run
from nndiag.vocabulary import describe

name = "mlflow"

MAX_LINE = 4096  # characters; a line has three numbers, and perhaps the name of a data set
LOOKED_AT = 5  # files of a folder that are asked whether they hold a metric
MAX_LOOKED_AT = 100  # files and folders that are passed by to find them
ASKED = 20  # lines of a file that are asked
MOSTLY = 0.75  # of them: a line or two may be damaged
LINE = "'timestamp value step'"
SECONDS_BELOW = 1e11  # a time stamp below it counts seconds: in milliseconds it is 1973
STATUS = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
LOSSES = frozenset(["loss", "error"])

_TIME = re.compile(r"[0-9]{9,16}", re.ASCII)
_STEP = re.compile(r"-?[0-9]{1,18}", re.ASCII)  # fits int64
_META_LINE = re.compile(r"([a-z_]{1,40}):[ \t]+(.{0,300})", re.ASCII)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a run, or a metric, of MLflow's file store; None if it does not."""
    if head:
        return _recognised_file(path, head)
    if _is_folder(path / "metrics") and _is_run(_meta(path)):
        return "a folder with MLflow's meta.yaml and metrics/"
    if path.absolute().name == "metrics" and _is_folder(path) and _holds_metrics(path):
        return "a folder 'metrics' of files with lines 'timestamp value step'"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a run folder, in its folder `metrics`, or around one of its metrics' files.

    A file stands for its run, with that metric for the loss; `loss` names another one.

    Raises:
        UnreadableLog: it is none, was deleted in MLflow, or holds no loss or none called `loss`.
    """
    notes, own = [], None
    if _is_folder(path):
        is_run = _is_folder(path / "metrics") and _is_run(_meta(path))
        metrics = path / "metrics" if is_run else path
        about = _about(path if is_run else path.parent, may_be_deleted=not is_run)
    else:
        found = _folder_of(path)
        if found is None:
            alone = Collected()
            _add(alone, path, path.name)
            table = alone.table(LINE)
            return run_of(table, path=str(path), format=name, loss=loss or path.name)
        metrics = found
        about = _about(metrics.parent, may_be_deleted=True)
        notes.append("a metric's file was named: read with the other metrics of its run")
        own = None if loss is not None else _loss_of(path, metrics)
    table = _collect(metrics).table(LINE)
    if own in table.columns:  # not where it was parted by data sets
        loss = own
    if not table.columns:
        raise UnreadableLog(where=str(path), what="no metric was logged in this MLflow run")
    return run_of(table, path=str(path), format=name, loss=loss, notes=(*notes, *about))


def _loss_of(path: Path, metrics: Path) -> str:
    """The metric in a file, if it can be judged.

    Raises:
        UnreadableLog: it is no loss; a folder of them has other files too.
    """
    metric = path.absolute().relative_to(metrics).as_posix()
    if describe(metric).family in LOSSES:
        return metric
    do = f"name its run, nndiag analyze {metrics.parent}, or judge it: --loss {metric}"
    raise UnreadableLog(where=str(path), what=f"metric {metric!r} is no loss", do=do)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # not Path.is_dir: a name that is too long is only no folder


def _recognised_file(path: Path, head: bytes) -> str | None:
    asked = _asked(head)
    if not asked:
        return None
    if _folder_of(path) is not None:
        return "lines 'timestamp value step' in a folder 'metrics'"
    point = _parsed(asked[0].split(" "))
    if point is not None and asked[0].count(" ") == 2 and not path.suffix:
        return "lines 'timestamp value step'"
    return None


def _asked(head: bytes) -> list[str]:
    """The first lines of a metric's file; [] if it is none."""
    whole = text_of(head).rpartition("\n")[0].splitlines()  # the last line may be cut
    asked = [line for line in whole[:ASKED] if line.strip()]
    return asked if sum(map(_is_line, asked)) >= MOSTLY * len(asked) else []


def _folder_of(path: Path) -> Path | None:
    """The folder `metrics` that a metric's file lies in: of a run folder, or else the nearest."""
    above = [parent for parent in path.absolute().parents if parent.name == "metrics"]
    of_run = [folder for folder in above if _is_run(_meta(folder.parent))]
    return next(iter(of_run or above), None)


def _holds_metrics(folder: Path) -> bool:
    """Whether the first files of a folder hold metrics."""
    asked = 0
    for path, _ in metric_files(folder, [], MAX_LOOKED_AT):
        try:
            head = head_of(path)[:MAX_LINE]
        except UnreadableLog:
            continue
        if head:
            asked += 1
            if not _asked(head):
                return False
        if asked == LOOKED_AT:
            break
    return asked > 0


def _is_line(line: str) -> bool:
    """A line of a run's metric; those of a logged model's have the run's id for a fourth field."""
    fields = line.split(" ")
    return len(fields) in (2, 3, 5) and _parsed(fields) is not None


def _parsed(fields: list[str]) -> tuple[float, int, float] | None:
    """(time in ms, step, value) of a line; None if it is none."""
    if len(fields) < 2 or not _TIME.fullmatch(fields[0]):
        return None
    value = number(fields[1])
    step = fields[2] if len(fields) > 2 else "0"
    if value is None or not _STEP.fullmatch(step):
        return None
    if len(fields) > 3 and number(fields[3]) is not None:
        return None  # two lines that ran into each other, and no data set
    time = float(fields[0])
    return time * 1000.0 if time < SECONDS_BELOW else time, int(step), value


def _collect(folder: Path) -> Collected:
    collected = Collected()
    for path, metric in metric_files(folder, collected.remarks):
        try:
            _add(collected, path, metric)
        except UnreadableLog as error:
            collected.remarks.append(f"{metric!r} left out: {error.what}")
    return collected


def _add(collected: Collected, path: Path, metric: str) -> None:
    """The points in a metric's file, those of each data set for themselves."""
    lines = TextLines(path, MAX_LINE)
    by_data_set: dict[str, Points] = {}
    newest: Points | None = None  # that of the last line; None where that holds no point
    line, bad = "", 0
    for line in lines:
        fields = line.strip().split(" ")
        point = _parsed(fields)
        newest = None
        if point is not None:
            newest = by_data_set.setdefault(" ".join(fields[3:-1]), Points())
            newest.add(*point)
        elif line.strip():
            bad += 1
    if lines.ends_torn and line.strip():
        # MLflow ends each line: the numbers of this one may lack their last digits
        collected.torn += 1
        if newest is None:
            bad -= 1
        else:
            newest.drop_newest()
    filled = {data_set: points for data_set, points in by_data_set.items() if len(points)}
    for data_set, points in filled.items():
        name = f"{data_set}/{metric}" if data_set and len(filled) > 1 else metric
        collected.metrics[name] = points
    if filled:
        collected.bad += bad
    else:
        collected.unreadable.append(metric)


def _meta(folder: Path) -> dict[str, str]:
    """The plain `key: value` lines of meta.yaml; {} where there is none."""
    try:
        text = text_of(head_of(folder / "meta.yaml"))
    except UnreadableLog:
        return {}
    found = {}
    for line in text.splitlines():
        match = _META_LINE.fullmatch(line.rstrip())
        if match:
            found[match[1]] = match[2].strip("'\"")
    return found


def _is_run(meta: dict[str, str]) -> bool:
    """A run's meta.yaml, and not an experiment's or a logged model's."""
    return bool(meta.get("run_id") or meta.get("run_uuid"))


def _about(folder: Path, *, may_be_deleted: bool) -> list[str]:
    """What meta.yaml says of a run, as notes.

    Raises:
        UnreadableLog: it was deleted in MLflow, which leaves it where it was.
    """
    meta = _meta(folder)
    if not _is_run(meta):
        return []
    if meta.get("lifecycle_stage") == "deleted":
        if not may_be_deleted:
            do = f"to read it anyway: nndiag analyze {folder / 'metrics'}"
            raise UnreadableLog(where=str(folder), what="was deleted in MLflow", do=do)
        return [*about_run(meta), "the run was deleted in MLflow"]
    return about_run(meta)


def about_run(meta: dict[str, str]) -> list[str]:
    """A note on a run's name and how it ended, of `run_name`, `run_id`, `status`."""
    title = meta.get("run_name") or meta.get("run_id") or meta.get("run_uuid", "")
    status = STATUS.get(meta.get("status", ""), meta.get("status", ""))
    ended = {
        "FAILED": ": it failed",
        "KILLED": ": it was killed",
        "RUNNING": ": not ended yet, or ended without a word",
    }.get(status, "")
    return [f"MLflow run {title!r}{ended}"]
