"""What the public contract names and this version does not do: said when asked for, not hidden."""

from __future__ import annotations

from nndiag.errors import BadUsage

COMMANDS = ("try", "graph")
FORMATS: tuple[str, ...] = ()
FINDINGS = ("missing-warmup", "gradient-noise-high")


def not_built_yet(what: str, do: str = "") -> BadUsage:
    """The one clear line for something that is promised but not there."""
    return BadUsage(where=what, what="planned, but not built yet", do=do)
