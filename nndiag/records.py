"""The words that all other modules use: what a run is, and what can be said of it.

Everything here is frozen and holds facts only. A `Run` is what a reader makes of any log; a
`Finding` is what a detector says of a run. Neither knows files, frameworks, colours or markup.

Canonical metric names (`Series.metric`); a log's own name stays in `Series.name`:

    of the whole run (where = "")
        loss  val_loss  accuracy  val_accuracy  lr  grad_norm  clip_threshold  epoch  step_time_s
        loss_scale  update_ratio             |step's change| / |parameters|, all parameters together
        update_gradient_cosine               cos(gradient at t + 1, update made at t); "kappa"
        other                                a series with no meaning to us
    of a layer (where = module name, as `named_modules()` gives it)
        activation_mean  activation_variance          over all elements of the output
        activation_sample_variance                    across samples, per unit, then averaged
        activation_abs_max  activation_zero_fraction  activation_nonfinite (count)
        dead_unit_fraction                            units silent over `dead_unit_samples` samples
        dead_unit_samples  saturated_unit_fraction
    of a parameter (where = parameter name, as `named_parameters()` gives it)
        param_grad_norm  param_norm  param_update_norm      Euclidean; grad norm -1: no gradient
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

import numpy as np

Number = int | float

# Parts of class names; "adam" is in AdamW, NAdam and RAdam too.
ADAPTIVE = (
    "adam", "adagrad", "adadelta", "rmsprop", "rprop", "lion", "lamb", "adafactor", "muon",
    "sophia", "shampoo", "soap",
)  # fmt: skip


class Severity(IntEnum):
    """How much a finding matters: `info` asks for nothing, `warning` for a look, `critical` now."""

    INFO = 1
    WARNING = 2
    CRITICAL = 3

    def __str__(self) -> str:
        return self.name.lower()


class Verdict(Enum):
    """One word for a whole run."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    UNDECIDED = "undecided"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Series:
    """One scalar followed over training. NaN and infinity stay in: they are evidence, not dirt."""

    metric: str  # canonical name, see above
    steps: np.ndarray  # (T,) int64, the log's own steps, strictly increasing, read-only
    values: np.ndarray  # (T,) float64, read-only
    where: str = ""  # module or parameter name; "" for the whole run
    owner: str = ""  # optimizer or model it belongs to; "" where the run has only one
    name: str = ""  # as the log calls it
    recorded: int = 0  # points in the log: T, or more where this is an outline (outline.py)

    def __post_init__(self) -> None:
        steps = np.ascontiguousarray(self.steps, dtype=np.int64)
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        if steps.shape != values.shape or steps.ndim != 1:
            raise ValueError(f"{self.metric}: {steps.shape} steps for {values.shape} values")
        if not (steps[1:] > steps[:-1]).all():  # not np.diff: it wraps at 2**63
            raise ValueError(f"{self.metric}: steps must increase strictly")
        steps.flags.writeable = values.flags.writeable = False
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "recorded", max(self.recorded, steps.size))

    def __len__(self) -> int:
        return int(self.steps.size)

    @property
    def label(self) -> str:
        """What a person calls it: the log's own name, else our name for it."""
        return self.name or self.metric


