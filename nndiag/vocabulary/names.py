"""What people call their metrics: "Val Loss", "train/loss_epoch", "gnorm", "lr-AdamW"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

MAX_NAME = 128  # characters of a name that are looked at


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


TRAIN = words_of("train training trn tr trainer")
VALIDATION = words_of("val valid validation vali eval evaluation evaluate dev holdout heldout")
TEST = words_of("test testing tst")
STEPWISE = words_of("step iter iteration batch minibatch")
EPOCHWISE = frozenset(["epoch"])
# Words that change nothing in what a metric is: an average loss is a loss.
FILLING = words_of(
    "avg average averaged mean running smoothed smooth ema total overall full sum current cur raw "
    "scalar scalars metric metrics log logs model main global per set the unscaled curr token "
    "nndiag"  # our own series, in W&B and TensorBoard: see OURS
)
# Words that make of a metric another thing: "best val loss" repeats an old value, "loss_weight" is
# a setting.
SPOILING = words_of(
    "time weight weights coef coeff coefficient lambda scale ratio delta diff change std var min "
    "max best lowest highest prev previous target threshold final improvement patience count num "
    "minimum maximum initial limit rate improved"
)
LOSS = words_of("loss losses objective cost nll xent bce mse crossentropy logloss lm ce")
WEAK_LOSS = words_of("lm ce")  # of a loss only where nothing else is said: not "lm_head"
# Which loss it is; alone or beside the word "loss" they name the whole of it.
LOSS_KINDS = LOSS | words_of(
    "cross entropy ctc mlm clm softmax hinge huber focal task ml next causal sft dpo neg "
    "negative likelihood"
)
ERRORS = words_of("rmse mae error err l1 l2")  # judged as a loss where there is none
ACCURACY = words_of("acc accuracy top1")
ACCURACY_KINDS = ACCURACY | words_of("top 1 categorical sparse binary multiclass masked")
# "batch_cost", "reader_cost": PaddlePaddle's word for seconds
COSTS_IN_TIME = words_of("batch reader data time step iter")
GRADIENT = words_of("grad grads gradient gradients")
NORM = words_of("norm norms")
NORM_FILLING = words_of("l 2 0 all pre before clip clipping unclipped preclip optim opt optimizer")
LR_SPOILING = (SPOILING - {"rate", "scale"}) | words_of(
    "decay mult multiplier factor scale ratio base init peak warmup step steps start end schedule "
    "policy"
)
# "tokens_per_second", "img/s": what is counted, and the unit of time at the end
COUNTED = words_of(
    "token tokens tok toks sample samples image images img imgs example examples sentence "
    "sentences word words seq seqs sequences it iter iters iterations step steps batch batches"
)
RATES = words_of("s sec second seconds")
OURS = "nndiag"  # "nndiag/grad_norm" is ours in a log of others; "nndiag/step" is no axis of theirs
THROUGHPUTS = words_of("throughput ips wps tps qps fps tgs mfu")
# What else takes part in a training: (words that name it) -> who it is.
OWNERS = {
    "g": "G", "gen": "G", "generator": "G", "netg": "G",
    "d": "D", "dis": "D", "disc": "D", "discriminator": "D", "netd": "D",
    "critic": "critic", "actor": "actor", "policy": "policy", "value": "value", "vf": "value",
}  # fmt: skip

# Best first: where a log has several, the first one counts optimizer steps most surely.
STEPS = (
    ("global", "step"), ("global", "steps"), ("optimizer", "step"), ("opt", "step"),
    ("num", "updates"), ("current", "step"), ("current", "steps"), ("step",), ("steps",),
    ("update",), ("updates",), ("step", "num"), ("iteration",), ("iterations",), ("n", "iter"),
    ("cur", "iter"), ("iter",), ("iters",), ("itr",), ("it",), ("batch",), ("batch", "idx"),
    ("batch", "id"), ("batch", "index"), ("minibatch",), ("i",), ("s",),
    ("update", "step"), ("gradient", "steps"), ("n", "updates"),
    ("global", "iter"), ("global", "iteration"), ("cur", "step"), ("current", "iter"),
    ("current", "iteration"), ("iter", "num"), ("iteration", "num"), ("num", "iter"),
    ("num", "iters"), ("num", "steps"), ("niter",),
)  # fmt: skip
# Those that may start again with every epoch.
WITHIN_EPOCH = frozenset(
    [
        ("step",), ("steps",), ("iteration",), ("iter",), ("iters",), ("itr",), ("it",), ("i",),
        ("s",), ("batch",), ("batch", "idx"), ("batch", "id"), ("batch", "index"),
        ("minibatch",), ("cur", "iter"),
    ]
)  # fmt: skip
EPOCHS = (
    ("epoch",),
    ("epochs",),
    ("current", "epoch"),
    ("epoch", "num"),
    ("ep",),
    ("epoch", "idx"),
)

_EXACT = {
    ("update", "ratio"): "update_ratio",
    ("update", "gradient", "cosine"): "update_gradient_cosine",
    ("grad",): "grad_norm", ("norm",): "grad_norm",
    ("total", "norm"): "grad_norm", ("global", "norm"): "grad_norm",
    ("clip", "threshold"): "clip_threshold", ("max", "grad", "norm"): "clip_threshold",
    ("max", "norm"): "clip_threshold", ("grad", "clip"): "clip_threshold",
    ("clip", "grad", "norm"): "clip_threshold", ("clip", "value"): "clip_threshold",
    ("gradient", "clip", "val"): "clip_threshold", ("gradient", "clip"): "clip_threshold",
    ("gradient", "clipping"): "clip_threshold", ("clip", "norm"): "clip_threshold",
    ("clip", "grad"): "clip_threshold",
    ("loss", "scale"): "loss_scale", ("grad", "scale"): "loss_scale",
    ("amp", "scale"): "loss_scale", ("scaler", "scale"): "loss_scale",
    ("loss", "scaler"): "loss_scale", ("dynamic", "loss", "scale"): "loss_scale",
    ("grad", "scaler", "scale"): "loss_scale",
    ("step", "time", "s"): "step_time_s", ("step", "time"): "step_time_s",
    ("iter", "time"): "step_time_s", ("batch", "time"): "step_time_s",
    ("time", "per", "step"): "step_time_s", ("sec", "per", "step"): "step_time_s",
    ("seconds", "per", "step"): "step_time_s", ("sec", "step"): "step_time_s",
    ("s", "it"): "step_time_s", ("time", "per", "iter"): "step_time_s",
    ("iteration", "time"): "step_time_s", ("batch", "cost"): "step_time_s",
    ("avg", "batch", "cost"): "step_time_s",
}  # fmt: skip
_WHOLE = {  # names that say their split in the same word
    "trl": ("loss", "train"), "tel": ("loss", "test"),
    "trainloss": ("loss", "train"), "valloss": ("loss", "val"), "testloss": ("loss", "test"),
    "tloss": ("loss", "train"), "vloss": ("loss", "val"),
    "trainacc": ("accuracy", "train"), "valacc": ("accuracy", "val"),
}  # fmt: skip
_METRICS = {
    ("loss", ""): "loss", ("loss", "train"): "loss",
    ("loss", "val"): "val_loss", ("loss", "test"): "val_loss",
    ("accuracy", ""): "accuracy", ("accuracy", "train"): "accuracy",
    ("accuracy", "val"): "val_accuracy", ("accuracy", "test"): "val_accuracy",
}  # fmt: skip

# "valLoss", "CTCLoss", "lr0", "top-1" -> words; every branch eats, so the search is linear
_WORD = re.compile(r"[A-Z]{2,64}(?![a-z])|[A-Z]?[a-z]{1,64}|[0-9]{1,64}|[A-Z]")


class Meaning(NamedTuple):
    """What a name tells about the series that bears it."""

    metric: str = "other"  # records.py's name for it
    family: str = ""  # "loss", "error", "accuracy", "lr", "grad_norm", "step", "epoch", ... or ""
    split: str = ""  # "train", "val", "test"; "" where it does not say
    period: str = ""  # "step", "epoch"; "" where it does not say
    extra: tuple[str, ...] = ()  # words that we have no use for: the parts of a sum have such
    words: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The network a loss belongs to where a log has several: "G" of "loss_G"; else ""."""
        return next((OWNERS[word] for word in self.extra if word in OWNERS), "")


