"""Files over which decoders crash: nobody has one that does so for ever, so workers are made to crash over a mark."""

import os
from pathlib import Path


HOSTILE = b"GIF89a, over which the decoder crashes"
# Python runs it when it starts, in the workers alone
SITECUSTOMIZE = f"""
import os, signal, sys

if "transformers_videollama.media.worker" in sys.orig_argv:
    import PIL.Image

    def open_or_crash(path, *args, opened=PIL.Image.open, **kwargs):
        with open(path, "rb") as file:
            if file.read() == {HOSTILE!r}:
                os.kill(os.getpid(), signal.SIGSEGV)
        return opened(path, *args, **kwargs)

    PIL.Image.open = open_or_crash
"""


def make_workers_crash(folder: Path) -> str:
    """-> the `PYTHONPATH` with which workers crash over `HOSTILE`."""
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
