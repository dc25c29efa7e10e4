"""Which rank this process is, and which part of a sharded tensor it holds.

Nothing here talks to another rank. Of a DTensor only the local tensor is read, and what it says of
its layout; any operation on the DTensor itself could be a collective. So numbers of shards are
recorded as shares: the squares of all ranks add up to the square of the whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (Tensor, nn.Parameter)


def rank_and_world() -> tuple[int, int] | None:
    """Our rank and how many there are, as the script's process group has it; None without one."""
    group: Any = torch.distributed
    if not group.is_available() or not group.is_initialized():
        return None
    return int(group.get_rank()), int(group.get_world_size())


def is_distributed(tensor: object) -> bool:
    """Whether it is a DTensor, or a kin of it: cut into shards, or the same on all ranks."""
    return type(tensor) not in PLAIN and hasattr(tensor, "_local_tensor")


def local(tensor: Any) -> Tensor:
    """This rank's part of a tensor: what lies in its memory."""
    if type(tensor) in PLAIN:  # hundreds a step: `unseen` keeps autograd away
        return tensor  # type: ignore[no-any-return]
    part: Tensor = getattr(tensor, "_local_tensor", tensor)
    return part.detach()


def is_partial(tensor: object) -> bool:
    """Whether the ranks hold summands of the tensor, which say nothing one by one."""
    if type(tensor) in PLAIN:
        return False
    return any(placement.is_partial() for placement in getattr(tensor, "placements", ()))


def whole(tensor: Any) -> Tensor | None:
    """The tensor itself, if this rank has all of it without asking another."""
    if not is_distributed(tensor):
        return tensor  # type: ignore[no-any-return]
    complete = all(placement.is_replicate() for placement in tensor.placements)
    return local(tensor) if complete else None


def shards_of(tensor: Any) -> int:
    """Into how many parts a tensor is cut; 1 where each rank has all of it."""
    shards = 1
    if is_distributed(tensor):
        for dimension, placement in enumerate(tensor.placements):
            if not placement.is_replicate() and not placement.is_partial():
                shards *= int(tensor.device_mesh.size(dimension))
    return shards


def flat_shards(module: nn.Module | None) -> int:
    """Into how many parts the first FSDP cuts what it wraps; 1 for any other module.

    Its parameters look like any others: each rank's are of another shape, some of them empty.
    """
    if module is None or type(module).__name__ != "FullyShardedDataParallel":
        return 1
    if getattr(getattr(module, "sharding_strategy", None), "name", "") == "NO_SHARD":
        return 1
    group = getattr(module, "process_group", None)
    return int(group.size()) if group is not None else 1


def share_of_norm(shards: int) -> float:
    """What to multiply the norm of a part by, so that the squares of all ranks add up exactly.

    A part that several ranks hold counts once, not once for each of them.
    """
    place = rank_and_world()
    return 1.0 if place is None or shards >= place[1] else float((shards / place[1]) ** 0.5)


def kind_of(module: nn.Module) -> str:
    """The class of a module as the script named it: `fully_shard` makes FSDPLinear of Linear."""
    kind = type(module)
    names = [base.__name__ for base in kind.__mro__[:3]]
    if len(names) == 3 and names[1] == "FSDPModule" and names[0] == f"FSDP{names[2]}":
        return names[2]
    return kind.__name__
