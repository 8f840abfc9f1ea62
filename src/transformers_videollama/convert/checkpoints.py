"""
Reading checkpoint files: names and shapes at once, tensors one by one when they are asked for.

Nothing in a file is executed (`weights_only=True`). Files are mapped into memory where their format allows it, so that
a tensor costs memory only while it is converted.
"""

import errno
import json
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import ConversionError
from .key_tables import TRAINING_STATE


__all__ = ["Checkpoint", "DeltaCheckpoint", "FileCheckpoint", "FolderCheckpoint", "shards_of", "weight_files"]

GIT_LFS_MARK = b"version https://git-lfs"
# Everything that unpickling a damaged file has been seen to raise.
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
    struct.error,
)


class Checkpoint:
    """
    Names, shapes and tensors.

    Attributes:
        shapes (`dict`): key -> shape.
        training_state (`tuple` of `str`): entries other than the weights, which are left alone.
    """

    shapes: dict[str, tuple[int, ...]]
    training_state: tuple[str, ...] = ()

    def file_of(self, key: str) -> str:
        """The name of the file that holds `key`, or would, for messages."""
        raise NotImplementedError

    def read(self, key: str) -> torch.Tensor:
        """Reads one tensor, as it is stored."""
        raise NotImplementedError

    def dtype(self, key: str) -> torch.dtype:
        return self.read(key).dtype

    def close(self) -> None:
        """Gives back memory that the file takes; it may be read again."""

    def forget_pages(self) -> None:
        """Gives back the pages of mapped files that have been read, which count as memory of the process."""


class FileCheckpoint(Checkpoint):
    """A `.pth`, `.bin` or `.safetensors` file."""

    def __init__(self, path: Path):
        self.path = path
        self._is_mapped = True
        self._tensors: dict[str, torch.Tensor] | None = None
        self.shapes = {key: tuple(tensor.shape) for key, tensor in self._open().items()}
        if not self._is_mapped:
            self.close()  # until it is needed, as it is in memory as a whole

    def file_of(self, key: str) -> str:
        return str(self.path)

    def read(self, key: str) -> torch.Tensor:
        return self._open()[key]

    def close(self) -> None:
        self._tensors = None

    def forget_pages(self) -> None:
        if self._is_mapped:  # another would have to be read anew as a whole
            self.close()

    def _open(self) -> dict[str, torch.Tensor]:
        if self._tensors is None:
            self._tensors = self._load()
        return self._tensors

    def _load(self) -> dict[str, torch.Tensor]:
        try:
            if self.path.suffix == ".safetensors":
                with safe_open(self.path, framework="pt") as file:
                    # Mapped, not read: the tensors share the file's pages.
                    return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            self._is_mapped = _is_zip(self.path)
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=self._is_mapped)
        except UNREADABLE as error:
            raise ConversionError(f"{self.path}: {_explain(self.path, error)}") from error
        return self._unpack(content)

    def _unpack(self, content: Any) -> dict[str, torch.Tensor]:
        if not isinstance(content, dict):
            raise ConversionError(f"{self.path}: holds a {type(content).__name__}, expected names and tensors")
        if isinstance(content.get("model"), dict):
            others = [str(name) for name in content if name != "model"]
            unknown = [name for name in others if name not in TRAINING_STATE]
            if unknown:
                raise ConversionError(
                    f"{self.path}: unexpected entry {unknown[0]!r} next to 'model', expected "
                    f"{', '.join(TRAINING_STATE)}"
                )
            self.training_state = tuple(others)
            content = content["model"]
        for key, value in content.items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise ConversionError(
                    f"{self.path}: key {key!r} is a {type(value).__name__}, expected a name and a tensor"
                )
        return content


