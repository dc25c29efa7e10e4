"""Functions of torch that ours stand in for, and how they are put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Undo = Callable[[], None]


def replace(place: Any, name: str, ours: object) -> Undo:
    """Have `ours` stand in for `place.name`; the result puts the original back.

    Where somebody has replaced ours meanwhile, it stays: what it wraps does no harm.
    """
    original = vars(place)[name]
    setattr(place, name, ours)

    def undo() -> None:
        if vars(place).get(name) is ours:
            setattr(place, name, original)

    return undo
