"""What the live view says: the newest of the run in a frame of few lines, drawn with rich.

    ╭─ nndiag  train.py ──────────────────────────────────────── step 1240 ─╮
    │ loss       0.4213   ▇▆▅▄▃▃▂▂▂▁▁▁▁   from 2.31                          │
    │ ...                                                                   │
    ╰──────────────────────────────────────────── overhead 1.3 %  41 steps/s ─╯

The numbers come from the journal, never from the training process; the findings from a check-up.
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from nndiag.watcher.checkup import Checkup, Seen
from nndiag.watcher.frame import (
    clean,
    count,
    number,
    percent,
    sparkline,
    speed,
    stretched,
)
from nndiag.watcher.tail import Progress, RunTail, Trace

STALLED_S = 10.0  # without a step
LABEL, REMARK = 15, 28  # columns at the left and at the right of a curve
ROWS_FOR_FINDINGS = 2  # before the reported metrics get theirs

# Only basic colours, which every theme maps to readable ones.
_SEVERITY = {"critical": "bold red", "warning": "bold yellow", "info": "cyan"}
_VERDICT = {"healthy": "bold green", "warning": "bold yellow", "critical": "bold red"}


class LiveView:
    """The view of one run."""

    def __init__(self, run: Path, label: str, checkup: Checkup) -> None:
        self._run = run
        self._label = label if label.startswith("-m ") else Path(label).name
        self._checkup = checkup
        self._tail = RunTail(run)
        self._began = time.monotonic()
        self._stepped = self._began
        self._step = -1
        self._worst: list[tuple[str, str]] = []
        self._worst_of = -1  # reading of the layers that it was made from
        self._model = ""
        self._model_of: object = None

    def lines(self, columns: int, rows: int) -> Sequence[str]:
        """`rows` lines with colours, `columns` wide. Raises what the journal's reader raises."""
        self._tail.refresh()
        step = max((each.step for each in self._tail.optimizers.values()), default=-1)
        if step != self._step:
            self._step, self._stepped = step, time.monotonic()
        return self._framed(columns, list(self._content(columns - 4, rows - 2)), rows)

    def _content(self, width: int, rows: int) -> Iterable[Text]:
        owners = sorted(self._tail.optimizers.values(), key=lambda each: -each.step)[:3]
        if not owners:
            yield from self._waiting(rows)
            return
        lines = [_loss(each, self._label_of("loss", each), width) for each in owners]
        lines += [_gradient(each, self._label_of("grad norm", each), width) for each in owners]
        lines = lines[: rows - 2]
        room = rows - 3 - len(lines)
        lines += [
            _learning_rate(each, self._label_of("lr", each), width)
            for each in owners[: max(0, room)]
        ]
        lines.append(self._layers())
        if rows - len(lines) > ROWS_FOR_FINDINGS and self._tail.metrics:
            lines.append(self._reported())
        lines += self._findings(rows - len(lines))
        yield from (_fitted(line, width) for line in lines)

    def _label_of(self, what: str, progress: Progress) -> str:
        """ "loss", or "loss Critic" where there are several optimizers."""
        if len(self._tail.optimizers) < 2:
            return what
        of = re.search(r"\((.+)\)", progress.owner)
        return f"{what.split()[0]} {of[1] if of else progress.owner}"

    def _reported(self) -> Text:
        """What the script itself reported last, validation first."""
        newest = sorted(self._tail.metrics.items(), key=lambda item: not item[0].startswith("val"))
        line = _labelled("reported")
        for index, (name, value) in enumerate(newest):
            line.append("   " if index else "").append(f"{clean(name)} ", "dim").append(
                number(value)
            )
        return line

    def _waiting(self, rows: int) -> Iterable[Text]:
        seconds = time.monotonic() - self._began
        torch = any(self._run.glob("attached-*"))
        what = "torch is loaded; waiting for the first optimizer step" if torch else "starting"
        dots = "·" * (int(seconds * 2) % 4)
        yield Text(f"{what} {dots}", style="dim")

    def _layers(self) -> Text:
        """The layers to look at, worst first: not finite, dead, saturated, smallest gradient."""
        line = _labelled("layers")
        if self._worst_of != self._tail.layers_read:  # once for each measurement, not each frame
            self._worst = list(_worst_layers(self._tail.layers))
            self._worst_of = self._tail.layers_read
        worst = self._worst
        if not worst:
            return line.append(
                "no statistics yet" if not self._tail.layers else "nothing stands out", "dim"
            )
        for index, (text, style) in enumerate(worst):
            line.append("   " if index else "").append(text, style)
        return line

    def _findings(self, rows: int) -> Iterable[Text]:
        findings = self._checkup.findings
        if not findings:
            verdict = self._checkup.verdict
            told = {
                "": "first look soon",
                "healthy": "none so far",
                "undecided": "too early to tell",
            }
            yield _labelled("findings").append(
                told.get(verdict, verdict), _VERDICT.get(verdict, "dim")
            )
            return
        shown = findings if len(findings) <= rows else findings[: max(1, rows - 1)]
        for index, finding in enumerate(shown):
            yield _finding(finding, "findings" if index == 0 else "")
        if len(findings) > len(shown) and rows > 1:
            more = ", ".join(clean(each.name) for each in findings[len(shown) :])
            yield _labelled("").append(f"and {more}", "dim")

    def _framed(self, columns: int, content: list[Text], rows: int) -> list[str]:
        left = Text.assemble((" nndiag ", "bold cyan"), f"{clean(self._label)} ")
        if self._model_of is not self._tail.process:
            self._model, self._model_of = _model(self._tail.process), self._tail.process
        if self._model:
            left.append(f"· {self._model} ", "dim")
        lines = [_edge("╭", "╮", left, Text(f" {self._clock()} ", "dim"), columns)]
        for index in range(rows - 2):
            text = content[index] if index < len(content) else Text()
            text.truncate(columns - 4, overflow="ellipsis", pad=True)
            lines.append(Text.assemble(("│ ", "cyan"), text, (" │", "cyan")))
        where = Text(f" {clean(self._run.name)} ", "dim")
        lines.append(_edge("╰", "╯", where, self._pace(), columns))
        return _rendered(lines, columns)

    def _clock(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
        return f"step {self._step} · {clock}" if self._step >= 0 else clock

    def _pace(self) -> Text:
        line = Text()
        busiest = max(self._tail.optimizers.values(), key=lambda each: each.step, default=None)
        idle = time.monotonic() - self._stepped
        if self._step >= 0 and idle > STALLED_S:
            line.append(f" no step for {idle:.0f} s ", "yellow")
        elif busiest is not None and not math.isnan(busiest.steps_per_s):
            line.append(f" {speed(busiest.steps_per_s)} ", "bold")
        if not math.isnan(self._tail.overhead_percent):
            line.append(f"· overhead {self._tail.overhead_percent:.1f} % ", "dim")
        return line


def _loss(progress: Progress, label: str, width: int) -> Text:
    trace = progress.loss
    means = trace.means(1000)
    finite = [value for value in means if math.isfinite(value)]
    told = f"from {number(finite[0])}, lowest {number(min(finite))}" if len(finite) > 1 else ""
    return _curve(label, trace, told, "green", width)


def _gradient(progress: Progress, label: str, width: int) -> Text:
    told = "no clipping"
    if progress.clippable:
        share = 100 * progress.clipped / progress.clippable
        told = f"{share:.0f} % clipped at {number(progress.clip)}"
    return _curve(label, progress.grad_norm, told, "magenta", width)


def _learning_rate(progress: Progress, label: str, width: int) -> Text:
    lr = progress.lr
    means = lr.means(1000)
    constant = bool(means) and max(means) == min(means)
    return _curve(label, lr, "constant" if constant else "", "blue", width)


def _curve(label: str, trace: Trace, told: str, colour: str, width: int) -> Text:
    """Label, newest value, its course, and a remark; all of them in columns."""
    line = _labelled(label)
    bad = trace.count > 0 and not math.isfinite(trace.last)
    line.append(f"{number(trace.last) if trace.count else '-':<11}", "bold red" if bad else "bold")
    room = min(60, max(8, width - line.cell_len - REMARK))
    line.append(sparkline(stretched(trace.means(room), room)).ljust(room), colour)
    return line.append(f"  {told}", "dim")


def _finding(finding: Seen, label: str) -> Text:
    line = _labelled(label)
    line.append("● ", _SEVERITY.get(finding.severity, ""))
    line.append(clean(finding.name), _SEVERITY.get(finding.severity, ""))
    if finding.layers:
        others = f" +{len(finding.layers) - 1}" if len(finding.layers) > 1 else ""
        line.append(f"  {clean(finding.layers[0])}{others}", "bold")
    if finding.step_start is not None:
        line.append(f"  from step {finding.step_start}", "dim")
    return line.append(f"  {clean(finding.message)}", "dim")


def _model(process: dict[str, Any]) -> str:
    """What is trained, and where: "Net, 1.2 M parameters, cpu"."""
    models = process.get("models", ())
    told = [str(model.get("name", "")) for model in models if model.get("parameters")]
    sizes = [math.prod(each["shape"]) for model in models for each in model.get("parameters", ())]
    if not sizes:
        return ""
    names = " + ".join(dict.fromkeys(filter(None, told)))
    device = process.get("device") or ""
    return clean(f"{names}, {count(sum(sizes))} parameters, {device}".strip(", "))


def _worst_layers(newest: dict[tuple[str, str], float]) -> Iterable[tuple[str, str]]:
    """(text, style) of at most one layer of each kind of trouble."""
    by_metric: dict[str, list[tuple[float, str]]] = {}
    for (metric, where), value in newest.items():
        if not math.isnan(value):
            by_metric.setdefault(metric, []).append((value, where))
    count, where = max(by_metric.get("activation_nonfinite", []), default=(0.0, ""))
    if count > 0:
        yield f"{_layer(where)}: not finite", "bold red"
    for metric, word in (("dead_unit_fraction", "dead"), ("saturated_unit_fraction", "saturated")):
        share, where = max(by_metric.get(metric, []), default=(0.0, ""))
        if share >= 0.01:
            yield (
                f"{_layer(where)}: {100 * share:.0f} % {word}",
                "bold red" if share >= 0.5 else "yellow",
            )
    norms = [(value, where) for value, where in by_metric.get("param_grad_norm", ()) if value >= 0]
    total = math.sqrt(sum(value * value for value, _ in norms))
    if len(norms) > 1 and 0 < total < math.inf:
        value, where = min(norms)
        share = value / total
        style = "yellow" if share < 1e-4 else ""
        yield f"smallest gradient {_layer(where)}: {percent(share)} of all", style


def _layer(where: str) -> str:
    name = clean(where) or "the model"
    return name if len(name) <= 28 else "…" + name[-27:]


def _labelled(label: str) -> Text:
    line = Text(clean(label), style="dim", end="")
    line.truncate(LABEL - 1, overflow="ellipsis")
    return Text.assemble(line, " " * (LABEL - line.cell_len))


def _fitted(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _edge(first: str, last: str, left: Text, right: Text, columns: int) -> Text:
    """An edge of the frame with a text at each side."""
    left.truncate(max(0, columns - 6 - right.cell_len), overflow="ellipsis")
    bar = "─" * max(0, columns - 4 - left.cell_len - right.cell_len)
    ends = "cyan"
    return Text.assemble((f"{first}─", ends), left, (bar, ends), right, (f"─{last}", ends))


def _rendered(lines: Sequence[Text], columns: int) -> list[str]:
    """Lines of text as a terminal takes them."""
    console = Console(
        file=io.StringIO(),
        width=columns,
        force_terminal=True,
        color_system="standard",
        highlight=False,
    )
    rendered = []
    for line in lines:
        line.truncate(columns)
        with console.capture() as capture:
            console.print(line, end="", soft_wrap=True, markup=False)
        rendered.append(capture.get())
    return rendered
