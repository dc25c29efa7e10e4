"""What the public contract names and this version does not do: said when asked for, not hidden."""

from __future__ import annotations

from nndiag.errors import BadUsage

COMMANDS = ("check", "preflight", "try", "attribute", "report", "compare", "graph", "export")
FORMATS = ("markdown", "html", "github", "sarif", "junit")
FINDINGS = (
    "update-too-small",
    "update-too-large",
    "missing-warmup",
    "gradient-noise-high",
    "symmetric-units",
    "missing-zero-grad",
    "softmax-before-cross-entropy",
    "unnormalised-inputs",
    "eval-mode-training",
    "batchnorm-small-batch",
    "fp16-overflow",
)


def not_built_yet(what: str, do: str = "") -> BadUsage:
    """The one clear line for something that is promised but not there."""
    return BadUsage(where=what, what="planned, but not built yet", do=do)
