"""Listening to what a script prints, without being noticed."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from nndiag.watcher.output_tap import MAX_LINE, OutputTap
from nndiag.watcher.session import Guard


def same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def tapped(stream: Any) -> list[tuple[str, float]]:
    heard: list[tuple[str, float]] = []
    OutputTap(stream, lambda name, value: heard.append((name, value))).install(Guard(), same)
    return heard


def text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_metrics_are_heard_when_their_line_is_whole():
    stream = text()
    heard = tapped(stream)

    print("epoch 3 val_", end="", file=stream)
    assert heard == []
    print("loss: 0.25 acc=0.9\nseconds: 12", file=stream)

    assert heard == [("epoch", 3.0), ("val_loss", 0.25), ("acc", 0.9)]
    assert written(stream) == "epoch 3 val_loss: 0.25 acc=0.9\nseconds: 12\n"


def test_a_progress_bar_is_heard_each_time_it_is_drawn():
    stream = text()
    heard = tapped(stream)

    for loss in ("0.5", "0.4"):
        stream.write(f"\r 10%|# | 1/9 [00:01<00:02, loss={loss}]")
    stream.write("\n")

    assert heard == [("loss", 0.5), ("loss", 0.4)]


def test_every_character_and_result_is_handed_on():
    plain, watched = text(), text()
    tapped(watched)

    for piece in ("", "a", "\n", "ü€\r\n", "x" * 100_000, "\n" * 1000, "loss=" + "9" * 5000 + "\n"):
        assert watched.write(piece) == plain.write(piece)

    assert written(watched) == written(plain)


@pytest.mark.parametrize("wrong", [b"bytes", None, 3])
def test_a_wrong_argument_raises_what_the_stream_raises(wrong: object):
    plain, watched = text(), text()
    heard = tapped(watched)

    with pytest.raises(TypeError) as expected:
        plain.write(wrong)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=str(expected.value).replace("(", r"\(").replace(")", r"\)")
    ):
        watched.write(wrong)  # type: ignore[arg-type]
    assert heard == []


def test_a_line_without_end_takes_no_memory():
    stream = text()
    heard: list[tuple[str, float]] = []
    tap = OutputTap(stream, lambda name, value: heard.append((name, value)))
    tap.install(Guard(), same)

    for _ in range(100):
        stream.write("x" * 100_000)

    assert sys.getsizeof(tap._line) < 2 * MAX_LINE


def test_a_stream_that_takes_no_attributes_stays_unheard():
    class Narrow:
        __slots__ = ()

        def write(self, text: str) -> int:
            return len(text)

    stream = Narrow()

    assert tapped(stream) == [] and stream.write("val_loss 0.5\n") == 13


def test_a_stream_of_the_scripts_own_is_heard():
    class Tee:
        def __init__(self) -> None:
            self.said: list[str] = []

        def write(self, text: str) -> None:
            self.said.append(text)

    tee = Tee()
    heard = tapped(tee)
    print("val_loss", 0.5, file=tee)  # type: ignore[call-overload]

    assert heard == [("val_loss", 0.5)] and "".join(tee.said) == "val_loss 0.5\n"
