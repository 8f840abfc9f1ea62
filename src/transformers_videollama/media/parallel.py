"""Several items at once."""

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Any

import torch


__all__ = ["in_parallel"]


def in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> list:
    """
    What `call` returns for each item, in their order; where several fail, the first one's exception is raised.

    Decoders and downloads leave Python's lock alone. There are as many threads as torch computes with, of which a
    worker process of a `DataLoader` has one.
    """
    items = list(items)
    workers = min(len(items), torch.get_num_threads())
    if workers < 2:
        return [call(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, items))
