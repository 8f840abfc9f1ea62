"""The random frames and crops of training."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import IterableDatasetShard
from torch.utils.data import Dataset, IterableDataset
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms
from transformers import TrainerCallback


__all__ = ["AugmentedDataset", "AugmentedIterableDataset", "EpochCallback", "random_crop"]

# A crop in training has half the area of its sample or more, as in the original
CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


class AugmentedDataset(Dataset):
    """
    Gives every row of a dataset the number that its random frames and crop are drawn from. It depends only on `seed`,
    the epoch and the row: not on the number of processes or workers, nor on whether training was interrupted.

    Args:
        dataset: rows with `messages`, such as [`load_messages`] gives.
        seed (`int`, defaults to 0)

    Raises:
        TypeError: for rows without a number, which [`AugmentedIterableDataset`] takes.
    """

    def __init__(self, dataset, seed: int = 0):
        if not hasattr(dataset, "__getitem__"):
            raise TypeError(
                f"got a {type(dataset).__name__}, whose rows come one after another; wrap it in "
                "AugmentedIterableDataset"
            )
        self.dataset = dataset
        self._draws = _Draws(seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self._draws.of(self.dataset[index], index)

    def set_epoch(self, epoch: int) -> None:
        self._draws.epoch.fill_(epoch)


class AugmentedIterableDataset(IterableDataset):
    """
    [`AugmentedDataset`] for rows that come one after another, such as those of `datasets` with `streaming=True`. The
    number of a row is drawn from `seed`, the epoch and what the row says, since nobody knows its place where several
    workers or processes share a stream. Sharing out is up to the stream.

    Args:
        dataset: rows with `messages`. If it has `set_epoch`, as shuffled streams have, it is told the epoch.
        seed (`int`, defaults to 0)
    """

    def __init__(self, dataset: Iterable[dict], seed: int = 0):
        self.dataset = dataset
        self._draws = _Draws(seed)

    def __iter__(self) -> Iterator[dict]:
        for row in self.dataset:
            said = [(name, row[name]) for name in sorted(row)]
            yield self._draws.of(row, zlib.crc32(repr(said).encode(errors="replace")))

    def set_epoch(self, epoch: int) -> None:
        self._draws.epoch.fill_(epoch)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class _Draws:
    """The numbers that the random frames and crops of rows are drawn from."""

    def __init__(self, seed: int):
        self.seed = seed
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # known to workers that outlive an epoch, too

    def of(self, row: dict, number: int) -> dict:
        seed = np.random.SeedSequence((self.seed, int(self.epoch), number)).generate_state(1, np.uint64)[0]
        return {**row, "augmentation_seed": int(seed)}


class EpochCallback(TrainerCallback):
    """
    Tells the [`AugmentedDataset`] or [`AugmentedIterableDataset`] that is trained on the epoch, so that each one draws
    other frames and crops.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = train_dataloader.dataset
        if isinstance(dataset, IterableDatasetShard):  # accelerate's, where several processes share a stream
            dataset = dataset.dataset
        if isinstance(dataset, AugmentedDataset | AugmentedIterableDataset):
            dataset.set_epoch(int(state.epoch))


def random_crop(pixels: Any, size: Sequence[int], draw: np.random.Generator) -> Any:
    """A picture, or frames (T, 3, H, W) uint8 at once, cut to a random part and scaled to (height, width), bicubic"""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(int(draw.integers(2**63)))
        box = RandomResizedCrop.get_params(pixels, CROP_SCALE, CROP_RATIO)
    return transforms.resized_crop(pixels, *box, size=list(size), interpolation=InterpolationMode.BICUBIC)
