"""Runs at the start of every Python process under `nndiag watch`, before the user's script.

The folder of this file stands first on PYTHONPATH, so Python's own `site` imports it. It must be
invisible: it takes itself off `sys.path`, runs the `sitecustomize` that it hides, imports nothing
that the script could want to shadow, and only waits for torch. Without NNDIAG_RUN it does nothing.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _run_the_hidden_sitecustomize():
    """Import the sitecustomize that ours stands in front of, if there is one."""
    ours = sys.modules.pop("sitecustomize", None)
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


class _AfterImport:
    """A meta-path finder that calls back when one of the awaited modules has been executed."""

    def __init__(self):
        self.awaited = {"torch": _attach}

    def find_spec(self, name, path=None, target=None):
        callback = self.awaited.get(name)
        if callback is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    del self.awaited[name]
                    spec.loader = _Loader(spec.loader, callback)
                return spec
        return None


class _Loader:
    """The module's own loader; says when it is done, and leaves no trace on the module."""

    def __init__(self, loader, callback):
        self._loader = loader
        self._callback = callback

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        try:
            self._callback(module)
        except Exception as error:  # whatever is wrong with us is not the script's business
            _give_up(_text_of(error))


def _attach(torch):
    """torch is there: load nndiag from beside this file, whatever the environment, and start.

    A script may have a module `nndiag` of its own: then ours leaves that name to it.
    """
    package = os.path.dirname(os.path.dirname(HERE))
    home = os.path.join(package, "__init__.py")
    loaded = _named_nndiag()
    if "nndiag" in loaded and getattr(loaded["nndiag"], "__file__", None) == home:
        _start(torch)
        return
    _forget(loaded)
    try:
        _load(home)
        _start(torch)
    finally:
        if loaded or _script_has_its_own(home):
            _forget(_named_nndiag())
            sys.modules.update(loaded)


def _load(home):
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "nndiag", home, submodule_search_locations=[os.path.dirname(home)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["nndiag"] = module
    spec.loader.exec_module(module)


def _start(torch):
    from nndiag.watcher import session

    session.start(torch, _finder.awaited)


def _named_nndiag():
    return {n: m for n, m in sys.modules.items() if n == "nndiag" or n.startswith("nndiag.")}


def _forget(modules):
    for name in modules:
        del sys.modules[name]


def _script_has_its_own(home):
    """Whether `import nndiag` would find something that is not ours, beside the script, say."""
    from importlib.machinery import PathFinder

    found = PathFinder.find_spec("nndiag")
    return found is not None and found.origin != home


def _text_of(error):
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:
        return type(error).__name__


def _give_up(reason):
    """Leave the reason where the supervisor finds it."""
    try:
        path = os.path.join(os.environ["NNDIAG_RUN"], f"failed-{os.getpid()}")
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(file, reason.encode("utf-8", "replace"))
        finally:
            os.close(file)
    except Exception:  # nowhere to say it
        pass


# importlib takes its own frames out of the traceback of a failed import, so ours goes with them.
_code = _Loader.exec_module.__code__
_Loader.exec_module.__code__ = _code.replace(co_filename="<frozen importlib._bootstrap>")

sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder or ".") != HERE]
_finder = _AfterImport()
if os.environ.get("NNDIAG_RUN") and os.environ.get("NNDIAG") != "0":
    sys.meta_path.insert(0, _finder)
_run_the_hidden_sitecustomize()  # last: whatever it does or raises, the script is watched
