"""`nndiag rules`"""

from __future__ import annotations


def rules() -> None:
    """List all findings, each with one sentence. More on one: nndiag explain NAME"""
    import sys

    from nndiag.cli.output import screen_width, show_lines
    from nndiag.detectors import catalogue
    from nndiag.reports.handbook import rules_table

    headlines = {kind.name: kind.headline() for kind in catalogue.kinds()}
    show_lines(list(rules_table(headlines, screen_width(sys.stdout))), sys.stdout)
