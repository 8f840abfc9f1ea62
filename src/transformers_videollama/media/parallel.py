"""Several items at once."""

import concurrent.futures
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


__all__ = ["in_parallel", "num_threads"]


def num_threads() -> int:
    """As many as torch computes with, which is not imported for that: a worker needs it for nothing else."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or os.cpu_count() or 1)


def in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> list:
    """
    Calls `call` for each item and returns the results in the order of the items. If several calls fail, the exception
    of the first of these items is raised.

    Decoders and downloads leave Python's lock alone. There are as many threads as torch computes with; a worker
    process of a `DataLoader` has one.
    """
    items = list(items)
    workers = min(len(items), num_threads())
    if workers < 2:
        return [call(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, items))
