"""
Opens media in processes of their own. A decoder may crash, hang or fill the memory over a file that was made for that,
or by chance; then a worker ends and is replaced, and the file is a `MediaError` like any that cannot be read.

A worker is no jail: what takes over a decoder has the rights of this program. It needs Linux or macOS.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .errors import MediaError
from .parallel import num_threads
from .sources import MediaFile


__all__ = ["MediaWorkers", "in_worker", "media_workers", "opening_in_workers"]

Result = TypeVar("Result")
DEFAULT_MAX_BYTES = 4 << 30
GRACE_SECONDS = 1.0  # so that a call that looks at the clock itself is the first to say that its time is over
ENDING_SECONDS = 10.0


class MediaWorkers:
    """
    A pool of processes, which threads share. A process starts when it is first needed, in about a second, serves one
    call after another, and ends with this one.

    Args:
        number (`int`): Processes at most; as many calls run at once.
        max_bytes (`int`, defaults to 4 GiB): Memory that each may fill.

    Raises:
        ValueError: for a number below 1.
    """

    # Not concurrent.futures: there a process that dies fails the calls of all others, and a call cannot be ended
    def __init__(self, number: int, *, max_bytes: int = DEFAULT_MAX_BYTES):
        if number < 1:
            raise ValueError(f"got {number} media workers, expected at least 1")
        self.max_bytes = max_bytes
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()  # the last used first, so that few are started
        for _ in range(number):
            self._free.put(None)

    def call(self, function: Callable[..., Result], *args: Any, seconds: float, **kwargs: Any) -> Result:
        """
        Calls `function` in a worker, and waits for one that is free.

        Args:
            function, args, kwargs: What is called; it goes there by pickle, and its result or error comes back so.
            seconds (`float`): The time it may take.

        Raises:
            MediaError: if the worker crashed, or was ended for its time or its memory.
            ImportError, ValueError: those of the function. A worker with another error ends, and shows a traceback.
        """
        worker = self._free.get()
        answer = None
        try:
            if worker is None or worker.has_ended():
                worker = _Worker(self.max_bytes)
            answer = worker.answer(seconds, function, args, kwargs)
        finally:
            if answer is None and worker is not None:  # broken off, here or there
                worker.end()
                worker = None
            self._free.put(worker)
        result, error = answer
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the workers that are free. Later calls start others."""
        free = []
        with contextlib.suppress(queue.Empty):
            while True:
                free.append(self._free.get_nowait())
        for worker in free:
            if worker is not None:
                worker.end()
            self._free.put(None)


class _Worker:
    """One process."""

    def __init__(self, max_bytes: int):
        # Not multiprocessing: its processes import the program's main module again, which may be a whole server
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONSAFEPATH": "1",  # not the folder that this program happens to run in
            "OMP_NUM_THREADS": str(num_threads()),
        }
        command = [sys.executable, "-m", f"{__package__}.worker", str(max_bytes)]
        # In a session of its own: Ctrl-C is for this process, whose end is the worker's
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.end = weakref.finalize(self, _end, self._process)  # at the latest when this process exits

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def answer(self, seconds: float, *call: Any) -> tuple[Any, Exception | None]:
        """Result and error of a call; `MediaError` if the process ends over it."""
        try:
            pickle.dump((seconds + GRACE_SECONDS, *call), self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            answer: tuple[Any, Exception | None] = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise MediaError(_reason(self._process.wait(ENDING_SECONDS), seconds)) from error
        return answer


def _end(process: Any) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # of what was to be sent
            pipe.close()


def _reason(status: int, seconds: float) -> str:
    """Why a worker has ended."""
    if status == -signal.SIGALRM:
        return (
            f"is not read after {seconds:g} s (max_decoding_seconds of MediaAccess), and was given up; cut or "
            "re-encode it, or allow more"
        )
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return (
        f"ended the process that opened it ({how}): it is damaged, or needs too much memory; re-encode it, or leave "
        "it out"
    )


_workers: MediaWorkers | None = None


def media_workers() -> MediaWorkers | None:
    """The workers that this process opens media in; `None` if it opens them itself."""
    return _workers


@contextlib.contextmanager
def opening_in_workers(number: int) -> Iterator[MediaWorkers | None]:
    """Within the block this process opens media in `number` workers, or itself if that is 0."""
    workers = MediaWorkers(number) if number else None
    before = _use(workers)
    try:
        yield workers
    finally:
        _use(before)
        if workers is not None:
            workers.close()


def _use(workers: MediaWorkers | None) -> MediaWorkers | None:
    global _workers  # engines open media in threads of their own, to which nothing could be passed on
    before, _workers = _workers, workers
    return before


if hasattr(os, "register_at_fork"):  # where there is none, there are no workers either
    os.register_at_fork(after_in_child=lambda: _use(None))  # the pipes are the parent's


def in_worker(file: MediaFile, function: Callable[..., Result], *args: Any) -> Result:
    """Calls what reads `file` in one of the process's workers if there are some, else here, within the file's limits.

    Raises:
        MediaError, ImportError, ValueError: as [`MediaWorkers.call`].
    """
    workers = media_workers()
    if workers is None:
        return function(*args)
    result, taken = workers.call(_counted, file, function, args, seconds=file.access.max_decoding_seconds)
    file.access.taken.extend(taken)
    return result


def _counted(file: MediaFile, function: Callable[..., Result], args: tuple) -> tuple[Result, list[int]]:
    """In a worker: the result, and what it takes of the request's bytes, which are counted in the parent."""
    before = len(file.access.taken)
    result = function(*args)
    return result, file.access.taken[before:]
