"""Seconds, bytes and rates; and what the machine reaches at best, measured in the same run."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode


__all__ = [
    "Memory",
    "Options",
    "Timing",
    "about_machine",
    "copy_rate",
    "difference",
    "flops_of",
    "forget_peak",
    "matrix_rate",
    "memory_of",
    "peak_gib",
    "seconds_of",
    "vector_rate",
]

# What changes the times of an accelerator, if it is installed
ACCELERATING = ("bitsandbytes", "flash-attn", "flash-attn-3", "flash-attn-4", "torchao")


@dataclass(frozen=True)
class Options:
    """What all suites take: see `python -m benchmarks --help`."""

    size: str
    device: torch.device
    dtype: torch.dtype
    repeats: int


@dataclass(frozen=True)
class Timing:
    """
    Seconds of `repeats` calls behind a first one that does not count. `core_s`, where they were measured, are those of
    all cores together, which other processes of the machine hardly change.
    """

    median_s: float
    min_s: float
    max_s: float
    core_s: float | None
    repeats: int

    def __str__(self) -> str:
        return f"{self.median_s:.3g} ({self.min_s:.3g} to {self.max_s:.3g})"

    @classmethod
    def of(cls, seconds: list[float], core_seconds: list[float] | None = None) -> "Timing":
        cores = None if core_seconds is None else statistics.median(core_seconds)
        return cls(statistics.median(seconds), min(seconds), max(seconds), cores, len(seconds))


def seconds_of(call: Callable[[], Any], repeats: int, device: torch.device | None = None) -> Timing:
    """Calls once for nothing, and then `repeats` times."""
    call()
    seconds, core_seconds = [], []
    for _ in range(repeats):
        wait_for(device)
        started, started_cores = time.perf_counter(), time.process_time()
        call()
        wait_for(device)
        seconds.append(time.perf_counter() - started)
        core_seconds.append(time.process_time() - started_cores)
    return Timing.of(seconds, core_seconds)


def wait_for(device: torch.device | None) -> None:
    """Until an accelerator has done what it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Memory:
    """MiB of a process: resident before a call, and how many more at most during it; and the seconds it took."""

    before_mib: float
    more_mib: float
    seconds: float


def memory_of(preparation: str, call: str) -> Memory:
    """Runs two pieces of Python in a process of their own, of which the second is measured."""
    script = f"""
import ctypes, gc, json, pathlib, time
def mib(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition(name + ":")[2].split()[0]) / 1024
{preparation}
gc.collect()
ctypes.CDLL(None).malloc_trim(0)  # what was freed would be used again, and not be counted
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before, started = mib("VmRSS"), time.perf_counter()
{call}
seconds = time.perf_counter() - started
print(json.dumps([before, mib("VmHWM") - before, seconds]))
"""
    result = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return Memory(*json.loads(result.stdout.splitlines()[-1]))


def flops_of(call: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products (and convolutions, attention) of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Length of the difference of two tensors, as a share of the length of what is expected."""
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())


def forget_peak(device: torch.device) -> None:
    """What `peak_gib` counts begins here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """GiB of an accelerator that tensors took at most, weights included; `None` on a CPU, where nobody counts them."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def matrix_rate(options: Options) -> float:
    """FLOP/s of a product of two large square matrices, the best of `repeats`."""
    # The tiny size is there to try a suite
    side = 8192 if options.device.type == "cuda" else 512 if options.size == "tiny" else 3072
    left, right = (torch.randn(side, side, device=options.device, dtype=options.dtype) for _ in range(2))
    timing = seconds_of(lambda: left @ right, options.repeats, options.device)
    return 2 * side**3 / timing.min_s


def copy_rate(options: Options) -> float:
    """Bytes/s that are moved, read or written, when a large tensor is copied, the best of `repeats`."""
    # Not of zeros, whose pages are all the same one until they are written
    source = torch.ones(1 << (31 if options.device.type == "cuda" else 29), dtype=torch.uint8, device=options.device)
    target = torch.ones_like(source)
    timing = seconds_of(lambda: target.copy_(source), options.repeats, options.device)
    return 2 * source.nbytes / timing.min_s


def vector_rate(options: Options) -> float:
    """Bytes/s of weights that vectors are multiplied with, one after another, the best of `repeats`."""
    matrices = torch.randn(16, 4096, 4096, device=options.device, dtype=options.dtype)
    vector = torch.randn(1, 4096, device=options.device, dtype=options.dtype)

    def multiply() -> None:
        for matrix in matrices:
            torch.nn.functional.linear(vector, matrix)

    return matrices.nbytes / seconds_of(multiply, options.repeats, options.device).min_s


def about_machine(options: Options) -> dict[str, Any]:
    accelerator = torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else None
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads",
        "accelerator": accelerator,
        "load_average": round(os.getloadavg()[1], 1),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **(_accelerating_versions() if accelerator else {}),
        },
    }


def _accelerating_versions() -> dict[str, str]:
    versions = {"cuda": str(torch.version.cuda)}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        versions["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.partition("\n")[0]
    for package in ACCELERATING:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "none"
    return versions
