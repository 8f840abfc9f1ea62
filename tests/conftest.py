"""The golden data of the original code (tests/data/reference), and what is converted from it."""

import json
import os
import random
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is imported
# Sums in one order: resumed runs are compared bit for bit. It is also what two workers on two cores are fastest with.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch, here and in what the tests start

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_conversions import HEADS, REFERENCE, STYLES
from transformers import AutoModelForMultimodalLM, AutoProcessor

from examples.tiny import world
from examples.tiny.render import render
from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.convert.command import main as convert


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cases() -> dict:
    return json.loads((REFERENCE / "cases.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(REFERENCE / "golden.safetensors")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """The golden checkpoint, converted for each prompt style, with both ImageBind trunks."""
    folders = {}
    for style in STYLES.values():
        folders[style] = tmp_path_factory.mktemp("converted") / style
        arguments = [str(REFERENCE / "checkpoints"), str(folders[style]), "--style", style]
        assert convert([*arguments, "--with-imagebind-vision", "--config", str(HEADS)]) == 0
    return folders


@pytest.fixture(scope="session")
def checkpoint(checkpoints) -> Path:
    return checkpoints["llama-2"]


@pytest.fixture(scope="session", params=("sdpa", "eager"))
def any_attention_model(request, checkpoint):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint, attn_implementation=request.param).eval()


@pytest.fixture(scope="session")
def model(checkpoint):
    """Shared by tests that only read it."""
    return AutoModelForMultimodalLM.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="session")
def processors(checkpoints) -> dict:
    return {style: AutoProcessor.from_pretrained(folder) for style, folder in checkpoints.items()}


@pytest.fixture(scope="session")
def processor(processors):
    return processors["llama-2"]


@pytest.fixture(scope="session")
def tiny_processor():
    """Of the trained tiny model that the package has."""
    return AutoProcessor.from_pretrained(TINY_CHECKPOINT)


@pytest.fixture(scope="session")
def bell_clip(tmp_path_factory) -> str:
    """A red circle moves left, and a bell rings."""
    path = tmp_path_factory.mktemp("clips") / "red_circle_and_bell.mp4"
    scene = world.Scene((world.Thing("circle", "red", "left"),), "bell")
    return str(render(scene, path, np.random.default_rng(7)))


@pytest.fixture(scope="session")
def seeded_randn():
    def draw(*shape: int, seed: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))

    return draw
