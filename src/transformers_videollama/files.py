"""Files and folders that appear whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


__all__ = ["PARTIAL_SUFFIX", "appearing"]

PARTIAL_SUFFIX = ".partial"


@contextmanager
def appearing(path: str | os.PathLike) -> Iterator[Path]:
    """
    Gives a name next to `path`, to write a file or a folder under. When the block ends, all of it is put on the disk
    and gets its own name, in the place of a file that has it. If the block ends with an exception, an interrupt
    included, nothing is left, nor are folders that were made on the way to `path`.

    Args:
        path (`str` or `os.PathLike`): Of the file or folder.

    Raises:
        OSError: if it cannot be written.
    """
    path = Path(path).absolute()
    made = [parent for parent in path.parents if not parent.exists()]
    partial = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for written in (*partial.rglob("*"), partial):
            _sync(written)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        if not path.exists():
            _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:  # the innermost first
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
