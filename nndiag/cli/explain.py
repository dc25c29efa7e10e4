"""`nndiag explain NAME`"""

from __future__ import annotations

import typer


def explain(
    name: str = typer.Argument(..., metavar="NAME", help="A finding, or a format of logs."),
) -> None:
    """Say what a finding means: what it sees, why it happens, its formula, remedies and source.

    Of a format (nndiag formats): what is read of it, and what it hides.
    """
    import dataclasses
    import sys

    from nndiag.cli import planned
    from nndiag.cli.output import screen_width, show_lines
    from nndiag.detectors import catalogue
    from nndiag.readers import catalogue as readers
    from nndiag.reports.handbook import finding_page

    name = name.strip().lower().replace("_", "-")
    for reader in readers.READERS:
        if reader.name == name:
            page = finding_page(name, readers.page(reader), {}, screen_width(sys.stdout))
            return show_lines(list(page), sys.stdout)
    if name in planned.FINDINGS and name not in catalogue.names():
        raise planned.not_built_yet(f"nndiag explain {name}", "what is there: nndiag rules")
    kind = catalogue.named(name)
    thresholds = {field.name: field.default for field in dataclasses.fields(kind)}
    page = finding_page(name, kind.page(), thresholds, screen_width(sys.stdout))
    show_lines(list(page), sys.stdout)
