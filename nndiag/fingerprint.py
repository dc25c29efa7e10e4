"""What makes two findings of two runs the same one, whatever the steps and the seed.

    loss-spike loss                     name, series
    dead-relu net.*.relu                name, layers: their numbers become *, each form once
    loss-divergence loss D              name, series, optimizer or model where a run has several

Not in it: steps, numbers, confidence, severity, the wording. Which of twelve equal blocks a fault
shows in differs from seed to seed, so `h.3.mlp` and `h.7.mlp` are one place. A series goes by our
name for it where we know what it is ("loss" for a log's "train_ce").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nndiag.records import Finding, Run

_NUMBER = re.compile(r"\d+")
_LENGTH = 16  # hexadecimal digits of a digest: 64 bits, plenty for the findings of a project


@dataclass(frozen=True, slots=True, order=True)
class Fingerprint:
    """The identity of a finding over runs; sorts and compares by its parts."""

    name: str
    series: str = ""
    owner: str = ""
    layers: tuple[str, ...] = ()  # forms of layer names, sorted

    @property
    def text(self) -> str:
        """For people, and to be kept in a file: `dead-relu dead_unit_fraction net.*.relu`."""
        return " ".join(filter(None, (self.name, self.series, self.owner, *self.layers)))

    @property
    def digest(self) -> str:
        """The same in 16 hexadecimal digits, for formats that want a short key (SARIF)."""
        parts = "\0".join((self.name, self.series, self.owner, "\1", *self.layers))
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def fingerprint(finding: Finding, run: Run | None = None) -> Fingerprint:
    """The fingerprint of a finding; `run` tells what its series is, whatever the log calls it."""
    return Fingerprint(
        name=finding.name,
        series=_metric(finding.series, run),
        owner=finding.owner,
        layers=layer_forms(finding.layers),
    )


def layer_forms(names: Iterable[str]) -> tuple[str, ...]:
    """Layer names with `*` for each number, each form once, sorted: `h.*.mlp`."""
    return tuple(sorted({_NUMBER.sub("*", name) for name in names}))


def _metric(label: str, run: Run | None) -> str:
    """Our name for a series that the log calls `label`; the label itself where there is none."""
    found = (s for s in (run.series if run else ()) if not s.where and s.label == label)
    return next((s.metric for s in found if s.metric != "other"), label)
