"""Who started us: a person, or a launcher that started one of us for each rank."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping


def launcher_of(environment: Mapping[str, str]) -> str:
    """The launcher that owns this process as one of its ranks; empty where there is none."""
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return "a launcher"
    # Slurm and Open MPI give a single process a rank too; that one may have its report.
    if "SLURM_PROCID" in environment and _many(environment, "SLURM_STEP_NUM_TASKS"):
        return "srun"
    if "OMPI_COMM_WORLD_RANK" in environment and _many(environment, "OMPI_COMM_WORLD_SIZE"):
        return "mpirun"
    return ""


def rank_of(environment: Mapping[str, str]) -> int:
    """Our number among the ranks; 0 where nobody says."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return 0


def shared_run_name(stem: str, environment: Mapping[str, str]) -> str:
    """A name for the run directory that every rank finds alone, and that the next run does not.

    On one machine the launcher itself tells runs apart: it is our parent, by its process id and the
    time it was started. Over several machines only the launcher's own name of the job is shared.
    """
    world = environment.get("WORLD_SIZE", "")
    parts = [stem]
    if world and world != environment.get("LOCAL_WORLD_SIZE", world):
        run_id = environment.get("TORCHELASTIC_RUN_ID", "none")
        job = [environment.get("SLURM_JOB_ID"), run_id if run_id != "none" else None]
        parts += [part for part in job if part] or [environment.get("MASTER_ADDR", "")]
        parts.append(environment.get("MASTER_PORT", ""))
    elif "SLURM_JOB_ID" in environment and "TORCHELASTIC_RUN_ID" not in environment:
        parts += [environment["SLURM_JOB_ID"], environment.get("SLURM_STEP_ID", "")]
    else:
        parent = os.getppid()
        parts += [str(parent), _start_of(parent)]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part) for part in parts if part)


def _many(environment: Mapping[str, str], name: str) -> bool:
    number = environment.get(name, "")
    return number.isdecimal() and int(number) > 1


def _start_of(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty where nobody says."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()  # field 22 of proc(5)
    except (OSError, IndexError):
        return ""
