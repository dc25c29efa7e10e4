"""Two ranks of one training as forks of a process that has torch already.

It does what torchrun does, without its seconds of start-up. The zygote of `tests.adapters` runs it
unwatched; each rank is watched by itself.

    ranks.py SCRIPT VARIANTS

VARIANTS is a list of {"output": folder, "run": run directory or null, "every": ...} as JSON; they
run one after the other. Rank K prints to OUTPUT/stdout-K and stderr-K, their exit statuses to here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

import torch
import torch.distributed.fsdp  # seconds, in each fork
import torch.distributed.tensor

WORLD = 2
LIMIT_S = 60  # ranks that wait for each other for ever end a test, not the suite


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def become_rank(rank: int, port: int, variant: dict[str, Any]) -> None:
    """What torchrun sets, and what our bootstrap does once torch is there."""
    signal.alarm(LIMIT_S)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo"}
    for name, number in (("stdout", 1), ("stderr", 2)):
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        os.dup2(os.open(os.path.join(variant["output"], f"{name}-{rank}"), flags, 0o600), number)
    if variant["run"]:
        os.environ["NNDIAG_RUN"] = variant["run"]
        os.environ["NNDIAG_SETTINGS"] = json.dumps({"every": variant["every"]})
        from nndiag.watcher import session

        session.start(torch, {})


def launch(script: str, variants: list[dict[str, Any]]) -> None:
    for variant in variants:
        port, children = free_port(), []
        for rank in range(WORLD):
            pid = os.fork()
            if pid == 0:
                become_rank(rank, port, variant)
                main = sys.modules["__main__"].__dict__
                main["__file__"], sys.argv = script, [script]
                with open(script, encoding="utf-8") as file:
                    exec(compile(file.read(), script, "exec"), main)
                return
            children.append(pid)
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(json.dumps(ended), flush=True)


launch(sys.argv[1], json.loads(sys.argv[2]))
