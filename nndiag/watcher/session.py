"""The watching of one process: attach, guard, end. Standard library only; runs inside the training.

A fault of ours never stops or changes the training: it is caught, written down, and after a few
the observation ends for good. What the user's own code raises passes through untouched.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from time import perf_counter as _clock  # bound here: a script may patch time
from typing import Any

from nndiag.journal.writer import write_text
from nndiag.watcher import attributing
from nndiag.watcher.logger_taps import await_loggers, rebind_wandb_log
from nndiag.watcher.output_tap import OutputTap
from nndiag.watcher.recorder import Recorder
from nndiag.watcher.schedule import Schedule
from nndiag.watcher.wandb_mirror import MirroredRecorder, WandbMirror

MAX_FAULTS = 3  # of our own, before the observation ends


class Guard:
    """Wraps everything of ours that runs inside the training; counts its time and its faults."""

    def __init__(self) -> None:
        self.cost_s = 0.0
        self.off = False
        self._began_s = _clock()
        self._depth = 0
        self._faults = 0
        self._on_fault: Callable[[str, bool], None] = lambda reason, final: None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first of our hooks ran."""
        return _clock() - self._began_s

    def when_it_fails(self, on_fault: Callable[[str, bool], None]) -> None:
        self._on_fault = on_fault

    def __call__(self, function: Callable[..., None]) -> Callable[..., None]:
        clock = _clock

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            # One of ours inside another of ours (a print of our own, say) is not the script's.
            if self.off or self._depth:
                return
            began = clock()
            try:  # from its first line on: a Ctrl-C in between would leave the depth at 1
                self._depth = 1
                function(*args, **kwargs)
            except Exception as error:  # not BaseException: Ctrl-C and exit are the user's
                self._fault(function, error)
            finally:
                self.cost_s += clock() - began
                self._depth = 0

        return guarded

    def _fault(self, function: Callable[..., None], error: Exception) -> None:
        self._faults += 1
        final = self._faults >= MAX_FAULTS
        self.off = final
        try:  # the text too: an exception of the script's own classes may have no safe `str`
            name = getattr(function, "__qualname__", type(function).__name__)
            reason = f"{name}: {type(error).__name__}: {error}"[:500]
            self._on_fault(reason, final)
        except Exception:  # the journal itself is what fails: there is nowhere left to say it
            self.off = True


