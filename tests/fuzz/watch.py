"""Runs damaged input in a process of its own: a crash, a hang or an undocumented error is a fault."""

import multiprocessing
from collections.abc import Iterable, Iterator

from .worker import work


HANGING_SECONDS = 10
STARTING_SECONDS = 120


class Watched:
    """A worker, replaced when it has died or was killed."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        if not self.connection.poll(STARTING_SECONDS) or self.connection.recv() != "ready":
            raise RuntimeError("the worker did not start")

    def fault_of(self, kind: str, seed: int) -> str:
        """What is wrong with how this input ended; "" if nothing is."""
        self.connection.send((kind, seed))
        if not self.connection.poll(STARTING_SECONDS) or self.connection.recv() != "begun":
            raise RuntimeError(f"the worker did not make {kind} {seed}")
        if not self.connection.poll(HANGING_SECONDS):
            fault = f"no end after {HANGING_SECONDS} s"
        else:
            try:
                return self.connection.recv()
            except EOFError:
                self.process.join()
                fault = f"a crash: exit status {self.process.exitcode}"
        self.stop()
        self._start()
        return fault

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def faults(seeds: Iterable[int], kinds: tuple[str, ...], worker: Watched) -> Iterator[str]:
    """What went wrong, as it is found, with the kind and seed that shows it again."""
    for seed in seeds:
        for kind in kinds:
            if fault := worker.fault_of(kind, seed):
                yield f"{kind} {seed}: {fault}"
