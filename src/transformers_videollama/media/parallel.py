"""Several items at once."""

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Any

import torch


__all__ = ["in_parallel"]


def in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> list:
    """
    Calls `call` for each item and returns the results in the order of the items. If several calls fail, the exception
    of the first of these items is raised.

    Decoders and downloads leave Python's lock alone. There are as many threads as torch computes with; a worker
    process of a `DataLoader` has one.
    """
    items = list(items)
    workers = min(len(items), torch.get_num_threads())
    if workers < 2:
        return [call(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, items))
