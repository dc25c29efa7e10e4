"""What `attribute` does: read what is there, or run the script again for its model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nndiag.errors import BadUsage, CannotStart, MissingLibrary, UnreadableLog
from nndiag.vocabulary import methods
from nndiag.watcher import attributing as inside
from nndiag.watcher import command, supervisor

if TYPE_CHECKING:
    from nndiag.records import Attribution

WATCH_IT = "watch it again with: nndiag watch --attribute auto SCRIPT"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted."""

    method: str  # ours, "auto", or "": what there is
    step: str | None
    layer: str
    target: int | None
    samples: int
    seconds: float

    @property
    def capture(self) -> str:
        """The name of the captured batch; "" where no step was asked for."""
        if self.step in (None, "end"):
            return self.step or ""
        if not (self.step or "").isdecimal():
            raise BadUsage(where=f"--step {self.step}", what="is neither a step nor end")
        return f"step-{self.step}"


def refuse_without_script(option: str, run: str) -> NoReturn:
    """Raise `BadUsage`: the option asks for new work, and what is there is only shown."""
    raise BadUsage(
        where=option,
        what="asks for other attributions than those that are there",
        do=f"name the script to make them: {how_to_make(run, f' {option} ...')}",
    )


def chosen(run: str, asked: Asked) -> list[Attribution]:
    """The attributions of a run that were asked for. Raises `UnreadableLog`, or `BadUsage`."""
    from nndiag.readers.attributions import attributions_of, kept_nothing_because

    found, errors = attributions_of(run)
    name, capture = asked.method, asked.capture
    kept = [
        one
        for one in found
        if (name in ("", methods.AUTO) or one.method == name)
        and (not capture or _capture_of(one) == capture)
        and (not asked.layer or one.layer == asked.layer)
    ]
    if kept:
        return kept
    if errors:
        raise errors[0]
    captures = captures_of(run)
    if not captures:
        reason = kept_nothing_because(run)
        what = f"no batch of it was kept: {reason}" if reason else "no batch of it was kept"
        raise UnreadableLog(where=run, what=what, do="" if reason else WATCH_IT)
    if capture and capture not in captures:
        known = ", ".join(one.removeprefix("step-") for one in captures)
        raise BadUsage(where=f"--step {asked.step}", what=f"batches are there of: {known}")
    what = f"no attributions by {name}" if name else "no attributions"
    option = f" --method {name}" if name else ""
    raise UnreadableLog(
        where=run,
        what=f"{what} are there yet",
        do=f"name its script to make them: {how_to_make(run, option)}",
    )


def work_out(run: str, script: list[str], asked: Asked) -> None:
    """Run the script again until its model is there, and have the batches attributed."""
    ranks = _ranks_with_captures(run)
    to_run = command.parse(script, asked_by="nndiag attribute RUN --")
    request = {
        "rank_directories": ranks,
        "names": [asked.capture] if asked.capture else [],
        "method": asked.method or methods.AUTO,
        "layer": asked.layer,
        "target": asked.target,
        "samples": asked.samples,
        "seconds": asked.seconds,
    }
    environment = supervisor.watched_environment(
        {**os.environ, "WANDB_MODE": "disabled"}, Path(run).absolute(), supervisor.WatchSettings()
    )
    _say(f"running {to_run.label} again, up to its first forward pass")
    with tempfile.TemporaryDirectory(prefix="nndiag-") as folder:
        # A launcher ends with a status of its own: how it went is written down.
        answer = os.path.join(folder, "answer.json")
        again = {**request, "answer": answer}
        environment[supervisor.SETTINGS_VARIABLE] = json.dumps({"again": again})
        ended = _run(to_run, environment)
        told = inside.read_answer(answer)
    if told is None and ended < 0:
        supervisor.end_by(-ended)
    status = ended if told is None else told
    if told == inside.DONE:
        return
    if status == inside.NO_MODEL:
        raise BadUsage(
            where=to_run.label,
            what="its model is not the one of the run",
            do="give it the same arguments as when it was watched",
        )
    what = {
        0: "ended before its model was called",
        inside.FAILED: "was stopped: the attributions failed, see above",
    }.get(status, f"failed before its model was called, with status {status}")
    raise CannotStart(where=to_run.label, what=what)


