"""Checkpoint files of any size that take no room on the disk: names and shapes are real, the numbers are holes."""

import json
from collections import defaultdict
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


__all__ = ["original_shapes", "write_pth", "write_safetensors"]

KEYS = Path(__file__).parents[1] / "tests" / "data" / "reference" / "original_keys.tsv"
CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
SHARD_BYTES = 5 << 30

Shapes = Mapping[str, tuple[int, ...]]


def original_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Name of a released file -> key -> shape."""
    files: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for line in KEYS.read_text(encoding="utf-8").splitlines()[1:]:
        file, key, text = line.split("\t")
        files[file][key] = () if text == "scalar" else tuple(int(size) for size in text.split("x"))
    return dict(files)


def write_pth(path: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """As `torch.save` does, with a "model/" in front of keys standing for an entry of that name."""
    with FakeTensorMode():
        tensors = {key: torch.empty(shape, dtype=dtype) for key, shape in shapes.items()}
    inner = {key.removeprefix("model/"): tensor for key, tensor in tensors.items()}
    nested = any(key.startswith("model/") for key in tensors)
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"model": inner} if nested else inner, path)


def write_safetensors(folder: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    """Shards and their index."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    used = 0
    for key, shape in shapes.items():
        size = prod(shape) * dtype.itemsize
        if used and used + size > SHARD_BYTES:
            shards.append({})
            used = 0
        shards[-1][key] = shape
        used += size
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, dtype)
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    total = sum(prod(shape) for shape in shapes.values()) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_shard(path: Path, shapes: Shapes, dtype: torch.dtype) -> None:
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + prod(shape) * dtype.itemsize
        header[key] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
