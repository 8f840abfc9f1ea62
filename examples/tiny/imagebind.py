"""
The two trunks of ImageBind, pictures and sounds in one space, which are trained and then frozen.

First the vision trunk learns to tell the kinds of pictures apart. Then the audio trunk learns to put each sound where
the vision trunk puts a picture of what makes it: in a group of pairs of different kinds, each sound must be nearest to
its own picture. No language takes part.
"""

import numpy as np
import torch
from torch import nn

from . import world
from .frames import to_pixels
from .model import JOINT_WIDTH
from .render import draw_drifting
from .sounds import synthesise
from .training import Schedule


TEMPERATURE = 0.1
GROUPS = 6  # of one pair of each kind, in a batch
KINDS = tuple(world.SOUNDS)


def random_pictures(kinds: list[str], rng: np.random.Generator) -> torch.Tensor:
    """(N, 3, H, W) of what makes the sounds."""
    return to_pixels(np.concatenate([draw_drifting(kind, rng, num_frames=1) for kind in kinds]))


def random_sounds(kinds: list[str], extractor, rng: np.random.Generator) -> torch.Tensor:
    """(N, mel bins, mel frames) of a clip of each sound."""
    sounds = [synthesise(kind, extractor.clip_seconds, rng) for kind in kinds]
    return extractor(sounds, num_clips=1, return_tensors="pt")["input_features"][:, 0]


def train_pictures(model, schedule: Schedule) -> None:
    """Train the vision trunk to tell kinds apart, by a linear reading of its unit vectors that is dropped."""
    trunk = model.model.audio_vision_tower
    head = nn.Linear(JOINT_WIDTH, len(KINDS), bias=False)
    for step in schedule.steps(trunk, head):
        logits = head(trunk(random_pictures(KINDS * GROUPS, step.rng)).pooler_output) / TEMPERATURE
        step.backward(nn.functional.cross_entropy(logits, torch.arange(len(KINDS)).repeat(GROUPS)))


def train_sounds(model, extractor, schedule: Schedule, *, shuffled: bool = False) -> None:
    """
    Train the audio trunk to put sounds where the vision trunk puts their pictures. `shuffled` pairs every picture with
    the sound of any kind, as a check that what is heard later comes from here.
    """
    pictures, sounds = model.model.audio_vision_tower, model.model.audio_tower
    own = torch.arange(len(KINDS)).expand(GROUPS, -1)
    for step in schedule.steps(sounds):
        with torch.no_grad():
            seen = pictures(random_pictures(KINDS * GROUPS, step.rng)).pooler_output
        kinds = list(step.rng.permutation(KINDS * GROUPS)) if shuffled else KINDS * GROUPS
        heard = sounds(random_sounds(kinds, extractor, step.rng)).pooler_output
        seen, heard = (vectors.float().unflatten(0, (GROUPS, -1)) for vectors in (seen, heard))
        logits = heard @ seen.transpose(1, 2) / TEMPERATURE  # (groups, sounds, pictures)
        entropy = nn.functional.cross_entropy
        step.backward(entropy(logits, own) + entropy(logits.transpose(1, 2), own))


@torch.no_grad()
def retrieval(model, extractor, rng: np.random.Generator, groups: int = 16) -> float:
    """Share of sounds that are nearest to the picture of their own kind, of one of each."""
    seen = model.model.audio_vision_tower(random_pictures(KINDS * groups, rng)).pooler_output
    heard = model.model.audio_tower(random_sounds(KINDS * groups, extractor, rng)).pooler_output
    nearest = heard.unflatten(0, (groups, -1)) @ seen.unflatten(0, (groups, -1)).transpose(1, 2)
    return (nearest.argmax(2) == torch.arange(len(KINDS))).float().mean().item()
