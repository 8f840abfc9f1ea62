"""Packages that tests need and users may lack."""

from types import ModuleType

import pytest
import torch


__all__ = ["import_torchaudio"]


def import_torchaudio(module: str = "torchaudio") -> ModuleType:
    """The module, or a skip: torchaudio is optional, and its wheels fit one torch each."""
    return pytest.importorskip(
        module,
        exc_type=(ImportError, OSError, RuntimeError),
        reason=f"{module} cannot be imported with torch {torch.__version__}; the extra `audio` installs it",
    )
