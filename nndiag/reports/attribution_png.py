"""Attributions as one picture. The only report that knows matplotlib, which Captum brings along.

A row for each sample of each attribution: bars for features and units, maps for images and
sequences, coloured cells for tokens. Orange raises what was attributed, blue lowers it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nndiag.records import AttributedInput, Attribution
from nndiag.reports import attribution_facts as facts
from nndiag.reports.attribution import (
    QUIET,
    carried_by,
    feature_name,
    occasion,
    percent,
    quality,
    unit_name,
    value_of,
)
from nndiag.reports.attribution_facts import Part
from nndiag.reports.wording import clean, shortened, told

RAISES, LOWERS, INK = "#c65102", "#2a6fb0", "#222222"
SIGNED = LinearSegmentedColormap.from_list("signed", [LOWERS, "#f4f4f4", RAISES])
BARS, FEWEST_BARS = 8, 4
SAMPLES = 4
TOKENS = 48  # of one sample
DARK = 0.6  # of the largest: a cell of more is dark
WIDTH, ROW, HEAD = 9.0, 2.1, 0.7  # inches
MOST_ROWS = 40  # of one picture

Axes = Any  # matplotlib's own types are of little help
Row = tuple[Attribution, int, AttributedInput | None]  # which sample; None: units of a layer


@dataclass(frozen=True, slots=True)
class Block:
    """One attribution with the rows that show it."""

    attribution: Attribution
    rows: tuple[Row, ...]


def png(attributions: Sequence[Attribution]) -> bytes:
    """The picture of all of them, one under another."""
    blocks = _blocks(attributions)
    heights = [HEAD + ROW * len(block.rows) for block in blocks]
    with rc_context({"text.parse_math": False, "font.size": 9, "axes.edgecolor": "#999999"}):
        figure = Figure(figsize=(WIDTH, max(1.0, sum(heights))), dpi=140, facecolor="white")
        FigureCanvasAgg(figure)
        top = sum(heights)
        for block, height in zip(blocks, heights, strict=True):
            _draw(figure, block, top, sum(heights))
            top -= height
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": "nndiag"})
    return buffer.getvalue()


def _blocks(attributions: Sequence[Attribution]) -> list[Block]:
    blocks, count = [], 0
    for one in attributions:
        rows: list[Row] = []
        if one.units is not None:
            rows.append((one, 0, None))
        elif not one.failed:
            rows = [(one, i, given) for i in range(len(one.samples)) for given in _shown(one, i)]
        kept = rows[: min(SAMPLES * max(1, len(one.inputs)), MOST_ROWS - count)]
        count += len(kept)
        blocks.append(Block(one, tuple(kept)))
    return blocks


def _shown(one: Attribution, sample: int) -> list[AttributedInput]:
    """The inputs of a sample that count, the largest first; the only one in any case."""
    ordered = facts.by_share(one, sample)
    return [given for given in ordered if facts.share_of(one, given, sample) >= QUIET] or ordered


def _draw(figure: Any, block: Block, top: float, whole: float) -> None:
    """A heading, and under it the rows. `top` and `whole` are in inches."""
    one = block.attribution
    layer = f", layer {clean(one.layer)}" if one.layer else ""
    title = f"{clean(one.method)}{layer}: {occasion(one)}"
    figure.text(0.03, (top - 0.3) / whole, title, color=INK, weight="bold", size=11)
    figure.text(0.03, (top - 0.52) / whole, shortened(_told(one), 120), color="#555555")
    for number, (attribution, sample, given) in enumerate(block.rows):
        bottom = (top - HEAD - ROW * (number + 1) + 0.45) / whole
        box = (0.27, bottom, 0.7, (ROW - 0.75) / whole)
        axes = figure.add_axes(box)
        if given is None:
            _units(axes, attribution)
        else:
            _input(figure, axes, attribution, sample, given)


def _told(one: Attribution) -> str:
    if one.failed:
        return told(one.failed)
    carried = facts.carriers(one)
    if carried is not None and one.why != "end":
        return carried_by(carried, one)
    return quality(one) or ""


def _input(figure: Any, axes: Axes, one: Attribution, sample: int, given: AttributedInput) -> None:
    shown = one.samples[sample]
    axes.set_title(f"sample {shown.row}, {clean(shown.what)}", size=9, loc="left", color=INK)
    found = given.attributions
    if found is None:
        axes.set_axis_off()
    elif given.kind == "image":
        _image(figure, axes, given, sample)
    elif given.kind == "sequence":
        largest = float(np.nanmax(np.abs(found[sample]))) or 1.0
        axes.imshow(
            found[sample].T, aspect="auto", cmap=SIGNED, vmin=-largest, vmax=largest,
            interpolation="nearest",
        )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("channel")
    elif given.kind == "tokens" and found.ndim == 2:
        _tokens(axes, given, sample)
    else:
        parts = [p for p in facts.parts(one, given, sample, BARS) if p.share >= QUIET]
        names = [feature_name(one, given, part) for part in parts]
        shares = [p.share for each in one.inputs for p in facts.parts(one, each, sample, 1)]
        values = [value_of(given, part) for part in parts]
        _bars(axes, names, parts, values, max(shares, default=1.0))


def _image(figure: Any, axes: Axes, given: AttributedInput, sample: int) -> None:
    """The image at the left, what counts in it at the right."""
    box = axes.get_position()
    beside = figure.add_axes((0.05, box.y0, 0.2, box.height))
    beside.imshow(_picture(given.values[sample]), cmap="gray", interpolation="nearest")
    beside.set_axis_off()
    assert given.attributions is not None
    summed = np.nan_to_num(given.attributions[sample].astype(np.float64))
    map_HW = summed.reshape(-1, *summed.shape[-2:]).sum(axis=0)
    largest = float(np.abs(map_HW).max()) or 1.0
    axes.imshow(map_HW, cmap=SIGNED, vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_anchor("W")
    axes.set_axis_off()


def _picture(image: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, 3) in 0..1 of (C, H, W), whatever it was normalised to."""
    image = np.nan_to_num(image.astype(np.float64).reshape(-1, *image.shape[-2:]))
    lowest, highest = float(image.min()), float(image.max())
    scaled = (image - lowest) / (highest - lowest) if highest > lowest else image * 0
    return scaled.transpose(1, 2, 0) if len(scaled) == 3 else scaled[0]


