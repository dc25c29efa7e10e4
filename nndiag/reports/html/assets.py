"""Style, script and templates of the page, and the hashes by which its policy admits them."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

SCRIPTS = ("data.js", "axis.js", "plot.js", "heat.js", "page.js")  # in the order of their use
TEMPLATES = ("page.html", "run.html", "finding.html", "parts.html", "attributions.html")


def read(name: str) -> str:
    """One of the files in `assets/`, with line ends as a browser's parser makes them."""
    given = files("nndiag.reports.html").joinpath("assets", name).read_text(encoding="utf-8")
    return given.replace("\r\n", "\n")


@lru_cache(maxsize=1)
def script() -> str:
    """All scripts as one, with no name of theirs outside."""
    return '"use strict";\n(() => {\n' + "\n".join(map(read, SCRIPTS)) + "})();\n"


@lru_cache(maxsize=1)
def style() -> str:
    """The style; colours for light pages and paper, for dark ones by choice or by the system."""
    light, dark = read("light.css"), read("dark.css")
    return (
        f":root {{\n{light}}}\n"
        f"@media screen {{ :root[data-theme='dark'] {{\n{dark}}} }}\n"
        "@media screen and (prefers-color-scheme: dark) "
        f"{{ :root:not([data-theme]) {{\n{dark}}} }}\n"
        f"{read('style.css')}\n{read('attributions.css')}"
    )


def policy() -> str:
    """Content-Security-Policy: nothing is loaded, and no script runs but ours."""
    return (
        f"default-src 'none'; script-src '{_hash(script())}'; style-src '{_hash(style())}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    """As CSP level 3 wants it: sha256 of what stands between the tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