def canonical(name: str) -> str:
    """records.py's name for what a log calls `name`; "other" where there is none."""
    return describe(name).metric


@lru_cache(maxsize=8192)
def describe(name: str) -> Meaning:
    """All that a name tells."""
    words = tuple(word.lower() for word in _WORD.findall(name[:MAX_NAME]))
    if not words:
        return Meaning()
    plain = tuple(word for word in words if word not in TRAIN) or words
    exact = _EXACT.get(plain) or _EXACT.get(words) or _EXACT.get(_without_ours(plain))
    if exact:
        return Meaning(exact, exact, words=words)
    for family, names in (("step", STEPS), ("epoch", EPOCHS)):
        if plain in names:
            metric = "epoch" if family == "epoch" else "other"
            return Meaning(metric, family, extra=(), words=plain)
    split = _split(words)
    if split == "?":
        return Meaning(words=words)
    rest = [w for w in words if w not in TRAIN and w not in VALIDATION and w not in TEST]
    if len(rest) > 1 and rest[-1] in ("value", "values"):  # "loss value"; "value loss" is another
        rest.pop()
    if len(rest) == 1 and rest[0] in _WHOLE:
        family, own = _WHOLE[rest[0]]
        return Meaning(_METRICS[family, own], family, own, words=words)
    if not rest:  # "train 0.52 valid 0.31": what else would one print
        metric = {"train": "loss", "val": "val_loss"}.get(split, "other")
        return Meaning(metric, "loss" if metric != "other" else "", split, words=words)
    return _of_family(words, rest, split)


