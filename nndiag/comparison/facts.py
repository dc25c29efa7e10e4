"""What a comparison says: frozen facts, without wording or colour.

A side is one run, or several runs of one setting with different seeds. A difference is B minus A;
of a series on a ratio scale it is the difference of natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nndiag.fingerprint import Fingerprint
from nndiag.records import Diagnosis, Finding

CONFIDENCE = 0.99  # that no curve of a pair is called different when only its noise differs

LEAST_RATIO = 0.4  # of logarithms: a factor of 1.5 in a layer is worth telling. Our own choice
LEAST_SHARE = 0.1  # of the units of a layer. Our own choice


class Outcome(Enum):
    """How B stands to A."""

    LOWER = "lower"
    HIGHER = "higher"
    SAME = "no difference beyond noise"
    IDENTICAL = "identical"
    UNDECIDED = "cannot be told"


class Basis(Enum):
    """What a band is made of."""

    NOISE = "noise within the runs"  # one run a side: says nothing of other seeds
    SEEDS = "seeds"  # several runs a side: Welch's t
    NONE = "none"


class Change(Enum):
    """What became of a finding from A to B."""

    APPEARED = "appeared"
    GONE = "gone"
    WORSE = "worse"
    BETTER = "better"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A at one place, with the half width of its band."""

    outcome: Outcome
    a: float  # level; NaN where unknown
    b: float
    value: float  # B - A, or log B - log A
    band: float  # NaN where unknown
    basis: Basis
    reason: str = ""  # of UNDECIDED


@dataclass(frozen=True, slots=True)
class WayPoint:
    """The difference in one window on the way."""

    start: float
    end: float
    difference: Difference


@dataclass(frozen=True, slots=True)
class Extreme:
    """The best value of a curve in the common stretch, and where."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Reached:
    """When a curve came to a level: best guess and band, in the unit of the axis."""

    at: float
    earliest: float
    latest: float
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CurveDifference:
    """One series of both sides."""

    metric: str
    owner: str
    label_a: str
    label_b: str
    is_ratio: bool
    better: str  # "lower", "higher"; "" where neither is
    start: float  # the common stretch, in the unit of the axis
    end: float
    window_start: float  # where the end level is taken from, to `end`
    difference: Difference
    way: tuple[WayPoint, ...] = ()
    since: float | None = None  # from there to the end always different the same way
    best_a: Extreme | None = None
    best_b: Extreme | None = None
    target: float | None = None  # a level that both reached
    reached_a: Reached | None = None
    reached_b: Reached | None = None
    is_paired: bool = False  # the noise is that of the differences step by step
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The curve of both sides in equal parts of the axis, from `start` to `end`; NaN: no values."""

    label: str
    start: float
    end: float
    common_end: float
    a: tuple[float, ...]
    b: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """One measure of a layer that both sides have."""

    layer: str
    measure: str
    is_ratio: bool
    phase: str  # "start", "middle", "end" of the common steps: where they differ most
    difference: Difference

    @property
    def is_large(self) -> bool:
        """Whether it matters besides being beyond noise."""
        return abs(self.difference.value) >= (LEAST_RATIO if self.is_ratio else LEAST_SHARE)


@dataclass(frozen=True, slots=True)
class Layers:
    """How the layers of two sides compare."""

    compared: int = 0  # measures of layers
    different: tuple[LayerDifference, ...] = ()  # farthest beyond their noise first
    renamed: tuple[tuple[str, str], ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting of which the sides have not the same values; "" where it is not recorded."""

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindingChange:
    """What became of a finding."""

    change: Change
    fingerprint: Fingerprint
    before: Finding | None
    after: Finding | None
    runs_a: int  # of A's runs that have it
    runs_b: int
    why: str = ""  # of worse and better


@dataclass(frozen=True, slots=True)
class Side:
    """One run, or several of one setting."""

    mark: str  # "A"
    diagnoses: tuple[Diagnosis, ...]

    @property
    def is_several(self) -> bool:
        return len(self.diagnoses) > 1


@dataclass(frozen=True, slots=True)
class Pair:
    """All that differs between two sides."""

    a: Side
    b: Side
    align: str  # "step", "time", "progress"
    unit: str  # of the axis: "step", "epoch", "s", "share"
    findings: tuple[FindingChange, ...] = ()
    curves: tuple[CurveDifference, ...] = ()
    only_a: tuple[str, ...] = ()  # series
    only_b: tuple[str, ...] = ()
    layers: Layers = Layers()
    settings: tuple[SettingDifference, ...] = ()
    settings_compared: int = 0
    drawn: Drawn | None = None  # the first curve
    not_comparable: str = ""  # why no curve could be laid over another
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rank:
    """One of many runs by its final level at the end that all of them reached."""

    mark: str
    level: float  # NaN: the run broke before
    band: float
    at: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs against a reference."""

    sides: tuple[Side, ...]  # the reference first
    pairs: tuple[Pair, ...]  # the reference against each other side
    ranking: tuple[Rank, ...] = ()  # best first; of three sides or more
    ranked_by: str = ""  # metric
    ranked_unit: str = "step"
    notes: tuple[str, ...] = ()
