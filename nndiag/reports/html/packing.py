"""Numbers and data as text inside a page.

An array is base64 of its little-endian bytes: half the size of digits, exact, and NaN stays NaN.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

Packed = Mapping[str, str]  # {"t": type, "d": base64}
_WIDEST_UINT = 2**32


def packed(values: np.ndarray) -> Packed:
    """An array in the smallest of four types that holds it exactly: u1, u4, f4, f8."""
    if values.dtype == np.uint8:
        return _as("u1", values)
    wide = values.astype(np.float64)
    if wide.size and (wide >= 0).all() and (wide < _WIDEST_UINT).all() and _is_whole(wide):
        return _as("u4", wide.astype("<u4"))
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    is_exact = np.array_equal(narrow.astype(np.float64), wide, equal_nan=True)
    return _as("f4", narrow) if is_exact else _as("f8", wide.astype("<f8"))


def cells(values: np.ndarray) -> Packed:
    """The values of cells: to seven digits, or exactly where their size asks for it."""
    size = np.abs(values[np.isfinite(values)])
    fits = size[size > 0]
    if fits.size and (fits.max() > 3e38 or fits.min() < 1e-37):
        return _as("f8", values.astype("<f8"))
    return _as("f4", values.astype("<f4"))


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.floor(values)).all()) and not np.signbit(values).any()


def _as(kind: str, values: np.ndarray) -> Packed:
    return {"t": kind, "d": base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()}


_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"})


def json_block(data: object) -> Markup:
    """JSON that may stand in a `<script>`: ASCII, and nothing in it opens or closes a tag.

    U+2028 and U+2029, which end a line of a script, are no ASCII and so escaped too.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))  # escaped in the line above
