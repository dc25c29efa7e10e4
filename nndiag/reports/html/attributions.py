"""The section of attributions on the page of a run: bars, pictures, coloured tokens.

Orange raises the number that was attributed, blue lowers it; the stronger, the more it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import AttributedInput, Attribution
from nndiag.reports import attribution as words
from nndiag.reports import attribution_facts as facts
from nndiag.reports.attribution_facts import Part
from nndiag.reports.html import picture
from nndiag.reports.wording import number

BARS = 8
SAMPLES = 4
TOKENS = 400  # of one sample
LEVELS = 5  # of a colour
SIDE = 96  # pixels of a picture at most
PICTURE_BYTES = 400_000  # of all of them together
RAISES, LOWERS = (214, 92, 20), (38, 112, 186)
BATCH_WIDTH, BATCH_HEIGHT = 320, 44  # of the drawing of a batch
MOST_DRAWN = 320  # samples of it


@dataclass(frozen=True, slots=True)
class Bar:
    """A feature and its share."""

    name: str
    percent: str
    width: float  # 0..100
    raises: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A token and how strongly it is coloured."""

    text: str
    colour: str  # class: "up3", "down1", ""
    title: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image, or the map of a sequence, with what counts in it above."""

    below: str  # address of the image itself; "" for a sequence
    above: str
    width: int
    height: int
    words: str


@dataclass(frozen=True, slots=True)
class Given:
    """One input of one sample."""

    bars: tuple[Bar, ...] = ()
    tokens: tuple[Token, ...] = ()
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that was attributed."""

    title: str
    change: str
    is_about_the_target: bool
    places: str  # where in the sample its loss is made
    inputs: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """The loss of one sample in the drawing of a batch."""

    x: float
    width: float
    height: float
    carries: bool
    title: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One attribution as the page shows it."""

    method: str
    layer: str
    occasion: str
    batch: str
    odd: tuple[str, ...]
    columns: tuple[Column, ...]
    failed: str
    do: str
    quality: str
    is_poor: bool
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]


def shown(attributions: Sequence[Attribution]) -> list[Shown]:
    """What the section says, one after the other; pictures as long as there is room for them."""
    room = [PICTURE_BYTES]
    several = len({one.rank for one in attributions}) > 1
    told: set[tuple[int, int, str]] = set()  # batches: another method says the same of them
    made = []
    for one in attributions:
        batch = one.rank, one.step, one.why
        made.append(_shown(one, room, with_rank=several, with_batch=batch not in told))
        told.add(batch)
    return made


def _shown(one: Attribution, room: list[int], *, with_rank: bool, with_batch: bool) -> Shown:
    carried = facts.carriers(one) if one.why != "end" and with_batch else None
    return Shown(
        method=one.method,
        layer=one.layer,
        occasion=words.occasion(one, with_rank=with_rank),
        batch=_batch(one, carried) if one.why != "end" and with_batch else "",
        odd=tuple(words.odd_words(one, odd) for odd in one.odd[: words.SHOWN_ODD])
        if one.why != "end" and with_batch
        else (),
        columns=_columns(one, carried.rows if carried.stand_out else ()) if carried else (),
        failed=one.failed,
        do=one.do,
        quality="" if one.failed else words.quality(one) or "",
        is_poor=facts.is_unconverged(one),
        notes=one.notes,
        samples=() if one.failed else tuple(_samples(one, room)),
    )


def _batch(one: Attribution, carried: facts.Carriers | None) -> str:
    return words.unknown_samples(one) if carried is None else words.carried_by(carried, one)


def _samples(one: Attribution, room: list[int]) -> list[Sample]:
    if one.layer:
        return [Sample("", "", False, "", (_units(one, room),))]
    return [
        *_overall(one),
        *(_sample(one, i, room) for i in range(min(SAMPLES, len(one.samples)))),
    ]


def _overall(one: Attribution) -> list[Sample]:
    """All samples together, where a place means the same in each, and none is odd by itself."""
    alike = all(given.kind in ("tabular", "sequence") for given in one.inputs)
    if one.why != "end" or not alike or len(one.samples) < 2:
        return []
    found = [(each, facts.parts_of_all(one, each, BARS)) for each in one.inputs]
    bars = tuple(Given(_bars(one, *both, with_value=False)) for both in found)
    return [Sample(f"all {len(one.samples)} samples together", "", False, "", bars)]


def _sample(one: Attribution, i: int, room: list[int]) -> Sample:
    sample = one.samples[i]
    found = facts.places(one, i) if one.of == "loss" else None
    return Sample(
        title=f"sample {sample.row}: {sample.what}",
        change=f"{number(sample.at_sample)}; of a blank input {number(sample.at_baseline)}",
        is_about_the_target=facts.is_about_the_target(one, sample),
        places=words.made_at(found) if found is not None else "",
        inputs=tuple(_given(one, given, i, room) for given in facts.by_share(one, i)),
    )


def _given(one: Attribution, given: AttributedInput, i: int, room: list[int]) -> Given:
    found = given.attributions
    if found is None:
        return Given()
    if given.kind == "image":
        return Given(picture=_image(given, i, room))
    if given.kind == "tokens" and found.ndim == 2:
        return Given(tokens=tuple(_tokens(given, i)))
    bars = _bars(one, given, facts.parts(one, given, i, BARS))
    if given.kind == "sequence" and found.ndim == 3:
        colours = _colours(found[i].astype(np.float64).T)
        about = f"{found.shape[1]} steps from left to right, {found.shape[2]} channels"
        return Given(bars, picture=_fitting(Picture("", "", 320, 96, about), "", colours, room))
    return Given(bars)


def _bars(
    one: Attribution, given: AttributedInput, parts: Sequence[Part], *, with_value: bool = True
) -> tuple[Bar, ...]:
    return tuple(
        _bar(
            words.feature_name(one, given, part)
            + (words.value_of(given, part) if with_value else ""),
            part,
        )
        for part in parts
        if part.share >= words.QUIET
    )


def _bar(name: str, part: Part) -> Bar:
    return Bar(name, words.percent(part.share), round(100 * part.share, 1), part.sign >= 0)


def _units(one: Attribution, room: list[int]) -> Given:
    if one.method == "layer-gradcam" and one.units is not None and one.units.ndim >= 4:
        colours = _colours(np.abs(one.units[0]).astype(np.float64).sum(axis=0))
        image = next((given for given in one.inputs if given.kind == "image"), None)
        below = _pixels(image.values[0]) if image is not None else None
        height, width = colours.shape[:2]
        if below is not None:
            height, width = below.shape[:2]
        about = "where the layer sees it, in the first sample"
        blank = Picture("", "", *_enlarged(width, height), about)
        return Given(picture=_fitting(blank, below, colours, room))
    found = facts.units(one, BARS)
    parts = [part for i, part in enumerate(found) if part.share >= words.QUIET or not i]
    return Given(tuple(_bar(words.unit_name(part), part) for part in parts))


def _image(given: AttributedInput, i: int, room: list[int]) -> Picture | None:
    assert given.attributions is not None
    map_HW = facts.sizes_of_pixels(given, i)
    found = facts.region(map_HW) if map_HW is not None else None
    summed = np.nan_to_num(given.attributions[i].astype(np.float64))
    colours = _colours(summed.reshape(-1, *summed.shape[-2:]).sum(axis=0))
    below = _pixels(given.values[i])
    about = words.region_words(found) if found is not None else ""
    blank = Picture("", "", *_enlarged(below.shape[1], below.shape[0]), about)
    return _fitting(blank, below, colours, room)


def _fitting(
    blank: Picture, below: np.ndarray | str | None, above: np.ndarray, room: list[int]
) -> Picture:
    """The picture with its pixels, or without them where the page has no more room."""
    under = picture.address_of(below) if isinstance(below, np.ndarray) else ""
    over = picture.address_of(above)
    room[0] -= len(under) + len(over)
    if room[0] < 0:
        told = f"{blank.words} (picture left out: nndiag attribute -o FILE.png has it)"
        return Picture("", "", 0, 0, told)
    return Picture(under, over, blank.width, blank.height, blank.words)


def _enlarged(width: int, height: int) -> tuple[int, int]:
    """Size on the page: 200 along the longer side."""
    times = 200 / max(width, height, 1)
    return max(1, round(width * times)), max(1, round(height * times))


def _pixels(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of (C, H, W), whatever it was normalised to; at most `SIDE` along a side."""
    channels = np.nan_to_num(image.astype(np.float64).reshape(-1, *image.shape[-2:]))
    if len(channels) != 3:
        channels = channels[:1].repeat(3, axis=0)
    lowest, highest = float(channels.min()), float(channels.max())
    scaled = (channels - lowest) / (highest - lowest) if highest > lowest else channels * 0
    small = np.stack([_reduced(channel) for channel in scaled], axis=-1)
    rounded: np.ndarray = np.round(255 * small).astype(np.uint8)
    return rounded