def _without_ours(words: tuple[str, ...]) -> tuple[str, ...]:
    return words[1:] if words[0] == OURS else words


def _split(words: tuple[str, ...]) -> str:
    """ "train", "val", "test", or "" for none, "?" for several."""
    splits = [
        name
        for name, known in (("train", TRAIN), ("val", VALIDATION), ("test", TEST))
        if not known.isdisjoint(words)
    ]
    if splits == ["val", "test"]:
        return "test"  # "eval/test_loss"
    return splits[0] if len(splits) == 1 else "?" if splits else ""


def _of_family(words: tuple[str, ...], rest: list[str], split: str) -> Meaning:
    has = set(rest)
    period = "epoch" if has & EPOCHWISE else "step" if has & STEPWISE else ""
    if has & {"lr", "lrs", "lrate"} or {"learning", "rate"} <= has or "learningrate" in has:
        spoilt = not LR_SPOILING.isdisjoint(has)
        return Meaning("other" if spoilt else "lr", "" if spoilt else "lr", split, words=words)
    if has & {"gnorm", "gradnorm"} or (has & GRADIENT and has & NORM):
        return _grad_norm(words, has)
    settled = _throughput_or_setting(words, has)
    if settled:
        return Meaning("other", settled, split, words=words)
    if has & SPOILING:
        return Meaning(words=words)
    if has & LOSS == {"cost"} and has & COSTS_IN_TIME:
        return Meaning(words=words)
    if words[-2:] == ("prec", "1"):
        return Meaning(_METRICS["accuracy", split], "accuracy", split, words=words)
    for family, core, kinds in (
        ("loss", LOSS, LOSS_KINDS), ("accuracy", ACCURACY, ACCURACY_KINDS),
        ("error", ERRORS, ERRORS),
    ):  # fmt: skip
        named = has & core or (family == "accuracy" and {"top", "1"} <= has)
        if not named and not (family == "loss" and _names_loss_in_full(has)):
            continue
        known = kinds | FILLING | STEPWISE | EPOCHWISE
        extra = tuple(word for word in rest if word not in known)
        if extra and family == "loss" and has & core <= WEAK_LOSS:
            return Meaning(words=words)
        metric = "other" if extra else _METRICS.get((family, split), "other")
        return Meaning(metric, family, split, period, extra, words)
    return Meaning(split=split, period=period, extra=tuple(rest), words=words)


def _names_loss_in_full(has: set[str]) -> bool:
    is_negative = bool(has & {"neg", "negative"})
    return {"cross", "entropy"} <= has or (is_negative and {"log", "likelihood"} <= has)


def _throughput_or_setting(words: tuple[str, ...], has: set[str]) -> str:
    """ "throughput" of "tokens/s", "img/s", "ips"; "batch_size"; "weight_decay"; else ""."""
    is_rate = words[-1] in RATES and (len(words) > 1 or words[-1] not in ("s", "sec", "second"))
    if (is_rate and has & COUNTED) or has & THROUGHPUTS:
        return "throughput"
    if words[-2:] == ("batch", "size") or words[-1] in ("bsz", "batchsize"):
        return "batch_size"
    return "weight_decay" if words[-2:] == ("weight", "decay") or words == ("wd",) else ""


def _grad_norm(words: tuple[str, ...], has: set[str]) -> Meaning:
    """Of the whole model, before clipping; that of one layer or a clipped one is another thing."""
    known = {"gnorm", "gradnorm"} | GRADIENT | NORM | NORM_FILLING | FILLING | STEPWISE | EPOCHWISE
    is_threshold = "clip" in has and not has & {"before", "pre"}
    if has <= known and not is_threshold:
        return Meaning("grad_norm", "grad_norm", words=words)
    return Meaning(words=words)


class StepAxis(NamedTuple):
    """The columns that tell when: each "" where there is none."""

    step: str = ""  # counts optimizer steps, or steps within an epoch
    epoch: str = ""
    others: tuple[str, ...] = ()  # more columns that count steps, best first

    @property
    def may_restart_each_epoch(self) -> bool:
        return bool(self.epoch) and describe(self.step).words in WITHIN_EPOCH


def step_axis(names: Iterable[str]) -> StepAxis:
    """Which of these names count steps, and which epochs; the surest of each."""
    steps: list[tuple[int, str]] = []
    epochs: list[tuple[int, str]] = []
    for name in names:
        meaning = describe(name)
        if meaning.family == "step":
            steps.append((STEPS.index(meaning.words), name))
        elif meaning.family == "epoch":
            epochs.append((EPOCHS.index(meaning.words), name))
    steps.sort(key=lambda ranked: ranked[0])
    epochs.sort(key=lambda ranked: ranked[0])
    ordered = [name for _, name in steps]
    epoch = epochs[0][1] if epochs else ""
    return StepAxis(ordered[0] if ordered else "", epoch, tuple(ordered[1:]))
