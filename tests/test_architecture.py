"""The house of the design: who may import whom, and what is never loaded where.

Imports are read from the source, those inside functions included, so that a lazy import is no way
around the table. What is only for type checkers (`if TYPE_CHECKING`) is no import.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nndiag"

# unit -> what of ours it may import. A unit is a folder or a module directly under nndiag/.
# A unit may always import itself, the package's version, and what stands before the colon of the
# exceptions below.
ALLOWED = {
    "__init__": {"analysis", "assertions", "errors", "inprocess", "records", "settings"},
    "__main__": {"cli"},
    "records": set(),
    "errors": set(),
    "vocabulary": set(),
    "settings": {"errors"},
    "curves": {"records"},
    "detectors": {"curves", "records", "errors"},
    "remedies": {"detectors.base", "curves", "records"},
    "diagnosis": {"detectors.base", "remedies", "records"},
    "journal": {"records", "errors", "vocabulary"},
    "readers": {"journal", "records", "errors", "vocabulary"},
    "adapters": {"records", "vocabulary"},
    "attribution": {"records", "errors", "journal", "vocabulary"},
    "watcher": {"adapters", "journal", "records", "errors", "vocabulary"},
    "reports": {
        *("records", "errors", "gate", "fingerprint", "comparison.facts", "preflight.check"),
        "thinning",  # the HTML page draws every series of a run, and has to stay small
    },
    "comparison": {"curves", "records", "fingerprint"},
    # Findings are told as the JSON report and the mirror of a living run tell them, and event files
    # have the reader's checksum.
    "exports": {
        *("records", "errors", "reports.json_report"),
        *("readers.tensorboard.crc32c", "watcher.wandb_findings"),
    },
    "preflight": {"detectors", "diagnosis", "curves", "records"},
    "fingerprint": {"records"},
    "gate": {"records", "settings"},
    "baseline": {
        *("curves", "records", "errors", "fingerprint"),
        "detectors.outside_baseline",  # it says how a run stands to the band
    },
    # The way of `analyze`, callable from Python: reads, judges, shows nothing.
    "analysis": {
        *("readers", "detectors", "diagnosis", "settings", "records", "errors"),
        *("outline", "workers"),
    },
    # The same for a part of a program: records, reads and judges it.
    "inprocess": {"analysis", "errors", "gate", "records", "reports", "settings", "watcher"},
    "assertions": {"errors"},
    "pytest_plugin": {"inprocess", "errors"},
    "outline": {"records", "thinning"},
    "thinning": {"records"},  # fewer points of a series: for outlines and for pages
    "workers": set(),  # knows processes and nothing of what they work on
    "demo": set(),  # a training script like any other: it knows nothing of us
    "cli": {"*"},
}

# unit -> libraries it may import; `module: library` where only one module of the unit may.
LIBRARIES = {
    "records": {"numpy"},
    "curves": {"numpy"},
    "detectors": {"numpy"},
    "remedies": {"numpy"},
    "baseline": {"numpy"},
    "comparison": {"numpy"},
    "preflight": {"numpy"},
    "diagnosis": {"numpy"},
    "journal": {"numpy"},
    # `compression` is Python's own from 3.14 on
    "readers": {
        "numpy",
        "polars_table: polars",
        "zstd: compression",
        "zstd: zstandard",
        "zstd: pyarrow",
    },
    "reports": {
        *("numpy", "terminal: rich", "progress: rich", "attribution_png: matplotlib"),
        *("html_page: jinja2", "html_page: markupsafe", "html: markupsafe"),
    },
    "attribution": {"torch", "methods: captum"},
    "outline": {"numpy"},
    "thinning": {"numpy"},
    "settings": {"tomllib", "tomli"},
    "watcher": {"live: rich", "bootstrap: torch", "session: torch"},
    "adapters": {"pytorch: torch"},
    "exports": {"numpy", "parquet: pyarrow", "wandb_run: wandb"},
    "demo": {"torch"},
    "inprocess": {"torch"},
    "assertions": {"torch"},
    "pytest_plugin": {"pytest"},
    "cli": {"typer"},
}

IN_PROCESS = "nndiag.watcher.session"  # what the bootstrap loads into the training process
HEAVY = {"torch", "jax", "keras", "tensorflow", "rich", "typer", "wandb", "captum", "pyarrow"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, package: str = "") -> Iterator[str]:
    """Dotted names that a source imports, wherever in it; `from a import b` gives `a.b`."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], base]).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)
        else:
            pending += ast.iter_child_nodes(node)


def package_of(name: str, path: Path) -> str:
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def imports_of(name: str, path: Path) -> list[str]:
    return list(imports(path.read_text(encoding="utf-8"), package_of(name, path)))


def unit(name: str) -> str:
    """`nndiag.watcher.session` -> `watcher`; `nndiag` itself -> `__init__`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def of_ours(imported: str, known: dict[str, Path]) -> str | None:
    """The module of ours that an imported name lives in; None for somebody else's."""
    if imported.partition(".")[0] != "nndiag":
        return None
    while imported not in known and "." in imported:
        imported = imported.rpartition(".")[0]
    return imported


