"""Attributions as lines of words: whose loss it was, and which of its features count.

ATTRIBUTIONS  integrated-gradients  spike at step 200: loss 17.5, before 0.0223
batch        1 of 32 samples carries 100 % of the loss: sample 7 (559)
sample 7     of the loss (cross-entropy) 551, baseline 0.18
             x[5] = 80 (usually -0.02)   98 %  ################
quality      what is not accounted for: 0.0 % of the change (32 steps); 0.02 s
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nndiag.records import AttributedInput, Attribution, OddInput
from nndiag.reports import attribution_facts as facts
from nndiag.reports import wording
from nndiag.reports.attribution_facts import Carriers, Part, Places, Region
from nndiag.reports.lines import (
    BLANK,
    FIXED,
    LABEL,
    NARROWEST,
    WIDEST,
    Line,
    Role,
    Span,
    labelled,
    wrapped,
)
from nndiag.reports.wording import clean, number

SHOWN_PARTS = 5
SHOWN_SAMPLES = 4
SHOWN_CARRIERS = 5
SHOWN_PLACES = 8
SHOWN_ODD = 3
BAR = 24  # columns
MAP_ROWS, MAP_COLUMNS = 12, 24
SHADES, ASCII_SHADES = " ░▒▓█", " .:*#"  # of a map
FAINT = 0.25  # of a shade: less is blank
QUIET = 0.01  # of all: a feature with less is not shown


def report(
    attributions: Sequence[Attribution], *, width: int = FIXED, ascii_only: bool = False
) -> list[Line]:
    """All of them, a blank line between two."""
    width = max(NARROWEST, min(width, WIDEST))
    lines: list[Line] = []
    several = len({one.rank for one in attributions}) > 1
    for one in attributions:
        lines += [*_page(one, width, ascii_only, with_rank=several), BLANK]
    return lines[:-1]


def _page(
    one: Attribution, width: int, ascii_only: bool, *, with_rank: bool = False
) -> Iterator[Line]:
    layer = [Span(f" layer {clean(one.layer)}")] if one.layer else []
    head = [Span("ATTRIBUTIONS", Role.INFO), Span(f" {clean(one.method)}", Role.STRONG), *layer]
    yield from wrapped([*head, Span(f" {occasion(one, with_rank=with_rank)}")], width, hanging=3)
    carried = facts.carriers(one)
    if carried is not None and one.why != "end":
        yield from _labelled("batch", [Span(carried_by(carried, one))], width)
    elif one.why != "end":
        yield from _labelled("batch", [Span(unknown_samples(one), Role.DIM)], width)
    if one.why != "end":
        for i, odd in enumerate(one.odd[:SHOWN_ODD]):
            role = Role.PLAIN if carried is not None and carried.stand_out else Role.WARNING
            yield from _labelled("odd" if not i else "", [Span(odd_words(one, odd), role)], width)
    if one.failed:
        yield from _labelled("failed", [Span(wording.sentence(one.failed), Role.WARNING)], width)
        if one.do:
            yield from _labelled("", [Span(clean(one.do), Role.COMMAND)], width)
        return
    if one.layer:
        yield from _units(one, width, ascii_only)
    elif one.why == "end":
        yield from _overall(one, width, ascii_only)
    else:
        yield from _each(one, width, ascii_only)
    if (told := quality(one)) is not None:
        role = Role.WARNING if facts.is_unconverged(one) else Role.DIM
        yield from _labelled("quality", [Span(told, role)], width)
    for note in one.notes:
        yield from _labelled("note", [Span(wording.told(note), Role.DIM)], width)


def unknown_samples(one: Attribution) -> str:
    """What is shown where the loss of each sample is not known."""
    shown = "those with odd inputs" if one.odd else "the first ones, not those that made it"
    return f"the loss of each sample could not be read from the graph; shown are {shown}"


def occasion(one: Attribution, *, with_rank: bool = False) -> str:
    """`spike at step 200: loss 17.5, before 0.0223`; of several ranks `rank 1, spike ...`."""
    if with_rank:
        return f"rank {one.rank}, {occasion(one)}"
    if one.why == "end":
        return f"batch of step {one.step}, model as trained"
    kind = "loss not finite" if one.why == "nonfinite" else "spike"
    before = "" if math.isnan(one.before) else f", before {number(one.before)}"
    return f"{kind} at step {one.step}: loss {number(one.loss)}{before}"


def carried_by(carried: Carriers, one: Attribution) -> str:
    """Who carried the loss, in a sentence."""
    of_all = f"of {carried.total} samples"
    if carried.nonfinite:
        verb = "has" if len(carried.rows) == 1 else "have"
        named = wording.listed([f"sample {row}" for row in carried.rows], SHOWN_CARRIERS)
        return f"{len(carried.rows)} {of_all} {verb} a loss that is not finite: {named}"
    if not carried.stand_out:
        return (
            f"no sample stands out by its loss: the largest, sample {carried.rows[0]}, has "
            f"{percent(carried.shares[0])}, and an even share of {carried.total} is "
            f"{percent(1 / carried.total)}. {_instead(one)}"
        )
    losses = one.batch if one.batch is not None else np.zeros(carried.total)
    each = [
        f"sample {row} ({number(float(losses[row]))}, {percent(share)})"
        for row, share in zip(carried.rows, carried.shares, strict=True)
    ]
    verb = "carries" if len(carried.rows) == 1 else "carry"
    together = percent(sum(carried.shares))
    return (
        f"{len(carried.rows)} {of_all} {verb} {together} of the loss: "
        f"{wording.listed(each, SHOWN_CARRIERS)}"
    )


def _instead(one: Attribution) -> str:
    """Where to look when no loss of a sample stands out."""
    if one.odd:
        return "Look at what is odd in it: by batch statistics one sample moves the loss of all"
    if one.differs_at_rest:
        return "In eval mode it is another loss: dropout or batch statistics made it"
    return "Look at the steps before this batch, not at its samples"


def odd_words(one: Attribution, odd: OddInput) -> str:
    """`sample 25 has x[0, 3, 4] = 200; the largest of the others are around 2.1`."""
    place = f"[{', '.join(map(str, odd.index))}]" if odd.index else ""
    where = f"{input_name(one, odd.name)}{place}"
    usual = f"the largest of the others are around {number(odd.usual)}"
    return f"sample {odd.row} has {where} = {number(odd.value)}; {usual}"


def _each(one: Attribution, width: int, ascii_only: bool) -> Iterator[Line]:
    """Sample by sample: of a spike each has its own reason."""
    for i, sample in enumerate(one.samples[:SHOWN_SAMPLES]):
        change = f"{number(sample.at_sample)}, of a blank input {number(sample.at_baseline)}"
        yield from _labelled(f"sample {sample.row}", [Span(f"{sample.what}: {change}")], width)
        if facts.is_about_the_target(one, sample):
            why = "as high for a blank input: look at its target, not at its features"
            yield from _labelled("", [Span(why, Role.WARNING)], width)
        if (found := facts.places(one, i)) is not None:
            yield from _labelled("", [Span(made_at(found))], width)
        for given in facts.by_share(one, i):
            yield from _sample(one, given, i, ascii_only)


def made_at(found: Places) -> str:
    """`its loss is made at 2 of 15 places: 9 (8.2), 12 (3.1)`."""
    named = [
        f"{', '.join(map(str, index))} ({number(loss)})"
        for index, loss in zip(found.indices, found.losses, strict=True)
    ]
    where = f"{len(named)} of {found.total} places: {wording.listed(named, SHOWN_PLACES)}"
    return f"{percent(found.share)} of its loss is made at {where}"


def _sample(
    one: Attribution, given: AttributedInput, sample: int, ascii_only: bool
) -> Iterator[Line]:
    share = facts.share_of(one, given, sample)
    if len(one.inputs) > 1 and share < QUIET:
        name = input_name(one, given.name)
        yield (Span(" " * (LABEL + 2)), Span(f"{name}: less than 1 %", Role.DIM))
    elif given.kind == "image":
        yield from _image(one, given, sample, ascii_only)
    else:
        found = facts.parts(one, given, sample, SHOWN_PARTS)
        yield from _parts(one, given, found, ascii_only, with_value=True)


def _overall(one: Attribution, width: int, ascii_only: bool) -> Iterator[Line]:
    """Over all samples where a place means the same in each; else the first sample."""
    said = wording.counted(len(one.samples), "sample")
    what = one.samples[0].what if len({s.what for s in one.samples}) == 1 else "an output"
    yield from _labelled("output", [Span(f"what {what} is made of, in {said}")], width)
    if all(given.kind in ("tabular", "sequence") for given in one.inputs):
        for given in one.inputs:
            found = facts.parts_of_all(one, given, SHOWN_PARTS)
            yield from _parts(one, given, found, ascii_only, with_value=False)
        return
    for i, sample in enumerate(one.samples[:2]):
        yield from _labelled(f"sample {sample.row}", [Span(sample.what)], width)
        for given in facts.by_share(one, i):
            yield from _sample(one, given, i, ascii_only)


def _units(one: Attribution, width: int, ascii_only: bool) -> Iterator[Line]:
    found = facts.units(one, SHOWN_PARTS)
    said = wording.counted(len(one.samples), "sample")
    is_map = one.method == "layer-gradcam"
    words = "where the layer sees it" if is_map else "units that count most"
    yield from _labelled("layer", [Span(f"{words}, over {said}")], width)
    if is_map and one.units is not None and one.units.ndim >= 4:
        cells = facts.pooled(np.abs(one.units[0]).sum(axis=0), MAP_ROWS, MAP_COLUMNS)
        yield from _shaded(cells, ascii_only)
        return
    for i, part in enumerate(found):
        if part.share >= QUIET or i == 0:
            yield _bar(unit_name(part), part, ascii_only)


def _image(
    one: Attribution, given: AttributedInput, sample: int, ascii_only: bool
) -> Iterator[Line]:
    """Where in the picture, and a map of it."""
    map_HW = facts.sizes_of_pixels(given, sample)
    if map_HW is None:
        return
    if (found := facts.region(map_HW)) is not None:
        told = region_words(found)
        if len(one.inputs) > 1:
            of_all = percent(facts.share_of(one, given, sample))
            told = f"{input_name(one, given.name)}: {of_all} of all; {told}"
        yield (Span(" " * (LABEL + 2)), Span(told, Role.VALUE))
    yield from _shaded(facts.pooled(map_HW, MAP_ROWS, MAP_COLUMNS), ascii_only)


def region_words(found: Region) -> str:
    rows, columns = (f"{first}-{last}" for first, last in (found.rows, found.columns))
    return f"{percent(found.share)} of it in rows {rows}, columns {columns}"


def unit_name(part: Part) -> str:
    """`unit 7`, and of a sequence `position 3, unit 7`."""
    if len(part.index) == 2:
        return f"position {part.index[0]}, unit {part.index[1]}"
    return f"unit {', '.join(map(str, part.index))}"


def _parts(
    one: Attribution,
    given: AttributedInput,
    found: Sequence[Part],
    ascii_only: bool,
    *,
    with_value: bool,
) -> Iterator[Line]:
    for part in found:
        if part.share >= QUIET:
            told = feature_name(one, given, part)
            yield _bar(told + (value_of(given, part) if with_value else ""), part, ascii_only)


def _bar(label: str, part: Part, ascii_only: bool) -> Line:
    block = "#" if ascii_only else "█"
    length = max(1, round(part.share * BAR))
    sign = "-" if part.sign < 0 else "+" if part.sign > 0 else " "
    role = Role.EVENT if part.sign > 0 else Role.CURVE
    return (
        Span(" " * (LABEL + 2)),
        Span(wording.padded(wording.shortened(label, 44), 44)),
        Span(f" {sign}{percent(part.share):>5}  ", Role.VALUE),
        Span(block * length, role),
    )


def _shaded(cells: np.ndarray, ascii_only: bool) -> Iterator[Line]:
    """A map in shades of one character, each twice: a cell is as wide as high."""
    shades = ASCII_SHADES if ascii_only else SHADES
    for row in cells:
        places = np.ceil(row * (len(shades) - 1) - FAINT).clip(0, len(shades) - 1)
        text = "".join(shades[int(place)] * 2 for place in places)
        yield (Span(" " * (LABEL + 2)), Span(f"|{text}|", Role.CURVE))


def feature_name(one: Attribution, given: AttributedInput, part: Part) -> str:
    """`x[5]`, `input_ids[3]`, `x[step 4, 2]`."""
    name = input_name(one, given.name)
    if given.kind == "sequence" and len(part.index) == 2:
        return f"{name}[step {part.index[0]}, {part.index[1]}]"
    return f"{name}[{', '.join(map(str, part.index))}]"


def input_name(one: Attribution, name: str) -> str:
    """`x` for the only argument, `argument 1`, `input_ids`."""
    if name == "0" and len(one.inputs) < 2:
        return "x"
    return f"argument {name}" if name.isdigit() else clean(name)


def value_of(given: AttributedInput, part: Part) -> str:
    """` = 80 (usually -0.02)`, ` = token 17`."""
    if math.isnan(part.value) and given.kind != "tabular":
        return ""
    if given.kind in ("tokens", "ids"):
        return f" = {'token' if given.kind == 'tokens' else 'id'} {part.value:.0f}"
    usual = given.kind in ("tabular", "sequence") and not math.isnan(part.typical)
    return f" = {number(part.value)}" + (f" (usually {number(part.typical)})" if usual else "")


def quality(one: Attribution) -> str | None:
    """How far the numbers can be trusted, where the method tells; None where it does not."""
    took = f"{number(round(one.seconds, 2))} s" if one.seconds >= 0.01 else "less than 0.01 s"
    if one.relative_delta is None:
        return f"{one.method} has no measure of its own error; {took}"
    delta = f"convergence delta {100 * one.relative_delta:.1f} % of the change"
    if facts.is_unconverged(one):
        return f"{delta} after {one.steps} steps: not converged, do not rely on it; {took}"
    return f"{delta} ({one.steps} steps); {took}"


def percent(share: float) -> str:
    return "NaN" if math.isnan(share) else f"{share:.0%}".replace("%", " %")


def _labelled(label: str, entry: list[Span], width: int) -> Iterator[Line]:
    told = [Span(wording.told(span.text), span.role) for span in entry]
    yield from labelled(f"{label} "[: LABEL + 1], [told], width)
