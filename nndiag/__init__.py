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
    from nndiag.errors import NndiagError
    from nndiag.records import Diagnosis, Evidence, Finding, Remedy, Run, Series, Severity, Verdict
    from nndiag.settings import Settings

__all__ = [
    "Analysis",
    "Diagnosis",
    "Evidence",
    "Finding",
    "NndiagError",
    "Remedy",
    "Run",
    "Series",
    "Settings",
    "Severity",
    "Verdict",
    "__version__",
    "analyze",
]

_HOME = {
    "Analysis": "nndiag.analysis",
    "analyze": "nndiag.analysis",
    "NndiagError": "nndiag.errors",
    "Settings": "nndiag.settings",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "nndiag.records")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
