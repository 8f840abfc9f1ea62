"""The cases of the golden data: their inputs, and how close what is computed has to come."""

import re

import torch


__all__ = ["LOSSES", "as_frames", "branch_inputs", "golden_input", "training_cases"]

LOSSES = {"rtol": 0, "atol": 1e-4}


def golden_input(case: dict) -> torch.Tensor:
    """The input that a case describes in words: torch.randn(shape) with a seed."""
    shape, seed = re.fullmatch(
        r"torch\.randn\((.+?)\) with .*?(?:manual_seed\(|seed )(\d+)\)?, .*", case["input"]
    ).groups()
    sizes = [int(size) for size in shape.split(",")]
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(int(seed)))


def as_frames(pixels: torch.Tensor) -> torch.Tensor:
    """(batch, channel, frame, height, width) of the original -> (videos, frames, 3, height, width)"""
    return pixels.transpose(1, 2).contiguous()


def training_cases(kind: str) -> list[str]:
    variants = {"instruct": ("image", "video"), "caption": ("plain", "prompt")}[kind]
    return [f"train/{kind}/{branch}_branch/{variant}" for branch in ("video", "audio") for variant in variants]


def branch_inputs(case: dict) -> dict[str, torch.Tensor]:
    """Pixels of a training case, as the branch that is trained takes them."""
    pixels = torch.randn(*case["pixel_shape"], generator=torch.Generator().manual_seed(case["pixel_seed"]))
    frames = pixels.unsqueeze(1) if pixels.ndim == 4 else as_frames(pixels)
    return {"audio_pixel_values" if case["branch"] == "audio" else "pixel_values_videos": frames}
