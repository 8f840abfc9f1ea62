"""Rows that cannot be used: how many may be left out of training, and what ends a run that has more of them."""

from collections.abc import Sequence, Sized

import torch
from accelerate.utils import reduce
from transformers import TrainerCallback
from transformers.utils import logging


__all__ = ["UnreadableDataError", "UnreadableRows", "UnreadableRowsCallback"]

logger = logging.get_logger(__name__)

# Rows that may be left out in addition to the share of those seen so far, since a few rows say little about a share
BY_CHANCE = 5
SHOWN_REASONS, REASON_BYTES = 3, 1000
PLACES = 64  # of processes that load data for one training process, each of which counts in its own


class UnreadableDataError(ValueError):
    """Too many rows cannot be used; the message has their number, the limit, and the last reasons."""


class UnreadableRows:
    """
    Counts the rows that are read and those that are left out. Processes that load data for one training process count
    together; training processes count apart. Each has a place of its own in shared memory, so that no two add to one
    number at the same time, which would lose counts.

    Args:
        max_unreadable (`int`): Rows that may be left out.
        max_unreadable_share (`float`): The share of them in all rows, from 0 to 1.

    Raises:
        ValueError: for limits that are no such numbers.
    """

    def __init__(self, max_unreadable: int, max_unreadable_share: float):
        if max_unreadable < 0 or not 0 <= max_unreadable_share <= 1:
            raise ValueError(
                f"got max_unreadable={max_unreadable} and max_unreadable_share={max_unreadable_share}, expected a "
                "number of rows, and a share from 0 to 1"
            )
        self.max_unreadable = max_unreadable
        self.max_unreadable_share = max_unreadable_share
        self._counts = torch.zeros(PLACES, 2, dtype=torch.long).share_memory_()  # read, left out
        self._reasons = torch.zeros(PLACES, SHOWN_REASONS, REASON_BYTES, dtype=torch.uint8).share_memory_()

    @property
    def counts(self) -> torch.Tensor:
        """(2,), int64: the rows read and those left out by all processes that load data for this one."""
        return self._counts.sum(dim=0)

    def go_on(self, seen: int, reasons: Sequence[str]) -> None:
        """Counts the rows of a run before, and those of them that were left out, for these reasons."""
        self._counts[_place()] += torch.tensor([seen - len(reasons), len(reasons)])
        for number, reason in enumerate(reasons[-SHOWN_REASONS:]):
            self._remember(reason, number)

    def read(self) -> None:
        """Counts a row that could be used."""
        self._counts[_place(), 0] += 1

    def leave_out(self, error: ValueError) -> None:
        """
        Counts a row that cannot be used, and logs why.

        Raises:
            UnreadableDataError: for more rows than may be left out.
        """
        self._counts[_place(), 1] += 1
        read, left_out = self.counts.tolist()
        reason = " ".join(str(error).split())
        self._remember(reason, left_out)
        logger.warning(f"left out a sample ({left_out} so far, at most {self.max_unreadable}): {reason}")
        if left_out > self.max_unreadable:
            raise self._error(f"{left_out} samples", f", more than max_unreadable={self.max_unreadable}") from error
        if left_out > self.max_unreadable_share * (read + left_out) + BY_CHANCE:
            raise self._too_large_a_share(read, left_out) from error

    def check(self, read: int, left_out: int, *, complete: bool) -> None:
        """
        Judges what was read in the end, also where too few rows were left out to say so before.

        Args:
            read, left_out (`int`): Rows, of all processes together.
            complete (`bool`): Whether all rows were seen, so that their share is known exactly.

        Raises:
            UnreadableDataError: if no row could be used, or too large a share of all could not.
        """
        if left_out and not read:
            raise self._error(f"all {left_out} samples", "")
        if complete and left_out > self.max_unreadable_share * (read + left_out):
            raise self._too_large_a_share(read, left_out)

    def _too_large_a_share(self, read: int, left_out: int) -> UnreadableDataError:
        return self._error(
            f"{left_out} of {read + left_out} samples", f", more than max_unreadable_share={self.max_unreadable_share}"
        )

    def _error(self, samples: str, limit: str) -> UnreadableDataError:
        reasons = "; ".join(self.reasons()) or "another process has logged them"
        return UnreadableDataError(f"{samples} could not be used{limit}; the last reasons: {reasons}")

    def reasons(self) -> list[str]:
        """The last reasons of all processes that load data for this one, each once."""
        texts = [bytes(reason.numpy()).rstrip(b"\0").decode(errors="ignore") for reason in self._reasons.flatten(0, 1)]
        return list(dict.fromkeys(filter(None, texts)))[-SHOWN_REASONS:]

    def _remember(self, reason: str, number: int) -> None:
        """In memory that the processes share."""
        text = reason.encode(errors="replace")[:REASON_BYTES].ljust(REASON_BYTES, b"\0")
        self._reasons[_place(), number % SHOWN_REASONS] = torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _place() -> int:
    """The place that this process counts in. Workers of training and of evaluation may live at the same time."""
    worker = torch.utils.data.get_worker_info()
    return 0 if worker is None else 1 + worker.seed % (PLACES - 1)


class UnreadableRowsCallback(TrainerCallback):
    """
    Ends a training at the end of an epoch if no row could be used, or, once all rows were seen, if too large a share
    of them could not. A collator by itself allows for chance, and ends a training only when it has left out a few
    rows more than the share.

    Args:
        collator ([`VideoLlamaDataCollator`]): The one that the `Trainer` was given.
    """

    def __init__(self, collator):
        self.unreadable: UnreadableRows = collator.unreadable

    def on_epoch_end(self, args, state, control, train_dataloader=None, **kwargs):
        # All processes have the sums, and so all of them end
        read, left_out = reduce(self.unreadable.counts.to(args.device), reduction="sum").tolist()
        rows = train_dataloader.dataset
        self.unreadable.check(read, left_out, complete=isinstance(rows, Sized) and read + left_out >= len(rows))
