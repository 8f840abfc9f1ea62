"""What the tests of `media.workers` call in a worker, which finds it by its name."""

import os
import signal
import sys
import time

from transformers_videollama.media import MediaError


def double(value):
    return value * 2


def process_id() -> int:
    return os.getpid()


def has_imported(module: str) -> bool:
    return module in sys.modules


def say_something_and(value):
    """Libraries print, also from C."""
    print("some progress")
    os.write(1, b"some more")
    return value


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fail_as_undocumented() -> None:
    raise KeyError("nobody thought of this")


def refuse() -> None:
    raise MediaError("is damaged")


def wait(seconds: float) -> None:
    time.sleep(seconds)


def take_pixels(file, number: int) -> None:
    file.access.take_bytes(1, 1, number)


def fill(num_bytes: int) -> int:
    return len(bytearray(num_bytes))
