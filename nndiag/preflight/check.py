"""One line of the checklist: what was looked at, what it showed, and how that stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from nndiag.records import Evidence, Finding, Severity


class State(Enum):
    """How a check stands."""

    OK = "ok"
    LOOK = "look"  # unusual; many healthy trainings look like this, so nothing fails for it
    WRONG = "wrong"  # a finding
    UNSEEN = "not seen"  # the text says why

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check and its outcome."""

    name: str  # "zero_grad"
    state: State
    text: str  # the number, in one line
    findings: tuple[str, ...] = ()  # those that make it wrong
    profile: tuple[float, ...] = ()  # a number for each layer, in forward order
    values: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings of a run by name, symptoms too."""

    all: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Findings:
        return cls(tuple(_flat(findings)))

    def among(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of `names` that were found, remarks left out."""
        serious = {one.name for one in self.all if one.severity > Severity.INFO}
        return tuple(name for name in names if name in serious)

    def check(
        self,
        name: str,
        about: Iterable[str],
        state: State,
        text: str,
        profile: Iterable[float] = (),
        **values: float | int | str | bool,
    ) -> Check:
        """A check that is wrong where one of the findings `about` it was made."""
        found = self.among(about)
        told = tuple(Evidence(key, value) for key, value in values.items())
        return Check(
            name=name,
            state=State.WRONG if found else state,
            text=text,
            findings=found,
            profile=tuple(profile),
            values=told,
        )


def brief(value: float) -> str:
    """Two digits, as a person writes them: 0.031, 98, 3500, 1.2e-07."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.2g}"


def _flat(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _flat(finding.symptoms)
