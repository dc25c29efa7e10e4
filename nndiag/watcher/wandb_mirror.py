"""Our headline numbers and findings in the W&B run that the script itself has open.

wandb is never imported here: it is the module that the script has imported. Values wait in memory
until the script logs a row, and go into that very call. So there is no call of `log` but the
script's, and W&B counts, keeps and drops rows as if we were not there; a call of our own, with
`commit=False`, would do as much and take 0.1 ms of each step. What we measured between two of the
script's rows is in the run directory only.

Before a run is finished, by whatever way, its diagnosis is made in another process and put into it.
What was done is left in the run directory as `wandb-PID-N.json`, for the supervisor to tell.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from time import perf_counter as _clock  # bound here: a script may patch time
from typing import Any

from nndiag.adapters.base import Column, StepRow
from nndiag.journal.writer import write_json
from nndiag.watcher import analysis_apart, headlines, wandb_findings
from nndiag.watcher.recorder import Recorder

MODULE = "wandb.sdk.wandb_run"
PREFIX = "nndiag/"
STEP = f"{PREFIX}step"
FREE_S, SHARE = 30.0, 0.05  # of the time so far: what diagnoses of many short runs may take
MARK = "wandb-{pid}-{number}.json"
ANALYSIS_S = 60.0  # what one diagnosis may take; W&B itself may take as long to finish

Call = tuple[Any, Any]  # arguments, by place and by name
Guarded = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(slots=True)
class _Open:
    """A run of the script's that is not finished."""

    run: Any
    number: int  # 0, 1, ... in this process
    owners: list[str] = field(default_factory=list)  # optimizers that stepped meanwhile
    defined: set[str] = field(default_factory=lambda: {STEP})  # keys whose axis W&B knows
    steps_sent: dict[str, int] = field(default_factory=dict)  # owner -> count of its newest row
    layers_sent: dict[str, int] = field(default_factory=dict)
    rows: int = 0  # rows of the script's that took ours along


