"""`nndiag watch x.py` against `python x.py`: what the script sees, says and returns is the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WATCH = (sys.executable, "-m", "nndiag", "watch")


@dataclass(frozen=True)
class Outcome:
    status: int  # negative: ended by that signal
    stdout: bytes
    stderr: bytes  # without our lines

    @classmethod
    def of(cls, done: subprocess.CompletedProcess[bytes]) -> Outcome:
        lines = done.stderr.splitlines(keepends=True)
        theirs = b"".join(line for line in lines if not line.startswith(b"nndiag:"))
        return cls(done.returncode, done.stdout, theirs)


def start(
    command: tuple[str, ...], cwd: Path, **options: object
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, timeout=60, **options
    )


def both(cwd: Path, *arguments: str, **options: object) -> tuple[Outcome, Outcome]:
    """(under python, under nndiag watch)"""
    plain = Outcome.of(start((sys.executable, *arguments), cwd, **options))
    return plain, Outcome.of(start((*WATCH, *arguments), cwd, **options))


def script(folder: Path, text: str, name: str = "x.py") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return name


SCRIPTS = {
    "nothing": "",
    "prints to both streams": "import sys; print('out'); print('err', file=sys.stderr)",
    "exit with a number": "exit(3)",
    "sys.exit with 0": "import sys; sys.exit(0)",
    "sys.exit with a text": "import sys; sys.exit('it failed')",
    "sys.exit with an object": "import sys; sys.exit([1, 2])",
    "a status above 255": "import sys; sys.exit(300)",
    "an uncaught exception": "def f():\n    return 1 / 0\nprint('before')\nf()",
    "an exception with a cause": """
        try:
            {}['key']
        except KeyError as error:
            raise ValueError('wrong') from error
        """,
    "a syntax error": "print('never'\nx = = 1",
    "os._exit": "import os; print('out', flush=True); os._exit(5)",
    "os.abort": "import os; os.abort()",
    "SIGKILL to itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV to itself": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "SIGTERM to itself": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "bytes that are no UTF-8": """
        import os
        os.write(1, bytes(range(256)))
        os.write(2, b'\\xff\\n')
        """,
    "who it is": """
        import os, sys
        print(__name__, __file__, sys.argv, sys.path[0], sys.executable, os.getcwd(), sys.flags)
        print(sorted(k for k in vars(sys.modules['__main__'])), sys.orig_argv[1:])
        print([p for p in sys.path if 'nndiag' in p and 'bootstrap' in p])
        """,
    "atexit that pickles a class of the script": """
        import atexit, pickle
        class K: pass
        atexit.register(lambda: print(len(pickle.dumps(K())) > 0))
        """,
    "a pool that returns classes of the script": """
        import multiprocessing
        class K:
            def __init__(self, x): self.x = x
        if __name__ == '__main__':
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                print([k.x for k in pool.map(K, range(3))])
        """,
    "os.execv": """
        import os, sys
        if len(sys.argv) < 2:
            os.execv(sys.executable, [sys.executable, __file__, 'again'])
        print(sys.argv[1:])
        sys.exit(4)
        """,
    "an excepthook of its own": """
        import sys
        sys.excepthook = lambda kind, error, trace: print('hook', kind.__name__, file=sys.stderr)
        raise ValueError
        """,
    "a closed standard output": "import os, sys; os.close(1); sys.exit(6)",
    "no terminal": "import sys; print(sys.stdout.isatty(), sys.stdin.isatty())",
    "the working directory goes away": """
        import os, sys, tempfile
        folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)
        sys.exit(7)
        """,
    "a warning shown once": "import warnings\nfor _ in range(3): warnings.warn('careful')",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_ends_and_speaks_as_under_python(text: str, tmp_path: Path) -> None:
    plain, watched = both(tmp_path, script(tmp_path, text))

    assert watched == plain


ARGUMENTS = {
    "options": ("-x", "--lr", "3e-4"),
    "help": ("--help",),
    "two dashes": ("--", "-x", "--"),
    "options that are ours": ("--run-dir", "r", "--no-live", "--version"),
    "spaces and an empty one": ("a b", "", "c"),
    "-m": ("-m", "json"),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_after_the_script_are_its_own(arguments: tuple[str, ...], tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(sys.argv)")

    plain, watched = both(tmp_path, name, *arguments)

    assert watched == plain


def test_our_options_come_before_the_script(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(sys.argv)")
    done = start((*WATCH, "--run-dir", "r", "--no-live", "--", name, "--every", "9"), tmp_path)

    assert done.stdout == b"['x.py', '--every', '9']\n"
    assert json.loads((tmp_path / "r" / "run.json").read_text())["settings"]["every"] == "auto"


PLACES = ("with space/my script.py", "deep/er/x.py", "ünïcode/x.py", "-dash.py")


@pytest.mark.parametrize("place", PLACES)
def test_a_script_elsewhere_finds_its_neighbours(place: str, tmp_path: Path) -> None:
    name = script(tmp_path, "import sys, neighbour; print(__file__, sys.path[0], sys.argv)", place)
    script(tmp_path, "print('neighbour')", str(Path(place).with_name("neighbour.py")))

    if place.startswith("-"):
        name = f"./{name}"
    plain, watched = both(tmp_path, name)

    assert watched == plain
    assert b"neighbour" in watched.stdout


def test_a_symlink_is_followed_as_python_does(tmp_path: Path) -> None:
    script(tmp_path, "import sys; print(__file__, sys.path[0])", "real/x.py")
    (tmp_path / "link.py").symlink_to(tmp_path / "real" / "x.py")

    plain, watched = both(tmp_path, "link.py")

    assert watched == plain


@pytest.mark.parametrize("module", ["package", "package.part", "package.missing"])
def test_a_module_is_run_as_python_does(module: str, tmp_path: Path) -> None:
    text = "import sys; print(__name__, __package__, sys.argv, sys.path[0]); sys.exit(9)"
    script(tmp_path, text, "package/__main__.py")
    script(tmp_path, text, "package/part.py")
    script(tmp_path, "", "package/__init__.py")

    plain, watched = both(tmp_path, "-m", module, "--help", "-x")

    assert watched == plain


def test_a_folder_with_a_main_module_is_a_script(tmp_path: Path) -> None:
    script(tmp_path, "import sys; print(sys.argv)", "app/__main__.py")

    plain, watched = both(tmp_path, "app", "1")

    assert watched == plain


def test_modules_named_like_those_we_use_do_not_disturb(tmp_path: Path) -> None:
    for name in ("json", "typer", "rich", "struct", "numpy"):
        script(tmp_path, f"print('their {name}')", f"{name}.py")
    name = script(tmp_path, "import json, rich, struct, numpy, typer; print(json.__file__)")
    command = (
        (sys.executable, "-P", "-m", "nndiag", "watch") if sys.version_info >= (3, 11) else WATCH
    )
    if sys.version_info < (3, 11):
        pytest.skip("python -m puts the working directory in front of ours")

    plain = Outcome.of(start((sys.executable, name), tmp_path))
    watched = Outcome.of(start((*command, "--", sys.executable, name), tmp_path))

    assert watched == plain


def test_standard_input_is_the_scripts(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(input('name? ')); print(sys.stdin.read())")

    plain, watched = both(tmp_path, name, input=b"Ada\nand\nmore")

    assert watched == plain
    assert b"Ada" in watched.stdout


def test_a_descriptor_that_the_shell_opened_is_handed_on(tmp_path: Path) -> None:
    name = script(tmp_path, "import os; print(os.read(3, 100))")
    (tmp_path / "data").write_text("from the shell")
    for command in (f"{sys.executable} {name}", f"{' '.join(WATCH)} {name}"):
        done = start(("/bin/sh", "-c", f"{command} 3<data"), tmp_path)
        assert done.stdout == b"b'from the shell'\n"


def test_a_sitecustomize_of_the_user_still_runs(tmp_path: Path) -> None:
    script(tmp_path, "print('theirs')", "site/sitecustomize.py")
    name = script(tmp_path, "import sys; print(sys.modules['sitecustomize'].__name__)")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        (*WATCH, name), cwd=tmp_path, env=environment, capture_output=True, timeout=60
    )

    assert b"theirs" in done.stdout
    assert done.returncode == 0


SLEEPER = """
    import signal, sys, time
    def handler(number, frame):
        print('got', signal.Signals(number).name, flush=True)
        sys.exit(20)
    if len(sys.argv) > 1:
        for name in sys.argv[1:]:
            signal.signal(getattr(signal, name), handler)
    print('ready', flush=True)
    while True:
        time.sleep(0.05)
    """
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def signalled(tmp_path: Path, number: int, *arguments: str) -> tuple[int, bytes, bytes]:
    """Status, standard output and error of a watched sleeper that a signal was sent to."""
    name = script(tmp_path, SLEEPER)
    child = subprocess.Popen(
        (*WATCH, name, *arguments),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    return child.returncode, out, err


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_us_alone_kills_the_script_and_then_us(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    status, _, err = signalled(tmp_path, number)

    assert status == -number
    assert f"nndiag: the script was ended by {name}".encode() in err


@pytest.mark.parametrize("name", SIGNALS)
def test_a_handler_of_the_script_gets_the_signal_once(name: str, tmp_path: Path) -> None:
    status, out, _ = signalled(tmp_path, getattr(signal, name), name)

    assert (status, out) == (20, f"got {name}\n".encode())


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    name = script(tmp_path, "import signal as s; print(s.getsignal(s.SIGHUP) == s.SIG_IGN)")
    done = start(("/bin/sh", "-c", f"trap '' HUP; exec {' '.join(WATCH)} {name}"), tmp_path)

    assert done.stdout == b"True\n"


def test_the_script_is_not_left_with_blocked_signals(tmp_path: Path) -> None:
    name = script(tmp_path, "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))")

    plain, watched = both(tmp_path, name)

    assert watched == plain


def test_the_training_goes_on_when_we_are_killed(tmp_path: Path) -> None:
    name = script(
        tmp_path,
        """
        import pathlib, time
        print('ready', flush=True)
        time.sleep(1.5)
        pathlib.Path('done').touch()
        """,
    )
    child = subprocess.Popen(
        (*WATCH, name),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.kill()
    child.communicate(timeout=30)  # until the script closes its end

    deadline = time.monotonic() + 10
    while not (tmp_path / "done").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "done").exists()


def test_run_json_tells_what_was_run_and_how_it_ended(tmp_path: Path) -> None:
    name = script(tmp_path, "exit(3)")
    start((*WATCH, "--run-dir", "r", name, "--token", "secret"), tmp_path)

    text = (tmp_path / "r" / "run.json").read_text()
    told = json.loads(text)
    assert told["schema"] == "nndiag.run/1"
    assert told["script"] == "x.py"
    assert (told["ended"]["status"], told["ended"]["signal"]) == (3, None)
    assert "secret" not in text
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700


def test_a_watch_inside_a_watch_runs_the_script_and_says_so(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(sys.argv); sys.exit(8)")
    done = start((*WATCH, "--", *WATCH, name, "1"), tmp_path)

    assert (done.returncode, done.stdout) == (8, b"['x.py', '1']\n")
    assert done.stderr.count(b"already inside a watched run") == 1
    assert len(list((tmp_path / "nndiag-runs").glob("*/run.json"))) == 1


def test_under_a_launcher_we_become_the_script(tmp_path: Path) -> None:
    name = script(tmp_path, "import os, sys; print(os.getpid(), sys.argv); sys.exit(5)")
    ranks = []
    for rank in ("0", "1"):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **{"RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
        }
        ranks.append(
            subprocess.Popen(
                (*WATCH, name, "a"),
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    outputs = [rank.communicate(timeout=60) for rank in ranks]

    assert [rank.returncode for rank in ranks] == [5, 5]
    for rank, (out, _) in zip(ranks, outputs, strict=True):
        assert out == f"{rank.pid} ['x.py', 'a']\n".encode()
    assert [err.count(b"nndiag:") for _, err in outputs] == [1, 0]
    [shared] = (tmp_path / "nndiag-runs").glob("*/run.json")
    assert json.loads(shared.read_text())["script"] == "x.py"