class FolderCheckpoint(Checkpoint):
    """
    The weights of a model in the library's format: one file or shards, safetensors or not.

    Args:
        folder (`Path`)
        wanted (`Callable`, *optional*): tells by its name whether a tensor is needed; shards without any are left
            alone. All are by default.
    """

    def __init__(self, folder: Path, wanted: Callable[[str], bool] = lambda key: True):
        self.folder = folder
        names = weight_files([path.name for path in folder.iterdir()])
        if not names:
            raise ConversionError(f"{folder}: no weights; expected *.safetensors or pytorch_model*.bin")
        self._file_of: dict[str, FileCheckpoint] = {}
        self.shapes = {}
        for name in shards_of(folder, names, wanted):
            if not (folder / name).exists():
                raise ConversionError(f"{folder / name}: no such file, though the index of the folder names it")
            file = FileCheckpoint(folder / name)
            self.shapes |= file.shapes
            self._file_of |= dict.fromkeys(file.shapes, file)

    def file_of(self, key: str) -> str:
        return str(self._file_of[key].path if key in self._file_of else self.folder)

    def read(self, key: str) -> torch.Tensor:
        return self._file_of[key].read(key)

    def close(self) -> None:
        for file in set(self._file_of.values()):
            file.close()

    def forget_pages(self) -> None:
        for file in set(self._file_of.values()):
            file.forget_pages()


class DeltaCheckpoint(Checkpoint):
    """
    A language model given as its difference from another, as Vicuna v0 was published. The sum is taken in the delta's
    dtype, which is what FastChat's `apply_delta` computes.

    Vicuna v0 has one token more than LLaMA, `[PAD]`, and its delta one row more in both tables. FastChat 0.1.x, by
    which the deltas were made and applied, set that row of the base to zeros, so the delta holds the row itself.
    """

    def __init__(self, base: Checkpoint, delta: Checkpoint):
        self.base, self.delta = base, delta
        self.shapes = delta.shapes
        for key in delta.shapes | base.shapes:
            self._check(key)

    def file_of(self, key: str) -> str:
        return self.delta.file_of(key)

    def read(self, key: str) -> torch.Tensor:
        delta = self.delta.read(key)
        if key not in self.base.shapes:
            return delta
        total = delta.clone()
        base = self.base.read(key).to(delta.dtype)
        total[: len(base)] += base
        return total

    def close(self) -> None:
        self.base.close()
        self.delta.close()

    def forget_pages(self) -> None:
        self.base.forget_pages()
        self.delta.forget_pages()

    def _check(self, key: str) -> None:
        if key.endswith(".inv_freq"):  # not weights, and not converted
            return
        base, delta = self.base.shapes.get(key), self.delta.shapes.get(key)
        if base is None or delta is None:
            holder, lacker = (self.delta, self.base) if base is None else (self.base, self.delta)
            raise ConversionError(f"{lacker.file_of(key)}: key {key!r} is missing, which {holder.file_of(key)} has")
        longer = len(base) == 2 and delta[0] > base[0] and delta[1] == base[1]
        if base != delta and not longer:
            raise ConversionError(
                f"{self.delta.file_of(key)}: {key!r} has shape {delta}, expected {base} as in {self.base.file_of(key)}"
            )


def weight_files(names: Iterable[str]) -> list[str]:
    """The files of a folder that the library would load, all of one format; an index comes first, if there is one."""
    for pattern in (r"model(-.*)?\.safetensors(\.index\.json)?", r"pytorch_model(-.*)?\.bin(\.index\.json)?"):
        found = [name for name in names if re.fullmatch(pattern, name)]
        if found:
            return sorted(found, key=lambda name: (not name.endswith(".json"), name))
    return []


def shards_of(folder: Path, names: list[str], wanted: Callable[[str], bool]) -> list[str]:
    """Those of the files found by [`weight_files`] that hold wanted tensors."""
    single = [name for name in names if name in ("model.safetensors", "pytorch_model.bin")]
    if single:
        return single
    if not names[0].endswith(".json"):
        return names
    try:
        weight_map = json.loads((folder / names[0]).read_text(encoding="utf-8"))["weight_map"]
        return sorted({file for key, file in weight_map.items() if wanted(key)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{folder / names[0]}: is not an index of shards: {error!r}") from error


def _is_zip(path: Path) -> bool:
    """Files of torch before 1.6 are no zip archives and cannot be mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which torch raises for a truncated file
        return f"cannot be read: {error.strerror or error}"
    with path.open("rb") as file:
        if file.read(len(GIT_LFS_MARK)) == GIT_LFS_MARK:
            return "is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return (
            f"holds Python objects ({forbidden[1]}), which could run code and are not loaded; expected tensors and "
            "plain containers alone"
        )
    detail = f": {str(error).splitlines()[0].split('. ')[0]}" if isinstance(error, SafetensorError) else ""
    return f"is incomplete, damaged or no checkpoint ({path.stat().st_size:,} bytes){detail}"
