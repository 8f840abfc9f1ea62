"""
Stands in for a module that the library's source distribution leaves out: runs a function on several processes of this
machine's CPU, as the library's distributed tests ask for it.
"""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _get_distributed_backend() -> str:
    return "gloo"


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    """A CPU process has no device to choose."""


def _start_rank_processes(function, args: tuple, nprocs: int) -> None:
    """Run `function(rank, *args)` on `nprocs` processes, and raise what any of them raises."""
    mp.spawn(function, args=args, nprocs=nprocs, join=True)


def run_distributed(world_size: int):
    """`run_distributed(2)(function)(*args)` runs `function(rank, *args)` in a process group of that many."""

    def decorate(function):
        def run(*args) -> None:
            # The store stays open while the processes start, so that nothing else takes its port
            store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            mp.spawn(_in_group, args=(world_size, store.port, function, args), nprocs=world_size, join=True)

        return run

    return decorate


def _in_group(rank: int, world_size: int, port: int, function, args: tuple) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("localhost", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
        dist.barrier()
    finally:
        dist.destroy_process_group()
