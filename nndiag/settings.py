"""What a project or a command line asks of a diagnosis: one frozen record.

    [tool.nndiag]                        # in pyproject.toml; without the prefix in nndiag.toml
    select = ["loss-spike", "dead-relu"] # only these findings; all of them where it is missing
    ignore = ["converged"]               # all but these
    fail-on = ["critical"]               # severities or findings that fail `check`, and `watch`

    [tool.nndiag.thresholds.dead-relu]   # the fields of a detector, see `nndiag explain dead-relu`
    limit = 0.7

The nearest file upward from the working directory counts; `nndiag.toml` before `pyproject.toml`.
Command line options take the place of what a file says. Whether a finding of that name exists, and
has such a threshold, is for the catalogue of detectors to say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nndiag.errors import BadUsage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS = ("select", "ignore", "fail-on", "thresholds")
SEVERITIES = ("info", "warning", "critical")  # mildest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which findings are wanted, which of them fail a gate, and where their limits lie."""

    select: tuple[str, ...] = ()  # finding names; empty: all
    ignore: tuple[str, ...] = ()  # finding names
    fail_on: tuple[str, ...] = ("warning",)  # severities or finding names
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""  # file they were read from; "" where none was found
    fail_on_given: bool = False  # `watch` fails a run only where somebody asked for it

    def with_options(
        self, *, select: str | None = None, ignore: str | None = None, fail_on: str | None = None
    ) -> Settings:
        """These settings with the options of a command line (`NAME,...`) in their place."""
        given = {"select": select, "ignore": ignore, "fail_on": fail_on}
        changes = {key: _names(value, key) for key, value in given.items() if value is not None}
        given_now = self.fail_on_given or fail_on is not None
        return replace(self, fail_on_given=given_now, **changes)  # type: ignore[arg-type]

    def fails(self, name: str, severity: str) -> bool:
        """Whether a finding fails a gate: by its name, or by a severity at or above a named one."""
        limits = [SEVERITIES.index(word) for word in self.fail_on if word in SEVERITIES]
        return name in self.fail_on or SEVERITIES.index(severity) >= min(limits, default=9)


def load_settings(config: Path | None = None, start: Path | None = None) -> Settings:
    """Settings from `config`, else from the nearest file upward from `start`, else the defaults.

    Raises `BadUsage` where the file cannot be read, or holds a key or a value that does not fit.
    """
    if config is not None:
        return _settings(_table(config, required=True), str(config))
    for path in _candidates((start or Path.cwd()).absolute()):
        table = _table(path, required=False)
        if table is not None:
            return _settings(table, str(path))
    return Settings()


def unknown(kind: str, name: str, known: Iterable[str], where: str) -> BadUsage:
    """The error for a name that does not exist, with the closest one that does."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(names)}"
    return BadUsage(where=where, what=f"there is no {kind} named {name!r}", do=hint)


def _candidates(start: Path) -> Iterator[Path]:
    for folder in (start, *start.parents):
        for name in ("nndiag.toml", "pyproject.toml"):
            path = folder / name
            if path.is_file():
                yield path


def _table(path: Path, required: bool) -> dict[str, Any] | None:
    """Our part of a TOML file; None where a file that was only found does not speak of us."""
    ours = path.name != "pyproject.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if not required and not ours:
            return None
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadUsage(where=str(path), what=f"cannot be read: {reason}") from None
    if not ours and not required and "tool.nndiag" not in text:
        return None  # somebody's pyproject.toml: not ours to complain about, broken or not
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadUsage(where=str(path), what=f"is not valid TOML: {error}") from None
    if ours:
        return table
    tool = table.get("tool", {})
    return tool.get("nndiag", {} if required else None) if isinstance(tool, dict) else None


def _settings(table: object, source: str) -> Settings:
    if not isinstance(table, dict):
        raise BadUsage(where=source, what="tool.nndiag must be a table")
    for key in table:
        if key not in KEYS:
            raise unknown("setting", key, KEYS, source)
    return Settings(
        select=_names(table.get("select", []), f"{source}, select"),
        ignore=_names(table.get("ignore", []), f"{source}, ignore"),
        fail_on=_names(table.get("fail-on", "warning"), f"{source}, fail-on"),
        thresholds=_thresholds(table.get("thresholds", {}), f"{source}, thresholds"),
        source=source,
        fail_on_given="fail-on" in table,
    )


def _names(given: object, where: str) -> tuple[str, ...]:
    """`"a, b"` or `["a", "b"]` as a tuple of names."""
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadUsage(where=where, what="must be a list of names")
    return tuple(name.strip() for name in names if name.strip())


def _thresholds(given: object, where: str) -> dict[str, dict[str, float]]:
    if not isinstance(given, dict):
        raise BadUsage(where=where, what="must hold a table for each finding")
    for name, fields in given.items():
        if not isinstance(fields, dict):
            raise BadUsage(where=f"{where}.{name}", what="must be a table of thresholds")
    return given
