"""Every detector there is. A detector's file is found by itself: nothing to register."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache

import nndiag.detectors
from nndiag.detectors.base import Detector
from nndiag.errors import BadUsage


@cache
def kinds() -> tuple[type[Detector], ...]:
    """The detector classes of this folder, by name. Two of one name are a mistake of ours."""
    found: dict[str, type[Detector]] = {}
    for module in pkgutil.iter_modules(nndiag.detectors.__path__):
        content = vars(importlib.import_module(f"nndiag.detectors.{module.name}"))
        for kind in content.values():
            if not (isinstance(kind, type) and issubclass(kind, Detector)) or kind is Detector:
                continue
            if kind.__module__ != f"nndiag.detectors.{module.name}":
                continue  # imported there, at home elsewhere
            if found.setdefault(kind.name, kind) is not kind:
                raise RuntimeError(f"two detectors are called {kind.name}")
    return tuple(found[name] for name in sorted(found))


def every() -> tuple[Detector, ...]:
    """One of each detector, with its own thresholds."""
    return tuple(kind() for kind in kinds())


def names() -> tuple[str, ...]:
    return tuple(kind.name for kind in kinds())


def named(name: str) -> type[Detector]:
    """The detector class of a name; `BadUsage` with the closest names where there is none."""
    for kind in kinds():
        if kind.name == name:
            return kind
    raise _unknown(name)


def selected(
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Detector, ...]:
    """The detectors to ask: those of `select` (all where it is empty) without those of `ignore`.

    `thresholds` maps a detector's name to its fields: {"dead-relu": {"limit": 0.7}}. Raises
    `BadUsage` for a name or a field that does not exist, or a value that is no number.
    """
    wanted, unwanted, thresholds = set(select), set(ignore), thresholds or {}
    for name in [*sorted(wanted | unwanted), *thresholds]:
        named(name)
    chosen = (kind for kind in kinds() if not wanted or kind.name in wanted)
    return tuple(
        _with(kind, thresholds.get(kind.name, {})) for kind in chosen if kind.name not in unwanted
    )


def _with(kind: type[Detector], changes: Mapping[str, float]) -> Detector:
    """A detector with some thresholds changed."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for field, value in changes.items():
        if field not in fields:
            close = difflib.get_close_matches(field, fields, n=1)
            raise BadUsage(
                where=f"{kind.name}.{field}",
                what="no such threshold",
                do=f"{'did you mean ' + close[0] + '?  ' if close else ''}({', '.join(fields)})",
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadUsage(where=f"{kind.name}.{field}", what=f"{value!r} is not a number")
        if isinstance(fields[field].default, int) and not float(value).is_integer():
            raise BadUsage(where=f"{kind.name}.{field}", what=f"{value!r} is not a whole number")
    whole = {f: int(v) if isinstance(fields[f].default, int) else v for f, v in changes.items()}
    return kind(**whole)


def _unknown(name: str) -> BadUsage:
    close = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?  " if close else ""
    return BadUsage(where=name, what="no such finding", do=f"{hint}(nndiag rules lists all)")
