"""What reports with a list of rules need of one: they are given it, and know no detector."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A finding that was looked for."""

    name: str
    headline: str  # one sentence
    page: str  # of `nndiag explain`