class WandbMirror:
    """One process's numbers, and the runs that they go to."""

    def __init__(self, run_dir: str, python: str, guard: Guarded) -> None:
        """`python`: the interpreter that can diagnose; `guard` wraps what runs in the training."""
        self.cost: Callable[[], float] = lambda: 0.0  # percent of the time that watching took
        self.settle: Callable[..., None] = lambda: None  # hands over what is still held back
        self.note: Callable[[str], None] = lambda text: None
        self._run_dir = run_dir
        self._python = python
        self._pid = os.getpid()
        self._began_s = _clock()
        self._spent_s = 0.0  # on diagnoses
        self._before_row = guard(self._give)
        self._run_class: type | None = None
        self._runs: dict[int, _Open] = {}  # by id
        self._seen: weakref.ref[Any] | None = None  # the newest `wandb.run` that was looked at
        self._count = 0
        self._steps: dict[str, tuple[int, int, StepRow]] = {}  # owner -> count, step, row
        self._layers: dict[str, tuple[int, Mapping[Column, float]]] = {}
        self._failed = ""

    # -- what is measured

    def saw_step(self, owner: str, step: int, row: StepRow) -> None:
        """The row of an optimizer's step. Called by a hook that is guarded already."""
        self._steps[owner] = (self._steps.get(owner, (0,))[0] + 1, step, row)
        if self._run_class is None:
            return
        self._notice_global_run()
        for opened in list(self._runs.values()):
            if owner not in opened.owners:
                opened.owners.append(owner)

    def saw_layers(self, owner: str, values: Mapping[Column, float]) -> None:
        """What the layers showed in a measured step."""
        self._layers[owner] = (self._layers.get(owner, (0,))[0] + 1, values)

    # -- the script's W&B

    def install(self, awaited: dict[str, Callable[[Any], None]]) -> None:
        """Wait for the script's import of wandb, before whatever else waits for it."""
        others = awaited.get(MODULE)

        def imported(module: Any) -> None:
            self.attach(module)
            if others is not None:
                others(module)

        awaited[MODULE] = imported

    def attach(self, module: Any) -> None:
        """Wrap what takes rows and what finishes a run. `module` is `wandb.sdk.wandb_run`."""
        cls = module.Run
        log = cls.log
        # `with wandb.init() as run` ends by the private one, and so does `finish`.
        ending = "_finish" if hasattr(cls, "_finish") else "finish"
        finish = getattr(cls, ending)

        @functools.wraps(log)
        def logged(run: Any, *args: Any, **kwargs: Any) -> Any:
            more: list[Call] = []
            self._before_row(more, run, args, kwargs)
            for with_ours in more:
                args, kwargs = with_ours
            return log(run, *args, **kwargs)

        @functools.wraps(finish)
        def finished(run: Any, *args: Any, **kwargs: Any) -> Any:
            self._conclude(run)
            return finish(run, *args, **kwargs)

        self._run_class = cls
        cls.log = logged
        setattr(cls, ending, finished)

    def _notice_global_run(self) -> None:
        """The run that `wandb.init` made, though nothing was logged to it yet."""
        run = getattr(sys.modules.get("wandb"), "run", None)
        if run is None or (self._seen is not None and self._seen() is run):
            return
        self._seen = weakref.ref(run)
        if self._run_class is not None and isinstance(run, self._run_class):
            self._opened(run)

    def _opened(self, run: Any) -> _Open | None:
        """What we know of a run; None where it takes nothing."""
        if self._failed:
            return None
        opened = self._runs.get(id(run))
        if opened is not None and opened.run is run:
            return opened
        if getattr(run, "_is_finished", False) or os.getpid() != self._pid:
            return None
        try:
            return None if run.disabled else self._begin(run)
        except Exception as error:
            self._fail(error)
            return None

    def _begin(self, run: Any) -> _Open:
        run.define_metric(STEP, hidden=True)
        opened = self._runs[id(run)] = _Open(run, self._count)
        self._count += 1
        # Anew for each run: ours must come later than W&B's own, to be called before it.
        atexit.unregister(self._at_exit)
        atexit.register(self._at_exit)
        self._leave_mark(opened)
        return opened

    def _give(self, found: list[Call], run: Any, args: Any, kwargs: Any) -> None:
        """Add to `found` the call that the script is about to make, with what is new in its row."""
        data = args[0] if args else kwargs.get("data")
        step = args[1] if len(args) > 1 else kwargs.get("step")
        if not isinstance(data, dict) or not data or not _lands(run, step):
            return
        opened = self._opened(run)
        values = self._news(opened) if opened is not None else {}
        if opened is None or not values:
            return
        try:
            self._define(opened, values)
        except Exception as error:
            return self._fail(error)
        row = {**values, **data}  # whatever the script says has the word
        if args:
            found.append(((row, *args[1:]), kwargs))
        else:
            found.append((args, {**kwargs, "data": row}))
        opened.rows += 1
        if opened.rows & (opened.rows - 1) == 0:  # 1, 2, 4, ...: a kill may come at any time
            self._leave_mark(opened)

    def _define(self, opened: _Open, values: Mapping[str, float]) -> None:
        """Name the axis of each key. By a glob of ours, W&B would let globs of the script, such as
        `"*"` with an epoch for its axis, match too, and put that epoch into rows without one."""
        for key in values.keys() - opened.defined:
            opened.run.define_metric(key, step_metric=STEP)
            opened.defined.add(key)

    def _news(self, opened: _Open) -> dict[str, float]:
        """What the run has not got yet, under its names."""
        found: dict[str, float] = {}
        for owner in opened.owners:
            prefix = PREFIX if owner == opened.owners[0] else f"{PREFIX}{owner}/"
            count, step, row = self._steps[owner]
            if opened.steps_sent.get(owner) == count:
                continue
            opened.steps_sent[owner] = count
            found[STEP] = step
            found.update({prefix + name: v for name, v in headlines.of_step(row).items()})
            count, layers = self._layers.get(owner, (0, {}))
            if opened.layers_sent.get(owner) != count:
                opened.layers_sent[owner] = count
                extremes = headlines.of_layers(layers)
                found.update({prefix + name: value for name, (value, _) in extremes.items()})
        return found

    def _fail(self, error: Exception) -> None:
        """W&B's errors end the mirror; they are no fault of the observation, nor the script's."""
        self._failed = f"{type(error).__name__}: {error}"[:300]
        self.note(f"the W&B mirror ended: {self._failed}")

    # -- the end of a run

    def _at_exit(self) -> None:
        """W&B's own hook, which would finish what is open, comes after this one."""
        with contextlib.suppress(KeyboardInterrupt):  # then without findings
            for opened in list(self._runs.values()):
                self._conclude(opened.run)

    def _conclude(self, run: Any) -> None:
        """Diagnose, and tell the run; whatever goes wrong, the run is finished as it would be."""
        opened = self._runs.pop(id(run), None)
        if opened is None or opened.run is not run or os.getpid() != self._pid:
            return
        try:
            self._tell(opened)
        except Exception as error:
            self._failed = f"{type(error).__name__}: {error}"[:300]
            with contextlib.suppress(Exception):  # nowhere left to say it
                self._leave_mark(opened)

    def _tell(self, opened: _Open) -> None:
        limit_s = FREE_S + SHARE * (_clock() - self._began_s)
        if not opened.owners or self._spent_s > limit_s:
            self._leave_mark(opened, told=True)
            return
        self.settle()
        began = _clock()
        report = analysis_apart.diagnose(self._python, self._run_dir, seconds=ANALYSIS_S)
        self._spent_s += _clock() - began
        others = {owner for owner in self._steps if owner not in opened.owners}
        findings = [f for f in report.get("findings", ()) if f.get("owner") not in others]
        layers = self._layers.get(opened.owners[0], (0, {}))[1]
        where = {name: place for name, (_, place) in headlines.of_layers(layers).items()}
        verdict = str(report.get("verdict", ""))
        opened.run.summary.update(wandb_findings.summary(verdict, findings, where, self.cost()))
        alerts = list(wandb_findings.alerts(findings))
        for alert in alerts:
            opened.run.alert(title=alert.title, text=alert.text, level=alert.level)
        self._leave_mark(
            opened,
            told=True,
            verdict=verdict,
            findings=len(findings),
            alerts=len(alerts),
            seconds=round(_clock() - began, 3),
        )

    def _leave_mark(self, opened: _Open, **more: object) -> None:
        name = MARK.format(pid=self._pid, number=opened.number)
        run_id = str(getattr(opened.run, "id", ""))
        mark = {"id": run_id, "rows": opened.rows, "failed": self._failed, **more}
        with contextlib.suppress(OSError):  # a full disk: the journal says more of it
            write_json(os.path.join(self._run_dir, name), mark)


class MirroredRecorder(Recorder):
    """Writes everything down, and shows the measurements to a mirror too."""

    mirror: WandbMirror

    def step(self, optimizer: int, owner: str, step: int, row: StepRow) -> None:
        super().step(optimizer, owner, step, row)
        self.mirror.saw_step(owner, step, row)

    def layers(self, optimizer: int, owner: str, step: int, values: Mapping[Column, float]) -> None:
        super().layers(optimizer, owner, step, values)
        self.mirror.saw_layers(owner, values)


def _lands(run: Any, step: Any) -> bool:
    """Whether W&B keeps a row of this step: one that lags behind is dropped, with a warning."""
    if step is None:
        return True
    newest = getattr(run, "_local_step", 0)
    return isinstance(step, Integral) and isinstance(newest, Integral) and int(step) >= int(newest)