@dataclass(frozen=True, slots=True)
class Layer:
    """A module that took part in the forward pass."""

    name: str  # as model.named_modules() gives it; "" is the model itself
    kind: str  # class name, "Linear"
    order: int  # place in the forward pass, 0 first
    model: str = ""  # class name of the model it belongs to
    parameters: tuple[str, ...] = ()  # names of its own parameters


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a watched model."""

    name: str  # as model.named_parameters() gives it
    shape: tuple[int, ...]
    requires_grad: bool
    optimizer: str | None  # owner name of the optimizer that holds it; None: no optimizer does
    model: str = ""
    layer: str = ""  # name of the module that owns it
    lr: float | None = None  # of its parameter group when last seen
    has_grad: bool | None = None  # whether a gradient lay in `.grad` when last seen

    @property
    def is_weight(self) -> bool:
        """A matrix or a kernel, not a bias or a norm's scale."""
        return len(self.shape) >= 2


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer that made steps."""

    owner: str  # "Adam", or "Adam-1" where there are several
    kind: str  # class name
    steps: int
    settings: tuple[tuple[str, Number], ...] = ()  # lr, momentum, beta1, beta2, eps, weight_decay

    def setting(self, name: str) -> Number | None:
        return dict(self.settings).get(name)

    @property
    def is_adaptive(self) -> bool:
        """Divides by a running gradient scale, so that the size of a gradient hardly matters."""
        kind = self.kind.lower()
        return any(word in kind for word in ADAPTIVE)


@dataclass(frozen=True, slots=True)
class NonfiniteOrigin:
    """The first tensor that went bad, in forward order; in backward order for gradients."""

    step: int
    kind: str  # "input", "activation", "loss", "gradient" or "parameter"
    where: str  # module or parameter name; "" where unknown
    value: float  # nan, inf or -inf
    loss_finite: bool  # the loss of that step was still finite
    detail: str = ""  # "LogBackward0", say


@dataclass(frozen=True, slots=True)
class Fact:
    """Something seen of the code or the data of a training, with its numbers by name.

    The kinds and their numbers are listed in docs/journal.md.
    """

    kind: (
        str  # "loss", "zero-grad", "mode", "input", "batch-statistics", "weights", "skipped-steps"
    )
    step: int
    where: str = ""  # module, parameter or model; "" where it concerns the whole step
    owner: str = ""  # the optimizer that made the step
    numbers: tuple[tuple[str, Number | str | bool], ...] = ()

    def number(self, name: str) -> Number | str | bool | None:
        return next((value for key, value in self.numbers if key == name), None)

    def amount(self, name: str) -> float:
        """A number as such; NaN where there is none of that name."""
        value = self.number(name)
        return float(value) if isinstance(value, int | float) else float("nan")

    def count(self, name: str) -> int:
        """A whole number; 0 where there is none of that name."""
        value = self.number(name)
        return value if isinstance(value, int) else 0


@dataclass(frozen=True, slots=True)
class Run:
    """One training run, whatever log it came from."""

    path: str
    format: str  # "nndiag", "csv", "jsonl", "hf-trainer-state", "text"
    series: tuple[Series, ...]
    layers: tuple[Layer, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    optimizers: tuple[Optimizer, ...] = ()
    nonfinite: tuple[NonfiniteOrigin, ...] = ()
    facts: tuple[Fact, ...] = ()  # of code and data, in the order in which they were seen
    notes: tuple[str, ...] = ()  # what was read, left out, or could not be observed
    blind: tuple[str, ...] = ()  # canonical metrics this log cannot show, or shows filtered
    environment: tuple[tuple[str, str], ...] = ()  # what ran it, as the log tells: ("torch", "2.6")

    def series_of(self, metric: str, *, owner: str | None = None) -> Iterator[Series]:
        """Every series of a metric, in the order of the log."""
        for series in self.series:
            if series.metric == metric and (owner is None or series.owner == owner):
                yield series

    def one(self, metric: str, where: str = "", owner: str = "") -> Series | None:
        """The series of a metric at a place; the only one there is where the owner is not given."""
        found = [s for s in self.series if s.metric == metric and s.where == where]
        of_owner = [s for s in found if s.owner == owner]
        if of_owner:
            return of_owner[0]
        return found[0] if len(found) == 1 and not owner else None

    def facts_of(self, kind: str) -> Iterator[Fact]:
        """Every fact of a kind, oldest first."""
        return (fact for fact in self.facts if fact.kind == kind)

    def companion(self, metric: str, of: Series) -> Series | None:
        """The whole-run series of `metric` that goes with `of`: same owner, else the only one."""
        return self.one(metric, owner=of.owner) or self.one(metric)

    def optimizer(self, owner: str) -> Optimizer | None:
        """The optimizer of that name; the only one there is where the name is empty."""
        named = [o for o in self.optimizers if o.owner == owner]
        if named:
            return named[0]
        return self.optimizers[0] if len(self.optimizers) == 1 else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A number that proves a finding, and the limit that it broke, if there is one."""

    name: str
    measured: Number | bool | str
    limit: Number | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to change, with the value to change it to where the run tells one."""

    name: str  # SPEC 4: "lower-lr"
    text: str  # what to do, one sentence: "clip gradients at 0.8"
    why: str  # the evidence that speaks for it
    setting: str = ""  # "lr", "clip_grad_norm_.max_norm", "batch_size"
    old: Number | str | None = None
    new: Number | str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault seen in a run. Facts only; how it looks is the reports' business."""

    name: str  # SPEC 3: "loss-spike"
    severity: Severity
    confidence: float  # 0..1
    message: str  # one or two sentences with the numbers in them
    step_start: int | None = None  # the log's own steps
    step_end: int | None = None
    series: str = ""  # label of the series it was seen in
    owner: str = ""  # optimizer or model, where the run has several
    layers: tuple[str, ...] = ()  # module names
    evidence: tuple[Evidence, ...] = ()
    symptoms: tuple[Finding, ...] = ()  # findings that this one explains
    remedies: tuple[Remedy, ...] = ()  # best first
    known: bool = False  # a baseline holds it already, so it fails no check

    def measured(self, name: str) -> Number | bool | str | None:
        """The measured value of the evidence of that name."""
        return next((e.measured for e in self.evidence if e.name == name), None)

    def with_(self, **changes: object) -> Finding:
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class AttributedInput:
    """An input of a model, of S samples, and how much each part of it counts."""

    name: str  # as the model's call has it: "0", "input_ids"
    kind: str  # "image", "tabular", "sequence", "tokens", "ids"
    values: np.ndarray  # (S, ...) what the model was given; of tokens their ids
    attributions: np.ndarray | None  # (S, ...) the same shape; None: a layer was attributed to
    baseline: np.ndarray | None = None  # (...) what counts as nothing; None for tokens


