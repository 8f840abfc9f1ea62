"""
The frame encoder, ViT and image Q-Former, which is trained and then frozen. In the paper it comes from BLIP-2; here it
learns from labels of rendered frames: what is in each patch, and for each query, which stands for one shape, the
colour and the place of that shape.
"""

import numpy as np
import torch
from torch import nn
from torchvision.transforms.v2.functional import normalize
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from . import world
from .model import IMAGE_SIZE, WIDTH
from .render import NUM_FRAMES, ThingsInMotion
from .training import Schedule


PATCHES = IMAGE_SIZE // 14  # on a side
NO_COLOUR, NO_SHAPE = len(world.COLOURS), len(world.SHAPES)


def to_pixels(frames: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W), as the processor gives them."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    return normalize(pixels, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)


def sine_positions(side: int, width: int) -> torch.Tensor:
    """(1, 1 + side * side, width): none for the class token, then sines of the row and of the column."""
    frequencies = 1.0 / 100 ** (torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # (side, width / 2)
    grid = torch.cat((waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)), dim=-1)
    return torch.cat((torch.zeros(1, 1, width), grid.reshape(1, side * side, width)), dim=1)


class FrameLabels(nn.Module):
    """Linear heads that read labels out of patches and queries; dropped after the training."""

    def __init__(self):
        super().__init__()
        self.patch_colour = nn.Linear(WIDTH, len(world.COLOURS) + 1)
        self.patch_shape = nn.Linear(WIDTH, len(world.SHAPES) + 1)
        self.colour = nn.Linear(WIDTH, len(world.COLOURS) + 1)
        self.place = nn.Linear(WIDTH, 2)

    def forward(self, patches: torch.Tensor, queries: torch.Tensor, labels: dict) -> dict[str, torch.Tensor]:
        """(N, patches, D), (N, queries, D) -> losses, and for each query whether its colour is right"""
        entropy = nn.functional.cross_entropy
        colours, places = self.colour(queries), self.place(queries)
        present = labels["colour"] != NO_COLOUR
        return {
            "patch": entropy(self.patch_colour(patches).flatten(0, 1), labels["patch_colour"].flatten())
            + entropy(self.patch_shape(patches).flatten(0, 1), labels["patch_shape"].flatten()),
            "colour": entropy(colours.flatten(0, 1), labels["colour"].flatten()),
            "place": (places - labels["place"])[present].abs().mean(),
            "right": (colours.argmax(-1) == labels["colour"]).float().mean(),
        }


def random_frames(rng: np.random.Generator, number: int, *, held_out: bool = False) -> tuple[torch.Tensor, dict]:
    """Pixels (N, 3, H, W) of `number` frames of as many scenes, and their labels."""
    pictures, labels = [], {"patch_colour": [], "patch_shape": [], "colour": [], "place": []}
    for _ in range(number):
        things = world.random_things(rng, int(rng.integers(1, world.MAX_OBJECTS + 1)), held_out=held_out)
        scene, frame = ThingsInMotion(things, rng), int(rng.integers(NUM_FRAMES))
        picture, where = next(scene.frames([frame]))
        pictures.append(picture)
        colours = np.array([*(list(world.COLOURS).index(thing.colour) for thing in things), NO_COLOUR])
        shapes = np.array([*(world.SHAPES.index(thing.shape) for thing in things), NO_SHAPE])
        thing_of_patch = _things_of_patches(where)
        labels["patch_colour"].append(colours[thing_of_patch])
        labels["patch_shape"].append(shapes[thing_of_patch])
        slots, places = np.full(len(world.SHAPES), NO_COLOUR), np.zeros((len(world.SHAPES), 2), np.float32)
        slots[shapes[:-1]] = colours[:-1]
        places[shapes[:-1]] = scene.paths[:, frame] / IMAGE_SIZE * 2 - 1
        labels["colour"].append(slots)
        labels["place"].append(places)
    return to_pixels(np.stack(pictures)), {name: torch.from_numpy(np.stack(rows)) for name, rows in labels.items()}


def _things_of_patches(where: np.ndarray) -> np.ndarray:
    """(H, W) of things from 1 on -> (patches,) of the thing that covers a fifth of the patch or more, else -1"""
    side = IMAGE_SIZE // PATCHES
    patches = where.reshape(PATCHES, side, PATCHES, side).swapaxes(1, 2).reshape(PATCHES**2, -1)
    covers = (patches[:, :, None] == np.arange(1, world.MAX_OBJECTS + 1)).mean(axis=1)  # (patches, things)
    return np.where(covers.max(axis=1) >= 0.2, covers.argmax(axis=1), -1)


def frame_losses(model, heads: FrameLabels, pixels: torch.Tensor, labels: dict) -> dict[str, torch.Tensor]:
    patches = model.model.vision_tower(pixels).last_hidden_state
    queries = model.model.query_tokens.expand(len(patches), -1, -1)
    tokens = model.model.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
    return heads(patches[:, 1:], tokens, labels)


def train_frame_encoder(model, schedule: Schedule, batch_size: int = 48) -> None:
    """Train ViT and image Q-Former on the labels of random frames."""
    parts = model.model
    with torch.no_grad():
        parts.vision_tower.embeddings.position_embedding.copy_(sine_positions(PATCHES, WIDTH))
    queries = nn.ParameterList([parts.query_tokens])
    heads = FrameLabels()
    for step in schedule.steps(parts.vision_tower, parts.qformer, queries, heads):
        losses = frame_losses(model, heads, *random_frames(step.rng, batch_size))
        step.backward(losses["patch"] + losses["colour"] + losses["place"])
