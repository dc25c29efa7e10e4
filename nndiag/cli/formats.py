"""`nndiag formats`"""

from __future__ import annotations


def formats() -> None:
    """List the logs that `analyze` reads, by the names that --reader takes. More on one: explain"""
    import sys

    from nndiag.cli.output import screen_width, show_lines
    from nndiag.readers import catalogue
    from nndiag.reports.handbook import rules_table

    headlines = {reader.name: catalogue.headline(reader) for reader in catalogue.READERS}
    show_lines(list(rules_table(headlines, screen_width(sys.stdout))), sys.stdout)