def _run(to_run: command.Command, environment: dict[str, str]) -> int:
    """How the script ended; negative: by a signal. Its output goes to standard error."""
    with supervisor.forwarding(lambda number: child.send_signal(number)):
        child: subprocess.Popen[bytes] = supervisor.start(
            to_run, environment, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()
        )
        return child.wait()


def show(run: str, attributions: list[Attribution], *, json: bool, output: Path | None) -> None:
    """Print them, or write them to a file whose ending tells the form."""
    from nndiag.cli import output as out
    from nndiag.reports import attribution, attribution_json, plain
    from nndiag.reports.lines import FIXED

    suffix = output.suffix.lower() if output is not None else ""
    if output is not None and suffix == ".png" and not json:
        out.write_bytes(_png(attributions), output)
    elif output is not None and suffix in (".html", ".htm") and not json:
        out.write(_page(run, attributions), output)
    elif json or suffix == ".json":
        out.write(attribution_json.text(attributions), output)
    elif output is not None:
        out.write(plain.text(attribution.report(attributions, width=FIXED)), output)
    else:
        width = out.screen_width(sys.stdout)
        ascii_only = not out.can_draw(sys.stdout)
        lines = attribution.report(attributions, width=width, ascii_only=ascii_only)
        out.show_lines(lines, sys.stdout)


def _page(run: str, attributions: list[Attribution]) -> str:
    """The report page of the run, with these attributions on it."""
    from nndiag import analysis
    from nndiag.reports import html_page

    result = analysis.analyze(run, whole_runs=True)
    section = html_page.attribution_section(attributions)
    sections = {one.run.path: (section,) for one in result.diagnoses}
    return html_page.text(result.diagnoses, result.errors, sections=sections)


def _png(attributions: list[Attribution]) -> bytes:
    try:
        from nndiag.reports import attribution_png
    except ImportError:
        raise MissingLibrary(
            command="nndiag attribute -o FILE.png", library="matplotlib", extra="captum"
        ) from None
    return attribution_png.png(attributions)


def _capture_of(one: Attribution) -> str:
    return "end" if one.why == "end" else f"step-{one.step}"


def how_to_make(run: str, option: str = "") -> str:
    """The command that attributes the batches of a run, to be filled in."""
    return f"nndiag attribute {shlex.quote(run)}{option} -- {_script(run)}"


def captures_of(run: str) -> list[str]:
    """The batches that a run has kept: "step-612", "end". Several may be of one step."""
    from nndiag.journal.format import CAPTURES_FOLDER
    from nndiag.journal.reader import open_run

    names: list[str] = []
    for rank in open_run(run).ranks:
        folder = os.path.join(rank.path, CAPTURES_FOLDER)
        if os.path.isdir(folder):
            kept = (name for name in os.listdir(folder) if not name.startswith("."))
            names += ["-".join(name.split("-")[:2]) for name in kept]  # of "step-80-2" too
    return sorted(set(names), key=lambda name: (name == "end", len(name), name))


def _ranks_with_captures(run: str) -> list[str]:
    """The directories of the ranks that have kept a batch."""
    from nndiag.journal.format import CAPTURES_FOLDER
    from nndiag.journal.reader import open_run

    paths = [os.path.abspath(rank.path) for rank in open_run(run).ranks]
    found = [path for path in paths if os.path.isdir(os.path.join(path, CAPTURES_FOLDER))]
    if not found:
        raise UnreadableLog(where=run, what="no batch of it was kept", do=WATCH_IT)
    return found


def _script(run: str) -> str:
    """The script as the run names it, with what it was given left open."""
    from nndiag.journal.reader import open_run

    manifest = open_run(run).manifest
    script = shlex.quote(str(manifest.get("script") or "SCRIPT"))
    return f"{script} ITS ARGUMENTS" if manifest.get("options") else script


def _say(text: str) -> None:
    print(f"nndiag: {text}", file=sys.stderr, flush=True)