@dataclass(frozen=True, slots=True)
class AttributedSample:
    """A sample of a batch, and the number of it that was attributed."""

    row: int  # in the batch
    loss: float  # as the training saw it; NaN: unknown
    what: str  # "the loss (cross-entropy)", "output 3 (the label)"
    at_sample: float  # that number
    at_baseline: float
    delta: float | None = None  # what the attributions miss of the change between the two


@dataclass(frozen=True, slots=True)
class OddInput:
    """The largest number of a sample whose input is unlike that of the others of its batch."""

    row: int
    name: str  # of the input
    index: tuple[int, ...]
    value: float
    usual: float  # upper quartile over the samples of their largest |number|


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a model looked at in one batch, by one method of Captum, or why that is not known."""

    path: str
    step: int
    why: str  # the batch was captured at a "spike", when the loss was "nonfinite", or at the "end"
    model: str
    method: str
    of: str = ""  # "loss" or "output"
    layer: str = ""  # of methods that attribute to the units of one
    inputs: tuple[AttributedInput, ...] = ()
    units: np.ndarray | None = None  # (S, ...) attributions to the units of the layer
    samples: tuple[AttributedSample, ...] = ()  # S of them
    batch: np.ndarray | None = None  # (B,) the loss of each sample of the batch
    elements: np.ndarray | None = None  # (S, ...) what the loss of a sample is the mean of
    batch_size: int = 0
    loss: float = float("nan")
    before: float = float("nan")  # the usual loss before a spike
    odd: tuple[OddInput, ...] = ()  # the oddest first
    differs_at_rest: bool = False  # in eval mode the loss of a sample is another one
    rank: int = 0  # of the process whose batch it is
    relative_delta: float | None = None  # mean |delta| / mean |change|; None: not of this method
    steps: int = 0  # of the integral
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    failed: str = ""  # why there are no attributions
    do: str = ""  # and what would work
    owner: str = ""  # the optimizer that counts the steps: "Adam(Net)#2"; "" where none is known


@dataclass(frozen=True, slots=True)
class Abstention:
    """A detector that could not judge, and why: silence is not health."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that is said of one run."""

    run: Run
    verdict: Verdict
    findings: tuple[Finding, ...] = ()  # worst first
    abstained: tuple[Abstention, ...] = ()
    notes: tuple[str, ...] = field(default=())
