"""The random frames and crops of training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as transforms
from transformers import TrainerCallback


__all__ = ["AugmentedDataset", "EpochCallback", "random_crop"]

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
    """

    def __init__(self, dataset, seed: int = 0):
        self.dataset = dataset
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # known to workers that outlive an epoch, too

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        seed = np.random.SeedSequence((self.seed, int(self._epoch), index)).generate_state(1, np.uint64)[0]
        return {**self.dataset[index], "augmentation_seed": int(seed)}

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)


class EpochCallback(TrainerCallback):
    """Tells the [`AugmentedDataset`] that is trained on the epoch, so that each one draws other frames and crops."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        if isinstance(train_dataloader.dataset, AugmentedDataset):
            train_dataloader.dataset.set_epoch(int(state.epoch))


def random_crop(pixels: Any, size: Sequence[int], draw: np.random.Generator) -> Any:
    """A picture, or frames (T, 3, H, W) uint8 at once, cut to a random part and scaled to (height, width), bicubic"""
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(int(draw.integers(2**63)))
        box = RandomResizedCrop.get_params(pixels, CROP_SCALE, CROP_RATIO)
    return transforms.resized_crop(pixels, *box, size=list(size), interpolation=InterpolationMode.BICUBIC)
