"""Further sections of a run's page, made elsewhere: attributions, say.

A section stands after the layers of its run, under a heading. Its body is markup that its maker has
escaped: `Markup.format`, or a template with autoescape. It may use what style.css has (the tokens
`--diverging-*` are a scale with a middle) and pictures as `data:` addresses, but neither a script
nor a `style` attribute of its own: the page forbids both.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Section:
    """One more section of the page of a run."""

    key: str  # letters and hyphens; the end of its anchor
    title: str
    body: Markup
