"""A comparison as Markdown, for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nndiag.comparison.facts import Change, Comparison, Pair
from nndiag.errors import NndiagError
from nndiag.reports import comparison_wording as words
from nndiag.reports.markdown import code, prose
from nndiag.reports.wording import clean, counted, listed, steps_read

SHOWN = 30  # rows of a table; a comment may have 65 536 characters


def text(comparison: Comparison | None, errors: Sequence[NndiagError] = ()) -> str:
    """The page, ending in a newline."""
    blocks = ["## nndiag: comparison"]
    if comparison is not None:
        blocks.append("\n".join(_sides(comparison)))
        if comparison.ranking:
            blocks.append("\n".join(_ranking(comparison)))
        for pair in comparison.pairs[:SHOWN]:
            blocks += _pair(pair, len(comparison.pairs) > 1)
        if band := words.meaning_of_band(comparison):
            blocks.append(f"± is {prose(band)}.")
    if errors:
        lines = [f"- {code(error.where)}: {prose(error.what)}" for error in errors[:SHOWN]]
        blocks.append("\n".join(["### Could not be read", "", *lines]))
    return "\n\n".join(blocks) + "\n"


def _sides(comparison: Comparison) -> Iterator[str]:
    yield from _head("", "run", "verdict", "steps")
    rows = [
        (words.side(side, i), diagnosis)
        for side in comparison.sides
        for i, diagnosis in enumerate(side.diagnoses)
    ]
    for mark, diagnosis in rows[: 4 * SHOWN]:
        run = diagnosis.run
        yield _row(f"**{mark}**", code(run.path), str(diagnosis.verdict), prose(steps_read(run)))


def _ranking(comparison: Comparison) -> Iterator[str]:
    yield from _head("place", "run", comparison.ranked_by)
    for place, rank in enumerate(comparison.ranking[: 4 * SHOWN], start=1):
        yield _row(str(place), f"**{rank.mark}**", prose(words.rank(rank)))


def _pair(pair: Pair, several: bool) -> Iterator[str]:
    if several:
        yield f"### {pair.a.mark} against {pair.b.mark}"
    yield f"**{prose(words.headline(pair))}**"
    if pair.curves:
        curves = [curve for curve in pair.curves if curve.metric != "other"] or pair.curves
        lines = list(_head("curve", pair.a.mark, pair.b.mark, "difference"))
        for curve in curves[:SHOWN]:
            a, b = words.levels(curve, pair.unit).split(" -> ")
            more = [words.verdict(pair, curve), words.way(pair, curve), words.reached(pair, curve)]
            lines.append(_row(prose(words.name(curve)), a, b, prose("; ".join(filter(None, more)))))
        yield "\n".join(lines)
    yield from _findings(pair)
    told = [one for one in pair.layers.different if one.is_large]
    if told:
        lines = list(_head("layer", "difference"))
        lines += [_row(code(one.layer), prose(words.layer(pair, one))) for one in told[:SHOWN]]
        yield "\n".join(lines)
    names = [
        *(f"renamed: {was} -> {now}" for was, now in pair.layers.renamed),
        *([f"layers only in {pair.a.mark}: {listed(r, 6)}"] if (r := pair.layers.removed) else []),
        *([f"layers only in {pair.b.mark}: {listed(r, 6)}"] if (r := pair.layers.added) else []),
    ]
    if names:
        yield "\n".join(f"- {prose(one)}" for one in names[:SHOWN])
    if pair.settings:
        lines = list(_head("setting", pair.a.mark, pair.b.mark))
        lines += [
            _row(prose(one.name), code(words.setting(one.a)), code(words.setting(one.b)))
            for one in pair.settings[:SHOWN]
        ]
        yield "\n".join(lines)
    notes = dict.fromkeys([*pair.notes, *(note for curve in pair.curves for note in curve.notes)])
    if notes:
        yield "\n".join(f"- {prose(note)}" for note in notes)


def _findings(pair: Pair) -> Iterator[str]:
    changed = [one for one in pair.findings if one.change is not Change.SAME]
    same = len(pair.findings) - len(changed)
    if changed:
        lines = list(_head("finding", "", "severity", "where"))
        for one in changed[:SHOWN]:
            name = f"**{prose(clean(one.fingerprint.name))}**"
            lines.append(
                _row(name, one.change.value, words.severity(one), prose(words.change(one, pair)))
            )
        yield "\n".join(lines)
    if same:
        yield f"{counted(same, 'finding')} on both sides alike."


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + " --- |" * len(names)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
