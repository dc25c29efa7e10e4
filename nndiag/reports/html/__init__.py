"""The page of a report in parts: numbers packed, curves and layers prepared, words, drawings.

    packing    arrays and JSON as text that no browser takes for markup
    courses    series of the whole run -> tracks under one step axis
    layers     series of layers -> heat maps, one cell for each layer and range of steps
    sketches   curves as SVG, for paper and where no script runs
    sections   what other parts of nndiag may add to a run
    picture    a heat map as PNG, for the same
    findings   a finding -> its words and its curve
    views      a diagnosis -> all that the templates show of it
    assets     style and script of the page, and their hashes

`nndiag.reports.html_page` puts them together.
"""
