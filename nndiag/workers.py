"""Many pieces of work in several processes, where a death or a hang costs only its own piece.

Not `concurrent.futures`, nor processes of `multiprocessing`: one child that the system kills would
take all the pieces under way with it, none could be given up for taking too long, and each child
would run the caller's `__main__` anew, so that a script which calls us without a guard would start
itself again. Here the parent knows what each child works on. A child is a plain interpreter that is
handed the function and then piece after piece, pickled, over a socket; when the socket closes it
ends at once, so that none outlives its parent, whatever ends that.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

START_S = 60.0  # until a child says that it is ready; on a slow network disk that can take ten
END_S = 1.0  # for a child that has closed its socket to be gone
# One process for each core: the threads of a linear algebra library would only be in the way.
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
# -I: neither the working directory nor the environment decides what a child imports, we do.
_ISOLATED = ("-I", "-X", f"utf8={sys.flags.utf8_mode}")
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from nndiag import workers; "
_BOOT += "workers.serve(int(sys.argv[2]))"


@dataclass(frozen=True, slots=True)
class Lost:
    """A piece of work that has no result, and why."""

    why: str  # "was killed by SIGSEGV"
    too_slow: bool = False


class NoWorkers(Exception):
    """Not one child could be started: the caller has to do the work itself."""


def cores() -> int:
    """Processor cores that this process may use."""
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(
    work: Callable[[Any], object], pieces: Sequence[object], *, jobs: int, limit_s: float | None
) -> Generator[tuple[int, Any], None, None]:
    """(index of a piece, `work(piece)` or `Lost`), as they come. Closing the iterator ends all.

    `work` and the pieces are pickled, and `work` must be importable in a child. A piece whose child
    died is tried once more, alone: what ran beside it may have taken the memory that it lacked.
    One that takes longer than `limit_s` seconds is given up.

    Raises:
        NoWorkers: no child can be started; nothing was yielded before.
    """
    with contextlib.closing(_Pool(pickle.dumps(work), pieces, limit_s)) as pool:
        yield from pool.run(range(len(pieces)), jobs)
        for index in sorted(pool.died):
            pool.close()
            yield from pool.run([index], 1, again=True)


class _Child:
    """An interpreter that waits for pieces, or works on one."""

    def __init__(self, work: bytes) -> None:
        ours, its = socket.socketpair()
        with ours, its:
            self.process = subprocess.Popen(
                [sys.executable, *_ISOLATED, "-c", _BOOT, json.dumps(sys.path), str(its.fileno())],
                pass_fds=[its.fileno()],
                env={**os.environ, **_ONE_THREAD},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the parent, which ends its children
            )
            self.connection: Connection[Any, Any] = Connection(ours.detach())
        self.ready = False
        self.piece: int | None = None  # what it works on
        self.deadline = time.monotonic() + START_S
        self.tell(work)

    def tell(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone: that is heard when its answer is read
            self.connection.send_bytes(message)

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def ending(self) -> str:
        """How a child ended that has closed its socket."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(END_S)
        self.kill()
        status = self.process.returncode
        if status >= 0:
            return f"ended with status {status}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return f"was killed by {name}{hint}"
        return f"was killed by signal {-status}"


class _Pool:
    def __init__(self, work: bytes, pieces: Sequence[object], limit_s: float | None) -> None:
        self.died: list[int] = []  # pieces whose child died, to be tried again
        self._work = work
        self._pieces = pieces
        self._limit_s = limit_s or float("inf")
        self._children: list[_Child] = []
        self._proven = False  # some child has started

    def run(
        self, indices: Sequence[int], jobs: int, again: bool = False
    ) -> Iterator[tuple[int, Any]]:
        waiting = deque(indices)
        while waiting or self._busy():
            self._fill(min(jobs, len(waiting) + self._busy()))
            for child in self._heard():
                index = child.piece
                try:
                    answer = child.connection.recv_bytes()
                except (EOFError, OSError):
                    self._children.remove(child)
                    why = child.ending()
                    if not child.ready and not self._proven:
                        raise NoWorkers(why) from None
                    if index is not None and again:
                        yield index, Lost(why)
                    elif index is not None:
                        self.died.append(index)
                    continue
                child.piece, child.ready, self._proven = None, True, True
                if index is not None:
                    yield index, pickle.loads(answer)
            yield from self._late()
            self._hand_out(waiting)

    def close(self) -> None:
        while self._children:
            self._children.pop().kill()

    def _busy(self) -> int:
        return sum(child.piece is not None for child in self._children)

    def _fill(self, jobs: int) -> None:
        """Start children until there are `jobs`, or as many as the system gives."""
        while len(self._children) < jobs:
            try:
                self._children.append(_Child(self._work))
            except OSError as error:
                if self._children:
                    return
                raise NoWorkers(str(error)) from None

    def _heard(self) -> list[_Child]:
        """Children that have said something or have died; none when one is late."""
        nearest = min(child.deadline for child in self._children if self._is_awaited(child))
        patience = min(max(0.0, nearest - time.monotonic()), START_S)
        heard = wait([child.connection for child in self._children], patience)
        return [child for child in self._children if child.connection in heard]

    @staticmethod
    def _is_awaited(child: _Child) -> bool:
        return not child.ready or child.piece is not None

    def _late(self) -> Iterator[tuple[int, Lost]]:
        """Kill those whose time is up."""
        now = time.monotonic()
        for child in [c for c in self._children if self._is_awaited(c) and c.deadline < now]:
            child.kill()
            self._children.remove(child)
            if child.piece is not None:
                yield child.piece, Lost(f"took longer than {self._limit_s:g} s", too_slow=True)
            elif not self._proven:
                raise NoWorkers("it does not start")

    def _hand_out(self, waiting: deque[int]) -> None:
        for child in self._children:
            if waiting and child.ready and child.piece is None:
                child.piece = waiting.popleft()
                child.deadline = time.monotonic() + self._limit_s
                child.tell(pickle.dumps(self._pieces[child.piece]))


def serve(descriptor: int) -> NoReturn:
    """What a child does: take the work, then piece after piece, until the socket closes."""
    connection: Connection[Any, Any] = Connection(descriptor)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)  # nobody waits for an answer any more, also in the middle of a piece

    threading.Thread(target=listen, daemon=True).start()
    work = pickle.loads(inbox.get())
    connection.send_bytes(b"")  # ready
    while True:
        connection.send_bytes(pickle.dumps(work(pickle.loads(inbox.get()))))
