"""What a page holds, read back as a browser would: data blocks, arrays, tags."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

DATA = re.compile(r'<script type="application/json">(.*?)</script>', re.S)
TYPES = {"u1": "u1", "u4": "<u4", "f4": "<f4", "f8": "<f8"}
VOID = {"meta", "link", "br", "input", "image"}


def blocks(page: str) -> list[Any]:
    """The data of each run that is shown in full."""
    return [json.loads(block) for block in DATA.findall(page)]


def unpack(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["d"]), dtype=TYPES[packed["t"]])


def points(line: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a line of a track."""
    return unpack(line["x"]).astype(np.float64), unpack(line["y"]).astype(np.float64)


class Tags(HTMLParser):
    """Collects tags and text, and fails where they do not close in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.text += " " * (tag in ("td", "th"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data
