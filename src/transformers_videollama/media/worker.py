"""
The process in which [`MediaWorkers`] opens media: `python -m transformers_videollama.media.worker BYTES`. It reads
calls from standard input and writes what comes of them to standard output, both pickled.

Its limits are the system's own, which hold while a decoder's code runs: a timer whose signal ends the process, and the
most memory that it may fill.
"""

import contextlib
import os
import pickle
import resource
import select
import signal
import sys
import threading
from typing import Any, BinaryIO

from .errors import MediaError


def main(max_bytes: int) -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints would stand between the answers
    _limit_memory(max_bytes)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError):  # the parent has closed the pool
        while True:
            _answer(sys.stdin.buffer, answers, max_bytes)


def _answer(calls: BinaryIO, answers: BinaryIO, max_bytes: int) -> None:
    """One call. An error that media do not document ends the process as a crash does, with its traceback."""
    seconds, function, args, kwargs = pickle.load(calls)  # imports what the function needs, which is not timed
    signal.setitimer(signal.ITIMER_REAL, seconds)
    answer: tuple[Any, Exception | None]
    try:
        answer = (function(*args, **kwargs), None)
    except (ImportError, ValueError) as error:  # MediaError is one
        answer = (None, error)
    except MemoryError:
        answer = (None, MediaError(f"needs more than {max_bytes >> 20} MiB of memory to be opened; make it smaller"))
    signal.setitimer(signal.ITIMER_REAL, 0)
    pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
    answers.flush()


def _limit_memory(max_bytes: int) -> None:
    """
    Of what the process may fill, which Linux counts as data: the heap and private mappings. Its address space would be
    the wrong measure, since libraries and the stacks of threads reserve much that is never filled. No core is dumped.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent() -> None:
    """Ends the process in the midst of a call when the parent is gone, also when it was killed."""
    parent = select.poll()
    parent.register(sys.stdin.fileno(), 0)  # hanging up is always told
    parent.poll()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]))