def wrong_imports(name: str, imported: list[str], known: dict[str, Path]) -> list[str]:
    """What a module imports against the tables."""
    allowed, wrong = ALLOWED[unit(name)], []
    for one in imported:
        target = of_ours(one, known)
        if target is None:
            wrong += [] if library_allowed(name, one) else [one]
        elif target != "nndiag" and unit(target) != unit(name) and "*" not in allowed:
            short = target.removeprefix("nndiag.")
            if not any(short == a or short.startswith(f"{a}.") for a in allowed):
                wrong.append(one)
    return wrong


def library_allowed(name: str, imported: str) -> bool:
    library = imported.partition(".")[0]
    if library in sys.stdlib_module_names or library == "__future__":
        return True
    permits = LIBRARIES.get(unit(name), set())
    return library in permits or any(
        permit == f"{part}: {library}" for permit in permits for part in name.split(".")
    )


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_to_the_records(name: str) -> None:
    known = modules()

    assert wrong_imports(name, imports_of(name, known[name]), known) == []


def test_the_import_check_can_fail() -> None:
    known = modules()
    source = (
        "import torch\n"
        "from nndiag import reports\n"
        "def late():\n    from nndiag.readers.base import Reader\n    import rich.console\n"
        "from . import records\n"
        "import nndiag.curves.robust\n"
    )

    imported = list(imports(source, "nndiag"))
    wrong = wrong_imports("nndiag.diagnosis", imported, known)

    assert sorted(wrong) == [
        "nndiag.curves.robust",
        "nndiag.readers.base.Reader",
        "nndiag.reports",
        "rich.console",
        "torch",
    ]


def is_detector(path: Path) -> bool:
    """Whether a module of detectors/ holds a fault: a class with a `name` in it."""
    return any(
        isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "name"
        for top in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(top, ast.ClassDef)
        for node in top.body
    )


def test_no_detector_knows_another() -> None:
    known = modules()
    detectors = {n for n, p in known.items() if unit(n) == "detectors" and is_detector(p)}

    assert len(detectors) >= 18
    for name in detectors:
        others = {of_ours(one, known) for one in imports_of(name, known[name])} & detectors
        assert others == set(), name


def closure(start: str, known: dict[str, Path]) -> set[str]:
    """A module with all of ours that it can come to import, packages on the way included."""
    seen: set[str] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        pending += [name.rpartition(".")[0]] * ("." in name)
        targets = (of_ours(one, known) for one in imports_of(name, known[name]))
        pending += [target for target in targets if target is not None]
    return seen


def test_in_the_training_process_there_is_only_the_standard_library_and_torch() -> None:
    known = modules()
    inside = closure(IN_PROCESS, known)
    inside |= {name for name in known if name.startswith("nndiag.watcher.bootstrap.")}

    foreign = {
        (name, one)
        for name in inside
        for one in imports_of(name, known[name])
        if of_ours(one, known) is None
        and one.partition(".")[0] not in {*sys.stdlib_module_names, "__future__", "torch"}
    }

    assert "nndiag.adapters.pytorch.module_hooks" in inside  # the walk goes through lazy imports
    assert foreign == set()


def test_the_check_of_the_training_process_can_fail() -> None:
    assert "nndiag.records" in closure("nndiag.diagnosis", modules())  # and records need numpy


def loaded_by(program: str) -> set[str]:
    """Top-level names of all modules that a program has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.partition(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}


def test_diagnosing_a_log_loads_no_framework_and_no_terminal() -> None:
    loaded = loaded_by("import nndiag.diagnosis, nndiag.detectors.catalogue, nndiag.analysis")

    assert "numpy" in loaded
    assert HEAVY & loaded == set()


def test_importing_nndiag_loads_nothing_but_the_standard_library() -> None:
    loaded = loaded_by("import nndiag; assert nndiag.__version__")

    assert {"numpy", *HEAVY} & loaded == set()


def test_help_loads_neither_torch_nor_numpy_nor_rich() -> None:
    loaded = loaded_by("from nndiag.cli.app import main; assert main(['--help']) == 0")

    assert "typer" in loaded
    assert {"torch", "numpy", "rich"} & loaded == set()


def test_the_check_of_loaded_modules_can_fail() -> None:
    assert {"rich", "numpy"} <= loaded_by("import numpy, rich")


def seconds(work: Callable[[], object]) -> float:
    """The best of three: how fast it can be, not how busy the machine is."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(once() for _ in range(3))


def python(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT
    )


def test_help_comes_at_once() -> None:
    """0.8 s is what is promised. On a machine so busy that Python alone is slow, its own start is
    the measure instead: help takes about eight times as long."""
    bare = seconds(python("-c", "pass"))
    limit = max(0.8, 20 * bare)

    assert seconds(python("-m", "nndiag", "--help")) < limit
    assert seconds(python("-c", f"import time; time.sleep({limit})")) > limit  # it can fail
