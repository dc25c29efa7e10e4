"""Which of a log's series is the loss: clear rules, and the reason in words.

1. the series that `--loss` names
2. the whole over its parts, a total over all, training over validation, per step over per epoch,
   the plainer name over the longer
3. losses of several networks (`loss_G`, `loss_D`): each for itself
4. parts without a total: their sum
5. an error measure (RMSE, MAE); at last the validation loss
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.tables.table import Column, Table
from nndiag.vocabulary import Meaning, describe, step_axis

FEW = 0.05  # of the points of the longest candidate: below it, a summary row and no curve
FEWEST = 20  # points of a loss that is taken because the better one ends long before it
SAME_ROWS = 0.9  # of the rows of a part: below it, parts are not of one sum
SHOWN_NAMES = 12
LONGEST_SUM = 8  # parts that are listed in the name of their sum
_IN_STEPS_FIRST = {"step": 0, "": 1, "epoch": 2}
_IN_EPOCHS_FIRST = {"epoch": 0, "": 1, "step": 2}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A series to make: one column, or the sum of several."""

    parts: tuple[str, ...]  # names of columns
    owner: str = ""

    @property
    def name(self) -> str:
        if len(self.parts) > LONGEST_SUM:
            return f"sum of {len(self.parts)} losses, {self.parts[0]} and so on"
        return " + ".join(self.parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """The loss of a log, or the losses of its networks, and why."""

    losses: tuple[Chosen, ...]
    validation: Chosen | None
    why: tuple[str, ...]


def choose(table: Table, wanted: str | None, path: str, held_out: str = "") -> Choice:
    """The loss and the validation loss of a log.

    `held_out` is the validation loss of a log where no name is one's own.

    Raises:
        UnreadableLog: no series is called `wanted`, or none looks like a loss.
    """
    names = {name: describe(name) for name in table.columns}
    if wanted is not None:
        chosen = _named(wanted, table, path)
        validation = _validation(table, names, chosen)
        return Choice((chosen,), validation, (f"loss: {chosen.name!r}, as asked for",))
    for rule in (_whole, _of_networks, _parts, _error, _held_out):
        losses, why = rule(table, names)
        if losses:
            taken = {part for chosen in losses for part in chosen.parts}
            validation = _validation(table, names, losses[0])
            if validation is None and held_out in names and not losses[0].owner:
                validation = Chosen((held_out,))
            if validation is not None and taken & set(validation.parts):
                validation = None
            return Choice(losses, validation, why)
    raise unreadable(table, path, "no series in it looks like a loss", "loss")


def unreadable(table: Table, path: str, what: str, wanted: str) -> UnreadableLog:
    """The error that lists what could be named instead, the closest first."""
    names = list(table.names)
    if not names:
        return UnreadableLog(
            where=path,
            what="no named numbers in it, so no loss",
            do="known: CSV, JSON lines, trainer_state.json, lines like 'step 10 loss 0.5'",
        )
    lower = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(wanted.lower()[:200], lower, n=SHOWN_NAMES, cutoff=0.3)
    ordered = list(dict.fromkeys([*(lower[name] for name in close), *names]))
    ordered.sort(key=lambda name: describe(name).family in ("step", "epoch", "lr"))  # stable
    listed = ", ".join(ordered[:SHOWN_NAMES]) + (", ..." if len(ordered) > SHOWN_NAMES else "")
    plain = f"./{path}" if path.startswith("-") and path != "-" else path  # it is no option
    command = f"nndiag analyze {shlex.quote(plain)} --loss {shlex.quote(ordered[0])}"
    return UnreadableLog(where=path, what=what, do=f"name it: {command}  (columns: {listed})")


def _named(wanted: str, table: Table, path: str) -> Chosen:
    plain = wanted.strip().lower()
    for same in (lambda name: name == wanted, lambda name: name.strip().lower() == plain):
        found = next(filter(same, table.columns), None)
        if found is not None:
            return Chosen((found,))
    sum_of = tuple(part.strip() for part in wanted.split(" + "))  # as our own notes call a sum
    if len(sum_of) > 1 and all(part in table.columns for part in sum_of):
        return Chosen(sum_of)
    if wanted in table.unreadable:
        raise unreadable(table, path, f"series {wanted!r} holds no numbers", wanted)
    raise unreadable(table, path, f"no series is called {wanted!r}", wanted)


Rule = tuple[tuple[Chosen, ...], tuple[str, ...]]
Names = dict[str, Meaning]
NONE: Rule = ((), ())


def _whole(table: Table, names: Names) -> Rule:
    found = [n for n, m in names.items() if m.family == "loss" and not m.extra and _trains(m)]
    if not found:
        return NONE
    best, *others = sorted(found, key=_preference(table, names, _IN_STEPS_FIRST))
    long = [other for other in others if len(table.columns[other]) >= FEWEST]
    last_of = _last_steps(table, (best, *long)) if long else {}
    for other in long:
        if last_of[other] > 2 * last_of[best] + 10:
            why = f"loss: {other!r}: {best!r} ends long before it, see that with --loss {best!r}"
            return (Chosen((other,)),), (why,)
    return (Chosen((best,)),), (
        f"loss: {best!r}" + (f", rather than {_list(others)}" if others else ""),
    )


def _last_steps(table: Table, names: Sequence[str]) -> dict[str, float]:
    """How far into the training columns go; in rows where no column counts on and on."""
    rows = {name: int(table.columns[name].rows[-1]) for name in names}
    axis = step_axis(table.columns)
    steps = table.columns.get(axis.step)
    if steps is None or axis.may_restart_each_epoch or not np.isfinite(steps.values).all():
        return {name: float(row) for name, row in rows.items()}
    highest = np.append(0.0, np.maximum.accumulate(steps.values))
    return {
        name: float(highest[np.searchsorted(steps.rows, row, side="right")])
        for name, row in rows.items()
    }


def _of_networks(table: Table, names: Names) -> Rule:
    """A GAN's or an actor-critic's losses; also "D_A", "G_A" where nothing else is a loss."""
    found = {n: m for n, m in names.items() if m.family == "loss" and _trains(m) and m.owner}
    if not found and not any(m.family in ("loss", "error") for m in names.values()):
        found = {n: m for n, m in names.items() if not m.family and m.words[:1] in (("g",), ("d",))}
    by_owner: dict[str, list[str]] = {}
    for name, meaning in found.items():
        by_owner.setdefault(meaning.owner, []).append(name)
    if len(by_owner) < 2:
        return NONE
    losses = []
    for owner, own in by_owner.items():
        shortest = min(len(found[name].extra) for name in own)
        plainest = [name for name in own if len(found[name].extra) == shortest]
        losses += [Chosen((n,), owner if len(plainest) == 1 else n) for n in plainest]
    listed = ", ".join(f"{chosen.name!r} ({chosen.owner})" for chosen in losses)
    return tuple(losses), (f"losses of several networks, each judged for itself: {listed}",)


def _parts(table: Table, names: Names) -> Rule:
    found = [n for n, m in names.items() if m.family == "loss" and m.extra and _trains(m)]
    if not found:
        return NONE
    found.sort(key=lambda name: -len(table.columns[name]))  # stable: the log's own order
    together = _logged_together(table, found)
    if len(together) == 1:
        rest = _list([name for name in found if name not in together])
        return (Chosen(together),), (
            f"loss: {together[0]!r}" + (f", rather than {rest}" if rest else ""),
        )
    chosen = Chosen(tuple(sorted(together, key=list(names).index)))
    return (chosen,), (f"loss: the sum of its parts, {chosen.name}: the log has no total",)


def _logged_together(table: Table, found: Sequence[str]) -> tuple[str, ...]:
    """The columns that stand in the rows of the first one: terms of one sum."""
    rows = table.columns[found[0]].rows
    is_first = np.zeros(table.height, dtype=bool)
    is_first[rows] = True
    return tuple(
        name for name in found if is_first[table.columns[name].rows].sum() >= SAME_ROWS * rows.size
    )


def _error(table: Table, names: Names) -> Rule:
    found = [n for n, m in names.items() if m.family == "error" and _trains(m)]
    if not found:
        return NONE
    few = _preference(table, names, _IN_STEPS_FIRST)
    best = min(found, key=lambda name: (len(names[name].extra), few(name)))
    return (Chosen((best,)),), (f"no loss in it; {best!r} is judged instead",)


def _held_out(table: Table, names: Names) -> Rule:
    found = [n for n, m in names.items() if m.metric == "val_loss"]
    found = found or [n for n, m in names.items() if m.family in ("loss", "error") and m.split]
    if not found:
        return NONE
    best = min(found, key=_preference(table, names, _IN_EPOCHS_FIRST))
    return (Chosen((best,)),), (f"no training loss in it; {best!r} is judged instead",)


def _validation(table: Table, names: Names, loss: Chosen) -> Chosen | None:
    """The validation loss that goes with a loss."""
    if loss.owner:
        return None
    held_out = {n: m for n, m in names.items() if m.split in ("val", "test")}
    whole = [n for n, m in held_out.items() if m.metric == "val_loss" and not m.extra]
    ours = [names[part] for part in loss.parts]
    if any(meaning.extra or meaning.family == "error" for meaning in ours):
        for split in ("val", "test"):  # the same parts, measured on held-out data
            wanted = {(meaning.family, meaning.extra) for meaning in ours}
            same = [
                n for n, m in held_out.items() if m.split == split and (m.family, m.extra) in wanted
            ]
            if len(same) == len(ours):
                return Chosen(tuple(same))
    if whole and all(meaning.family in ("loss", "") for meaning in ours):
        return Chosen((min(whole, key=_preference(table, names, _IN_EPOCHS_FIRST)),))
    return None


def _trains(meaning: Meaning) -> bool:
    return meaning.split in ("", "train")


def _preference(table: Table, names: Names, by_period: dict[str, int]) -> _Key:
    longest = max(len(column) for column in table.columns.values())
    return _Key(table.columns, names, by_period, longest)


@dataclass(frozen=True, slots=True)
class _Key:
    """Sorts names of whole losses, best first."""

    columns: object
    names: Names
    by_period: dict[str, int]
    longest: int

    def __call__(self, name: str) -> tuple[object, ...]:
        meaning = self.names[name]
        column = self.columns[name]  # type: ignore[index]
        assert isinstance(column, Column)
        return (
            len(column) < FEW * self.longest,
            meaning.split == "test",
            "total" not in meaning.words,
            self.by_period[meaning.period],
            "loss" not in meaning.words,
            len(meaning.words),
        )


def _list(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
