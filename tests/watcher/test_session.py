"""The guard around all that runs inside a training."""

from __future__ import annotations

import importlib.machinery
import sys
import time
import types

import pytest

from nndiag.watcher.session import MAX_FAULTS, Guard, _catch_up


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("not even its text")


def failing(error: BaseException):
    def fail() -> None:
        raise error

    return fail


def test_faults_are_told_and_the_last_one_ends_it():
    told: list[tuple[str, bool]] = []
    guard = Guard()
    guard.when_it_fails(lambda reason, final: told.append((reason, final)))
    fail = guard(failing(RuntimeError("ours")))

    for _ in range(MAX_FAULTS + 5):
        fail()

    assert [final for _, final in told] == [False] * (MAX_FAULTS - 1) + [True]
    assert all(reason.endswith("RuntimeError: ours") for reason, _ in told)
    assert guard.off


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_the_users_passes_through_and_the_guard_stays_usable(error: BaseException):
    guard, seen = Guard(), []
    with pytest.raises(type(error)):
        guard(failing(error))()

    guard(lambda: seen.append(1))()
    assert seen == [1] and not guard.off


def test_a_fault_that_cannot_be_told_ends_it_quietly():
    guard = Guard()
    guard.when_it_fails(lambda reason, final: failing(OSError("disk full"))())

    guard(failing(RuntimeError()))()

    assert guard.off


def test_a_fault_without_text_ends_it_quietly():
    guard = Guard()

    guard(failing(Broken()))()

    assert guard.off


def test_one_of_ours_inside_another_is_not_the_scripts():
    guard, seen = Guard(), []
    inner = guard(lambda: seen.append("inner"))

    guard(lambda: (seen.append("outer"), inner()))()
    inner()

    assert seen == ["outer", "inner"]


def test_it_returns_nothing_so_that_no_hook_replaces_an_output():
    assert Guard()(lambda: "an output")() is None  # type: ignore[arg-type, return-value]


def test_it_counts_the_time_of_ours_and_only_once():
    guard = Guard()
    inner = guard(lambda: time.sleep(0.01))

    guard(lambda: (time.sleep(0.02), inner()))()

    assert 0.02 <= guard.cost_s < 0.03 + 0.02
    assert guard.elapsed_s >= guard.cost_s


def test_what_was_imported_before_torch_is_caught_up_with(monkeypatch: pytest.MonkeyPatch):
    whole, half = types.ModuleType("whole"), types.ModuleType("half")
    for module in (whole, half):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    half.__spec__._initializing = True
    monkeypatch.setitem(sys.modules, "forbidden", None)
    monkeypatch.setitem(sys.modules, "stand_in", types.ModuleType("stand_in"))
    seen: list[object] = []
    waiting = dict.fromkeys(("whole", "half", "forbidden", "later"), seen.append)

    _catch_up({**waiting, "stand_in": lambda module: module.missing})

    assert seen == [whole]
