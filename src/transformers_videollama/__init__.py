"""
Video-LLaMA (arXiv 2306.02858) for the Hugging Face Transformers ecosystem. Importing registers the Auto classes. The
names stand in `__init__.pyi`; each is imported when it is first used.
"""

import os
import sys

import lazy_loader


__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _is_command() -> bool:
    """
    Whether the process is the command `videollama`. Its help and its errors of usage would wait seconds for torch, so
    it registers when it knows that a model is needed. Processes that it spawns have its `sys.argv`, but not this one.
    A worker that opens media needs neither.
    """
    started_as = sys.orig_argv[1:3]
    by_name = bool(started_as) and os.path.basename(started_as[0]) in ("videollama", "videollama.exe")
    return by_name or started_as in (["-m", __name__], ["-m", f"{__name__}.media.worker"])


if not _is_command():
    from .registration import register

    register()