def _colours(signed_HW: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8: the colour tells the sign, the opacity the size."""
    small = _reduced(np.nan_to_num(signed_HW))
    largest = float(np.abs(small).max()) or 1.0
    colours = np.zeros((*small.shape, 4), np.uint8)
    colours[small > 0, :3] = RAISES
    colours[small < 0, :3] = LOWERS
    colours[..., 3] = np.round(255 * np.abs(small) / largest)
    return colours


def _reduced(map_HW: np.ndarray) -> np.ndarray:
    """At most `SIDE` cells along each side, each the mean of what falls into it."""
    height, width = map_HW.shape
    rows, columns = min(height, SIDE), min(width, SIDE)
    if (rows, columns) == (height, width):
        return map_HW
    starts = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    summed = np.add.reduceat(np.add.reduceat(map_HW, starts[0], axis=0), starts[1], axis=1)
    counts = np.diff(starts[0], append=height)[:, None] * np.diff(starts[1], append=width)
    mean: np.ndarray = summed / counts
    return mean


def _tokens(given: AttributedInput, i: int) -> list[Token]:
    assert given.attributions is not None
    found = np.nan_to_num(given.attributions[i].astype(np.float64))
    total, largest = float(np.abs(found).sum()) or 1.0, float(np.abs(found).max()) or 1.0
    tokens = []
    for place, (value, token) in enumerate(zip(found[:TOKENS], given.values[i], strict=False)):
        level = round(LEVELS * abs(float(value)) / largest)
        colour = f"{'up' if value > 0 else 'down'}{level}" if level else ""
        share = words.percent(abs(float(value)) / total)
        tokens.append(Token(str(token), colour, f"position {place}: {share}"))
    return tokens


def _columns(one: Attribution, carriers: Sequence[int]) -> tuple[Column, ...]:
    """The loss of each sample, side by side; of many the largest."""
    if one.batch is None:
        return ()
    losses_B = np.abs(one.batch.astype(np.float64))
    finite = losses_B[np.isfinite(losses_B)]
    largest = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    rows = np.sort(np.argsort(-np.nan_to_num(losses_B, nan=np.inf), kind="stable")[:MOST_DRAWN])
    step = BATCH_WIDTH / max(1, len(rows))
    return tuple(
        Column(
            x=round(place * step, 2),
            width=round(max(0.6, step * 0.8), 2),
            height=_height(float(losses_B[row]), largest),
            carries=int(row) in carriers,
            title=f"sample {row}: {number(float(one.batch[row]))}",
        )
        for place, row in enumerate(rows)
    )


def _height(loss: float, largest: float) -> float:
    share = loss / largest if np.isfinite(loss) else 1.0
    return round(max(1.0, BATCH_HEIGHT * share), 1)