class Session:
    """One process under observation."""

    def __init__(self, torch: Any, run_dir: str, settings: dict[str, Any]) -> None:
        from nndiag.adapters.pytorch.observer import TorchAdapter
        from nndiag.adapters.pytorch.ranks import rank_and_world

        self._run_dir = run_dir
        self._method = str(settings.get("attribute") or "")
        self._unsaid = ""  # why the observation ended, where that could not be written
        self._guard = Guard()
        recorder = MirroredRecorder if settings.get("wandb") else Recorder
        self._recorder = recorder(run_dir, "torch", str(torch.__version__), rank_and_world)
        schedule = Schedule(
            settings.get("every", "auto"), float(settings.get("overhead_percent", 2.0)) / 100
        )
        self._adapter = TorchAdapter(
            self._recorder,
            schedule,
            self._guard,
            settings.get("max_steps"),
            settings.get("compiled", "hidden"),
            keeps_batches=bool(settings.get("attribute")),
        )
        self._guard.when_it_fails(self._failed)
        self._missing = attributing.missing() if self._method else ""
        if self._missing:
            self._recorder.note(self._missing)
        self._mirror: WandbMirror | None = None
        if isinstance(self._recorder, MirroredRecorder):
            mirror = WandbMirror(run_dir, settings.get("python", ""), self._guard)
            mirror.cost = self._percent
            mirror.settle = self._guard(self._adapter.settle)
            mirror.note = self._recorder.note
            self._recorder.mirror = self._mirror = mirror

    def start(self, awaited: dict[str, Callable[[Any], None]]) -> None:
        """Attach. `awaited`: modules whose import the bootstrap waits for, with what to do then."""
        try:
            self._attach()
            for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
                if stream is not None:
                    report = functools.partial(self.report, name)
                    OutputTap(stream, report).install(self._guard, self._adapter.exempt)
            await_loggers(awaited, self._guard, self.report)
            if self._mirror is not None:
                self._mirror.install(awaited)
            _catch_up(awaited)
        except BaseException:
            self._guard.off = True  # some hooks may be on already
            raise

    def start_inside(self, models: Sequence[Any]) -> None:
        """Attach in the middle of a process: to `models`, or to all that there are."""
        try:
            self._attach()
            self._adapter.adopt(models)
        except BaseException:
            self._guard.off = True
            self._adapter.detach()
            raise

    def stop(self, raised: type[BaseException] | None = None) -> None:
        """Take everything off and close the journal; the process goes on."""
        atexit.unregister(self._finish)
        self._finish(raised)
        self._guard.off = True
        self._adapter.detach()

    def _attach(self) -> None:
        with contextlib.suppress(FileExistsError):  # a process id can come again
            write_text(os.path.join(self._run_dir, f"attached-{os.getpid()}"), "")
        self._adapter.attach()
        atexit.register(self._finish)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=functools.partial(_forked, weakref.ref(self)))

    def report(self, source: str, name: str, value: float) -> None:
        """Record a metric that the script told."""
        self._recorder.metric(name, value, source)

    def _failed(self, reason: str, final: bool) -> None:
        self._unsaid = reason
        if final:
            self._adapter.switch_off()
            self._recorder.end(reason)
        else:
            self._recorder.note(f"a fault of nndiag's own, observation goes on: {reason}")
        self._unsaid = ""

    def _finish(self, raised: type[BaseException] | None = None) -> None:
        """At the end: what is still held, and how it ended; `raised` by what was watched."""
        try:
            if not self._guard.off:
                self._adapter.finish()
            if self._unsaid:
                self._recorder.end(self._unsaid)
            if self._recorder.recording:
                self._write_ending(raised or getattr(sys, "last_type", None))
            self._recorder.close()
            self._attribute(raised or getattr(sys, "last_type", None))
        except Exception:  # at exit there is nobody left to tell
            return

    def _percent(self) -> float:
        """What watching has taken of the run's time so far."""
        elapsed = self._guard.elapsed_s
        return 100 * self._guard.cost_s / elapsed if elapsed > 0 else 0.0

    def _write_ending(self, raised: type[BaseException] | None) -> None:
        self._recorder.event("overhead", percent=self._percent(), seconds=self._guard.cost_s)
        how = "finished" if raised is None else "exception"
        self._recorder.event("exit", how=how, what=getattr(raised, "__name__", ""))

    def _attribute(self, raised: type[BaseException] | None) -> None:
        """Last of all, so that nothing else is lost if it is cut short."""
        captures = self._adapter.captures
        if captures is None or captures.model is None or self._missing:
            return
        model = captures.model
        self._guard.off = True
        self._adapter.detach()  # what runs now is no training
        if raised is not KeyboardInterrupt:  # who presses Ctrl-C does not want to wait
            attributing.after_training(model, self._recorder.directory, self._method)

    def leave_to_parent(self) -> None:
        """In a forked child: the files are the parent's, so a child that trains is not followed."""
        self._guard.off = True
        self._adapter.switch_off()
        atexit.unregister(self._finish)


def _catch_up(awaited: dict[str, Callable[[Any], None]]) -> None:
    """What was imported before torch will not be imported again."""
    for name in [name for name in awaited if name in sys.modules]:
        with contextlib.suppress(AttributeError):  # a stand-in, or None to forbid the import
            module = sys.modules[name]
            if not getattr(module.__spec__, "_initializing", False):  # half of it is there as yet
                awaited.pop(name)(module)
    rebind_wandb_log()


def _forked(session: weakref.ref[Session]) -> None:
    watching = session()
    if watching is not None:
        watching.leave_to_parent()


def start(torch: Any, awaited: dict[str, Callable[[Any], None]]) -> None:
    """Called by the bootstrap as soon as torch has been imported."""
    settings = json.loads(os.environ.get("NNDIAG_SETTINGS") or "{}")
    if "again" in settings:  # the script runs again for its model alone
        attributing.again(torch, settings["again"])
        return
    Session(torch, os.environ["NNDIAG_RUN"], settings).start(awaited)
