"""What the user asked to run -> the command to start, or a reason why it cannot be started.

    train.py --lr 3         -> python train.py --lr 3
    -m package.train        -> python -m package.train
    torchrun ... train.py   -> as given: anything that PATH knows

Nothing is run, written or imported here, so a mistake costs the user one line and no file.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndiag.errors import BadUsage, CannotStart

SCRIPT_SUFFIXES = (".py", ".pyw", ".pyc", ".pyz", ".zip")
_PYTHON = re.compile(r"(python|pypy)(\d+(\.\d+)?)?(\.exe)?$")
# Options of python that swallow the next argument.
_WITH_VALUE = {"-X", "-W", "--check-hash-based-pycs"}
# Flags that keep Python from seeing our bootstrap: -E and -I ignore PYTHONPATH, -S imports no site.
_BLINDING = "EIS"


@dataclass(frozen=True, slots=True)
class Command:
    """Something to start."""

    argv: tuple[str, ...]
    label: str  # as a person calls it: "train.py", "-m package.train"
    stem: str  # the same as part of a file name: "train", "package.train"
    blinded_by: str = ""  # the flag of python that will keep our bootstrap out: "-I"


def parse(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    asked_by: str = "nndiag watch",
) -> Command:
    """The command for what follows the options of `nndiag watch`, or of who else asks.

    Raises `BadUsage` for an option that is not ours, `CannotStart` for what is not there.
    """
    environment = os.environ if environment is None else environment
    if not arguments:
        raise BadUsage(
            where=asked_by, what="which script should be run?", do=f"{asked_by} train.py"
        )
    first, *others = arguments
    if first.startswith("-m") and not first.startswith("--"):
        return _module(first[2:], others, environment, asked_by)
    if first.startswith("-") and not os.path.exists(first):
        raise BadUsage(
            where=f"{asked_by} {first}",
            what="no such option",
            do=f"our options come before SCRIPT: {asked_by} --help",
        )
    if _is_script(first):
        return _script(first, others, environment)
    return _program(first, others, environment)


def _module(
    glued: str, others: list[str], environment: Mapping[str, str], asked_by: str
) -> Command:
    if glued:  # -mpackage.train
        others = [glued, *others]
    if not others:
        raise BadUsage(where=f"{asked_by} -m", what="needs the name of a module")
    argv = (*interpreter(environment), "-m", *others)
    return Command(argv, label=f"-m {others[0]}", stem=_file_name(others[0]))


def _is_script(path: str) -> bool:
    """Whether `path` is for Python to run; if not, it is a program."""
    if path.endswith(SCRIPT_SUFFIXES) or os.path.isdir(path):
        return True
    if not os.path.isfile(path):
        return False
    # A file without a suffix: a program if it can be executed, or if PATH has one of that name.
    return not os.access(path, os.X_OK) and (os.sep in path or shutil.which(path) is None)


def _script(path: str, others: list[str], environment: Mapping[str, str]) -> Command:
    if not os.path.exists(path):
        raise CannotStart(where=path, what="no such file")
    if os.path.isdir(path) and not os.path.isfile(os.path.join(path, "__main__.py")):
        raise CannotStart(where=path, what="is a directory without a __main__.py")
    if not os.access(path, os.R_OK):
        raise CannotStart(where=path, what="may not be read")
    return Command((*interpreter(environment), path, *others), label=path, stem=_stem(path))


def _program(name: str, others: list[str], environment: Mapping[str, str]) -> Command:
    if shutil.which(name, path=environment.get("PATH")) is None:
        do = "a script ends in .py, a program stands on PATH" if os.sep not in name else ""
        raise CannotStart(where=name, what="no such script or program", do=do)
    scripts = (a for a in others if a.endswith((".py", ".pyz")) and not a.startswith("-"))
    script = next(scripts, "")
    blinded_by = ""
    if _PYTHON.match(os.path.basename(name)):
        flags, rest = _own_flags(others)
        blinded_by = _blinding(flags)
        if rest[:1] == ["-m"] and len(rest) > 1:
            return Command((name, *others), f"-m {rest[1]}", _file_name(rest[1]), blinded_by)
        script = rest[0] if rest and not rest[0].startswith("-") else ""
        if script and not os.path.exists(script):
            raise CannotStart(where=script, what="no such file")
    return Command((name, *others), script or name, _stem(script or name), blinded_by)


def _own_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that python itself takes, and what comes after them."""
    flags, rest = [], list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "-m", "-c"):
        flags.append(rest.pop(0))
        if flags[-1] in _WITH_VALUE and rest:
            flags.append(rest.pop(0))
    return flags, rest


def _blinding(flags: Sequence[str]) -> str:
    """The option among `flags` that keeps our bootstrap out; empty if none does."""
    for flag in flags:
        letters = flag[1:] if re.fullmatch("-[A-Za-z?]+", flag) and flag[1] not in "XW" else ""
        if hit := next((letter for letter in letters if letter in _BLINDING), ""):
            return f"-{hit}"
    return ""


def interpreter(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The Python that runs a script, with the flags that ours was started with.

    Ours where it has torch; else that of the active environment or of PATH, if that has torch: so a
    tool that was installed on its own (uvx, pipx) can watch a project.
    """
    ours = (sys.executable, *_inherited_flags())
    if finds_torch(sys.executable):
        return ours
    for candidate in _other_pythons(environment):
        if finds_torch(candidate):
            return (candidate,)
    return ours


def finds_torch(python: str) -> bool:
    """Whether that Python has torch. Nothing is imported; another than ours is asked."""
    if python == sys.executable:
        return _we_have_torch()
    asks = (
        "import importlib.util as u, sys; s = u.find_spec('torch'); sys.exit(not (s and s.origin))"
    )
    try:
        done = subprocess.run([python, "-c", asks], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _inherited_flags() -> list[str]:
    """`python -W error -m nndiag watch x.py` means that for x.py too; but not what blinds us.

    Only with -m: the options in the first line of an installed `nndiag` were not the user's choice.
    """
    flags, rest = _own_flags(sys.orig_argv[1:])
    if rest[:1] != ["-m"]:
        return []
    return [flag for flag in flags if not _blinding([flag])]


def _we_have_torch() -> bool:
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None  # a folder of that name has no origin


def _other_pythons(environment: Mapping[str, str]) -> list[str]:
    found = []
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if folder := environment.get(variable):
            found.append(os.path.join(folder, "bin", "python"))
    for name in ("python", "python3"):
        if path := shutil.which(name, path=environment.get("PATH")):
            found.append(path)
    usable = [path for path in dict.fromkeys(found) if os.access(path, os.X_OK)]
    return [path for path in usable if path != sys.executable]


def _stem(path: str) -> str:
    name = Path(path).name or Path(path).resolve().name
    return _file_name(name.removesuffix(Path(name).suffix) or name)


def _file_name(text: str) -> str:
    """`text` as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "run"
