"""How this process was started: alone, or by torchrun as one of several that train together.

It knows no torch, so that a command line which trains nothing need not load it.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The number of this process among all (`rank`) and among those of its machine (`local_rank`), from 0."""

    rank: int = 0
    local_rank: int = 0
    processes: int = 1
    local_processes: int = 1


def launched() -> Launch:
    """What torchrun tells in the environment.

    Other programs set some of these variables for purposes of their own: without torchrun they tell nothing.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Launch()
    names = {
        "rank": "RANK",
        "local_rank": "LOCAL_RANK",
        "processes": "WORLD_SIZE",
        "local_processes": "LOCAL_WORLD_SIZE",
    }
    return Launch(**{field: int(os.environ[name]) for field, name in names.items()})