def _tokens(axes: Axes, given: AttributedInput, sample: int) -> None:
    assert given.attributions is not None
    found = np.nan_to_num(given.attributions[sample][:TOKENS])
    largest = float(np.abs(found).max()) or 1.0
    columns = 12
    for place, (value, token) in enumerate(zip(found, given.values[sample], strict=False)):
        row, column = divmod(place, columns)
        share = float(value) / largest
        colour, ink = SIGNED(0.5 + 0.5 * share), "white" if abs(share) > DARK else INK
        axes.add_patch(Rectangle((column, row), 0.96, 0.92, facecolor=colour, edgecolor="none"))
        axes.text(column + 0.5, row + 0.5, str(token), ha="center", va="center", size=8, color=ink)
    axes.set_xlim(0, columns)
    axes.set_ylim((len(found) + columns - 1) // columns, 0)
    axes.set_axis_off()


def _units(axes: Axes, one: Attribution) -> None:
    if one.method == "layer-gradcam" and one.units is not None and one.units.ndim >= 4:
        axes.imshow(np.abs(one.units[0]).sum(axis=0), cmap="magma", interpolation="nearest")
        axes.set_axis_off()
        return
    parts = facts.units(one, BARS)
    names = [unit_name(part) for part in parts]
    _bars(axes, names, parts, [""] * len(parts), max((part.share for part in parts), default=1.0))


def _bars(
    axes: Axes, names: Sequence[str], parts: Sequence[Part], values: Sequence[str], largest: float
) -> None:
    """`largest`: the share that fills the width, of all inputs of the sample."""
    places = np.arange(len(names))
    colours = [RAISES if part.sign >= 0 else LOWERS for part in parts]
    axes.barh(places, [part.share for part in parts], color=colours, height=0.7)
    axes.set_yticks(places, [shortened(name, 30) for name in names])
    axes.set_ylim(max(len(names), FEWEST_BARS) - 0.5, -0.5)
    axes.set_xticks([])
    for place, part, value in zip(places, parts, values, strict=True):
        told = f" {percent(part.share)}   {value.strip()}"
        axes.text(part.share, place, told, va="center", color=INK)
    axes.set_xlim(0, max(0.01, largest) * 1.6)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
