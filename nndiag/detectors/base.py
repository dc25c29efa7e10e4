"""What a detector is: a name, thresholds as fields, a docstring that is its page, one method.

A detector looks at a `Run` and yields a `Finding` for what it sees, or an `Abstention` that says
why it could not look. It never raises for a run that lacks what it needs, prints nothing, and
knows no other detector. Remedies are not its business: `nndiag.remedies` weighs all findings.

The docstring is the page of `nndiag explain NAME`. Its first line says in one sentence what is
seen; then come the headings "What it sees", "Why it happens", "Evidence", "Remedy", "Source".
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nndiag.records import Abstention, Finding, Run

NO_FACTS = "code and data were not recorded"  # the log holds no facts: it is not of `watch`
HEADINGS = ("What it sees", "Why it happens", "Evidence", "Remedy", "Source")


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A fault that can be seen in a run."""

    name: ClassVar[str]  # SPEC 3
    explains: ClassVar[tuple[str, ...]] = ()  # findings that are its symptoms when both are seen

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        """What is seen in `run`; an abstention where it cannot be judged."""
        raise NotImplementedError

    @classmethod
    def page(cls) -> str:
        """The page of `nndiag explain`: the class docstring."""
        return inspect.cleandoc(cls.__doc__ or "")

    @classmethod
    def headline(cls) -> str:
        """The first sentence of the page."""
        return cls.page().split("\n\n")[0].replace("\n", " ")
