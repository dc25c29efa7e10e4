"""Watch an unchanged training script, say what is wrong with the learning, and what to change.

    import nndiag

    for diagnosis in nndiag.analyze("runs/resnet").diagnoses:
        print(diagnosis.verdict, [finding.name for finding in diagnosis.findings])

The public names are loaded on first use: this module is also imported inside watched training
processes, where nothing but the standard library and torch may be needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nndiag.analysis import Analysis, analyze
    from nndiag.assertions import (
        CannotOverfit,
        IdleParameters,
        assert_all_parameters_move,
        assert_overfits,
    )
    from nndiag.errors import NndiagError
    from nndiag.inprocess import UnhealthyRun, WatchedRun, watch
    from nndiag.records import Diagnosis, Evidence, Finding, Remedy, Run, Series, Severity, Verdict
    from nndiag.settings import Settings

__all__ = [
    "Analysis",
    "CannotOverfit",
    "Diagnosis",
    "Evidence",
    "Finding",
    "IdleParameters",
    "NndiagError",
    "Remedy",
    "Run",
    "Series",
    "Settings",
    "Severity",
    "UnhealthyRun",
    "Verdict",
    "WatchedRun",
    "__version__",
    "analyze",
    "assert_all_parameters_move",
    "assert_overfits",
    "watch",
]

_HOME = {
    "Analysis": "nndiag.analysis",
    "analyze": "nndiag.analysis",
    "assert_all_parameters_move": "nndiag.assertions",
    "assert_overfits": "nndiag.assertions",
    "CannotOverfit": "nndiag.assertions",
    "IdleParameters": "nndiag.assertions",
    "NndiagError": "nndiag.errors",
    "Settings": "nndiag.settings",
    "UnhealthyRun": "nndiag.inprocess",
    "WatchedRun": "nndiag.inprocess",
    "watch": "nndiag.inprocess",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "nndiag.records")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
