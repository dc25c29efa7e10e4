"""The live view on a real pseudo-terminal: the script's bytes, keys, signals and ending."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUIET = {"CI", "GITHUB_ACTIONS", "NO_COLOR", "JPY_PARENT_PID", "TTY_INTERACTIVE", "TTY_COMPATIBLE"}
FRAME = "\u256d".encode()


class Terminal:
    """A terminal with a watched script on it."""

    def __init__(
        self, folder: Path, text: str, *options: str, rows: int = 30, **variables: str
    ) -> None:
        (folder / "x.py").write_text(textwrap.dedent(text))
        self.master, self.slave = pty.openpty()
        self.size(rows, 100)
        self.before = termios.tcgetattr(self.slave)
        kept = {name: value for name, value in os.environ.items() if name not in QUIET}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "nndiag", "watch", *options, "x.py"],
            cwd=folder,
            env={
                **kept,
                "PYTHONPATH": str(ROOT),
                "TERM": "xterm",
                "LC_ALL": "C.UTF-8",
                **variables,
            },
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = b""

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: bytes, seconds: float = 30) -> bytes:
        """All that was written up to and with `text`, escape sequences included."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} never came; there was {self.seen[-2000:]!r}"
            self._read(left)
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def finish(self) -> tuple[int, bytes]:
        """The status, and all that was written until the end."""
        while self.child.poll() is None:
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.child.returncode, self.seen

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.seen += os.read(self.master, 1 << 16)
        return bool(ready)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.fixture
def watch(tmp_path: Path, terminals: list[Terminal]):  # type: ignore[no-untyped-def]
    def start(text: str, *options: str, **variables: object) -> Terminal:
        terminals.append(Terminal(tmp_path, text, *options, **variables))  # type: ignore[arg-type]
        return terminals[-1]

    return start


def without_view(output: bytes) -> bytes:
    """What the script wrote: no drawing, no escape sequences, no lines of ours."""
    output = re.sub(rb"\x1b\[\?2026h.*?\x1b\[\?2026l", b"", output, flags=re.DOTALL)
    output = re.sub(rb"\n{9,12}\x1b\[\d+A", b"", output)
    output = re.sub(rb"\x1b(\[[0-?]*[ -/]*[@-~]|[78])", b"", output)
    return b"".join(
        line for line in output.splitlines(keepends=True) if not line.startswith(b"nndiag:")
    )


WAIT = "import time; time.sleep(1.5)\n"


def test_the_script_has_a_terminal_and_its_output_passes_whole(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        """
        import os, sys, time
        print(sys.stdin.isatty(), sys.stdout.isatty(), sys.stderr.isatty())
        print(os.get_terminal_size().lines < 30, os.ttyname(0) == os.ttyname(1))
        for i in range(30):
            sys.stderr.write(f'\\r{i} \u2588\u2588'); sys.stderr.flush(); time.sleep(0.05)
        print('\\nend'); sys.exit(3)
        """
    )
    status, seen = terminal.finish()

    assert status == 3
    bar = b"".join(b"\r%d \xe2\x96\x88\xe2\x96\x88" % i for i in range(30))
    told = without_view(seen)
    assert told == b"True True True\r\nTrue True\r\n" + bar + b"\r\nend\r\n"
    assert FRAME in seen


def test_the_terminal_is_as_before(watch) -> None:  # type: ignore[no-untyped-def]
    for text, status in ((WAIT, 0), (WAIT + "import os; os.kill(os.getpid(), 9)", -9)):
        terminal = watch(text)
        assert terminal.finish()[0] == status
        assert termios.tcgetattr(terminal.slave) == terminal.before
        assert terminal.seen.rfind(b"\x1b[r") > terminal.seen.rfind(FRAME)


