"""Writing: tensors are converted one by one and written shard by shard; a folder appears complete or not at all."""

import errno
import json
import shutil
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tqdm import tqdm

from .checkpoints import Checkpoint
from .errors import ConversionError
from .plan import Entry, Plan


__all__ = ["check_space", "write_weights"]

MADE_BEFORE_PAGES_ARE_FORGOTTEN = 256 << 20  # bytes; of float32 files for half precision, twice as many have been read


def check_space(output: Path, needed: int) -> None:
    """
    Raises:
        OSError: if the disk has no room for `needed` bytes: at once, instead of after an hour of writing.
    """
    existing = next(folder for folder in output.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free", str(existing))


def write_weights(
    plan: Plan, checkpoints: Mapping[str, Checkpoint], dtype: torch.dtype, folder: Path, max_shard_size: int
) -> list[str]:
    """
    Writes the weights as the library does: `model.safetensors`, or shards and their index.

    The tensors of one shard are in memory at any time, and those that the next tensor is made of. Tensors that keep
    name and dtype are not even copied: the shard is written from the mapped source file.

    Args:
        plan ([`Plan`])
        checkpoints (`Mapping`): kind of file -> [`Checkpoint`].
        dtype (`torch.dtype`)
        folder (`Path`): exists.
        max_shard_size (`int`): in bytes.

    Returns:
        `list` of `str`: names of the files of weights.

    Raises:
        ConversionError: if a weight is not a finite number in `dtype`.
        OSError: if the disk is full.
    """
    shards = _split(plan.entries, dtype.itemsize, max_shard_size)
    weight_map: dict[str, str] = {}
    with closing(_converted(plan.entries, checkpoints, dtype)) as tensors:
        for number, entries in enumerate(shards, start=1):
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
            _write_shard(dict(islice(tensors, len(entries))), folder / name)
            weight_map |= dict.fromkeys((entry.target for entry in entries), name)
        next(tensors, None)  # lets the last bar end
    if len(shards) > 1:
        parameters = sum(_count(entry.shape) for entry in plan.entries)
        metadata = {"total_parameters": parameters, "total_size": parameters * dtype.itemsize}
        index = {"metadata": metadata, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return sorted(set(weight_map.values()))


def _write_shard(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # safetensors reports a full disk in this way
        raise OSError(errno.EIO, f"cannot be written: {error}", str(path)) from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets nobody but the owner read


def _split(entries: Sequence[Entry], itemsize: int, limit: int) -> list[list[Entry]]:
    """In order, so that shards can be filled one after the other."""
    shards: list[list[Entry]] = [[]]
    used = 0
    for entry in entries:
        size = _count(entry.shape) * itemsize
        if shards[-1] and used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(entry)
        used += size
    return shards


def _converted(
    entries: Sequence[Entry], checkpoints: Mapping[str, Checkpoint], dtype: torch.dtype
) -> Generator[tuple[str, torch.Tensor]]:
    remaining = Counter(entry.kind for entry in entries)
    made = 0
    for part, group in groupby(entries, key=lambda entry: entry.part):
        for entry in tqdm(list(group), desc=part, unit="tensor"):
            yield entry.target, _convert(entry, checkpoints[entry.kind], dtype)
            remaining[entry.kind] -= 1
            made += _count(entry.shape) * dtype.itemsize
            if made > MADE_BEFORE_PAGES_ARE_FORGOTTEN:
                checkpoints[entry.kind].forget_pages()
                made = 0
            if not remaining[entry.kind]:
                checkpoints[entry.kind].close()


def _convert(entry: Entry, checkpoint: Checkpoint, dtype: torch.dtype) -> torch.Tensor:
    tensors = [checkpoint.read(key) for key in entry.keys]
    where = f"{checkpoint.file_of(entry.keys[0])}: {' and '.join(map(repr, entry.keys))}"
    stored = tensors[0].dtype
    if not stored.is_floating_point:
        raise ConversionError(
            f"{where} holds {stored}, expected floating point numbers; quantised files do not convert"
        )
    made = entry.make(tensors).to(dtype).contiguous()
    if not _all_finite([made]):
        what = (
            f"does not fit {dtype}; choose another --dtype" if _all_finite(tensors) else "has NaN or infinite values"
        )
        raise ConversionError(f"{where} {what}")
    return made


def _all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """By the extremes, which NaN becomes both of: `isfinite` would take twice the tensor's memory."""
    return all(extreme.isfinite() for tensor in tensors for extreme in tensor.aminmax())


def _count(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
