"""The one exception of everything that opens media, and how it comes to name the item."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any


__all__ = ["MediaError", "about", "import_or_explain"]


class MediaError(ValueError):
    """A video, an image or a sound that cannot be used; the message names it, the reason and the way out."""


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Put the name of the item before the message of a `MediaError`."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error


def import_or_explain(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed to decode this: pip install {package}") from error