def test_control_c_reaches_the_script_as_an_interrupt(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch("print('ready')\nimport time; time.sleep(30)")
    terminal.read_until(b"ready")
    terminal.type(b"\x03")
    status, seen = terminal.finish()

    assert status == -signal.SIGINT
    assert b"KeyboardInterrupt" in seen


def test_a_handler_for_control_c_is_called_once(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        """
        import signal, sys, time
        def handler(*_):
            print('caught'); time.sleep(0.5); sys.exit(130)
        signal.signal(signal.SIGINT, handler)
        print('ready', flush=True)
        while True: time.sleep(0.1)
        """
    )
    terminal.read_until(b"ready")
    terminal.type(b"\x03")
    status, seen = terminal.finish()

    assert (status, seen.count(b"caught")) == (130, 1)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"])
def test_a_signal_to_us_goes_on_to_the_script(name: str, watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch("print('ready')\nimport time; time.sleep(30)")
    terminal.read_until(b"ready")
    terminal.child.send_signal(getattr(signal, name))

    assert terminal.finish()[0] == -getattr(signal, name)
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_typing_and_editing_work(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(WAIT + "print('hello', input('name? '))")
    terminal.read_until(b"name? ")
    terminal.type(b"Adx\x7fa\r")

    assert terminal.finish()[0] == 0
    assert b"hello Ada\r\n" in without_view(terminal.seen)


def test_a_script_that_takes_the_screen_gets_all_of_it(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        WAIT
        + "print('\\x1b[?1049h', end='', flush=True); time.sleep(1)\n"
        + "import os; print('rows', os.get_terminal_size().lines); print('\\x1b[?1049l')"
    )
    before = terminal.read_until(b"\x1b[?1049h")
    status, after = terminal.finish()

    assert status == 0
    assert FRAME in before
    assert before.rfind(b"\x1b[r") > before.rfind(FRAME)  # given back first
    assert FRAME not in after
    assert b"rows 30" in after


def test_a_fault_in_the_view_costs_the_view_only(tmp_path: Path, watch) -> None:  # type: ignore[no-untyped-def]
    text = """
        import pathlib, time
        [run] = pathlib.Path('nndiag-runs').glob('x-*')
        (run / 'rank-0').mkdir(); (run / 'rank-0' / 'process.json').write_text('{"broken')
        time.sleep(1.5)
        print('still here')
        """
    terminal = watch(text)
    status, seen = terminal.finish()

    assert status == 0
    assert b"still here" in seen
    assert FRAME not in seen


def test_a_resize_reaches_the_script(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        """
        import os, signal, time
        def changed(*_): print('columns', os.get_terminal_size().columns, flush=True)
        signal.signal(signal.SIGWINCH, changed)
        print('ready', flush=True)
        time.sleep(1.2)
        time.sleep(1.2)
        """
    )
    terminal.read_until(b"ready")
    terminal.size(40, 77)
    terminal.child.send_signal(signal.SIGWINCH)

    assert b"columns 77" in terminal.finish()[1]


def test_ten_megabytes_a_second_pass(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        """
        import sys
        line = 'x' * 99 + '\\n'
        for _ in range(200): sys.stdout.write(line * 1000)
        print('the end')
        """
    )
    terminal.read_until(b"xxxx")
    began, size = time.monotonic(), 0
    while b"the end" not in terminal.seen[-3000:]:
        terminal._read(10)
        size += len(terminal.seen)
        terminal.seen = terminal.seen[-3000:]
    seconds = time.monotonic() - began

    assert terminal.finish()[0] == 0
    assert 20 / seconds > 10, f"{20 / seconds:.1f} MB/s"


PLAIN = {
    "NO_COLOR": {"NO_COLOR": "1"},
    "CI": {"CI": "true"},
    "a dumb terminal": {"TERM": "dumb"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("variables", PLAIN.values(), ids=PLAIN)
def test_there_is_no_view_where_it_is_not_wanted(variables: dict[str, str], watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(WAIT + "import os; print(os.get_terminal_size().lines)", **variables)
    status, seen = terminal.finish()

    assert status == 0
    assert b"\x1b" not in seen
    assert b"30\r\n" in seen


def test_no_live_leaves_the_terminal_to_the_script(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(WAIT + "import os; print(os.ttyname(1))", "--no-live")
    status, seen = terminal.finish()

    assert status == 0
    assert os.ttyname(terminal.slave).encode() in seen
    assert b"\x1b" not in seen


def test_control_c_without_a_view_is_not_delivered_twice(watch) -> None:  # type: ignore[no-untyped-def]
    terminal = watch(
        """
        import signal, sys, time
        def handler(*_): print('caught', flush=True)
        signal.signal(signal.SIGINT, handler)
        print('ready', flush=True)
        time.sleep(1); time.sleep(1); sys.exit(4)
        """,
        "--no-live",
    )
    terminal.read_until(b"ready")
    terminal.type(b"\x03")
    status, seen = terminal.finish()

    assert (status, seen.count(b"caught")) == (4, 1)
