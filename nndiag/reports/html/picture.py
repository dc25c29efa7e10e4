"""A heat map as a PNG picture, for paper and for pages on which no script runs."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from nndiag.reports.html.layers import HeatMap

COLUMNS = 240  # pixels across; a browser stretches them
# Pale to dark blue, as on light pages: lightness alone tells the colours apart.
_STOPS = ("f3f7e4", "c9e6c9", "86cdc2", "41aec3", "2384b9", "235a9f", "252f74", "140f3f")
_NOTHING, _BROKEN, _ZERO = (236, 236, 233), (222, 66, 18), (217, 195, 227)


def address(heat: HeatMap, rows: np.ndarray | None = None) -> str:
    """`data:image/png;base64,...` of some rows of a heat map, by default of all."""
    return address_of(pixels(heat, rows))


def address_of(colours: np.ndarray) -> str:
    """The same of pixels as they are: (H, W, 3) or, with opacity, (H, W, 4), uint8."""
    return "data:image/png;base64," + base64.b64encode(_png(colours)).decode()


def pixels(heat: HeatMap, rows: np.ndarray | None = None) -> np.ndarray:
    """(L, 240, 3) uint8: the highest value of each cell as a colour."""
    given = heat.grid
    chosen = np.arange(given.highest.shape[0]) if rows is None else rows
    span = given.ends[-1] - given.starts[0]
    middle = given.starts[0] + (np.arange(COLUMNS) + 0.5) * span / COLUMNS
    column = np.clip(np.searchsorted(given.starts, middle, side="right") - 1, 0, None)
    inside = middle <= given.ends[column]
    values = given.highest[chosen][:, column]
    colours = _colours(values, shares(given.highest, values, heat.measure.logarithmic))
    colours[~inside[None, :] | np.isnan(values)] = _NOTHING
    colours[inside[None, :] & (given.broken[chosen][:, column] > 0)] = _BROKEN
    return colours


def shares(all_values: np.ndarray, values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Where values lie in the scale of colours, 0..1; NaN for 0 and less on a logarithmic scale."""
    if not logarithmic:
        linear: np.ndarray = np.clip(values, 0.0, 1.0)
        return linear
    positive = all_values[np.isfinite(all_values) & (all_values > 0)]
    if not positive.size:
        return np.full(values.shape, np.nan)
    low, high = np.log(positive.min()), np.log(positive.max())
    with np.errstate(all="ignore"):
        place = np.log(np.where(values > 0, values, np.nan)) - low
    share: np.ndarray = place / max(float(high - low), 1e-9)
    return share


def _colours(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    stops = np.array([[int(one[i : i + 2], 16) for i in (0, 2, 4)] for one in _STOPS], float)
    place = np.clip(np.nan_to_num(share), 0, 1) * (len(stops) - 1)
    below = np.minimum(place.astype(int), len(stops) - 2)
    rest = (place - below)[..., None]
    mixed = stops[below] * (1 - rest) + stops[below + 1] * rest
    mixed[np.isnan(share) & ~np.isnan(values)] = _ZERO
    rounded: np.ndarray = np.round(mixed).astype(np.uint8)
    return rounded


def _png(colours: np.ndarray) -> bytes:
    """PNG specification, third edition: 8 bits a channel, RGB or RGBA, no filter."""
    height, width, channels = colours.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), colours.reshape(height, -1)], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, 6 if channels == 4 else 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
