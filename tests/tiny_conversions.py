"""The tiny checkpoints that the original code made, and their conversion."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from transformers_videollama import VideoLlamaForConditionalGeneration
from transformers_videollama.convert import ConversionOptions, convert


__all__ = [
    "CHECKPOINTS",
    "HEADS",
    "LLAMA",
    "OVERRIDES",
    "REFERENCE",
    "STYLES",
    "copy_llama",
    "load",
    "run",
    "weights_of",
]

DATA = Path(__file__).parent / "data"
REFERENCE = DATA / "reference"
CHECKPOINTS = REFERENCE / "checkpoints"
LLAMA = CHECKPOINTS / "llama-2-7b-chat-hf"
HEADS = DATA / "tiny_heads.json"
OVERRIDES = json.loads(HEADS.read_text(encoding="utf-8"))
STYLES = {"llama_2": "llama-2", "vicuna": "vicuna"}  # names in the golden data -> names of the package


def run(output, source=CHECKPOINTS, **options):
    """Converts the tiny checkpoints."""
    values = {"source": str(source), "output": Path(output), "overrides": OVERRIDES} | options
    return convert(ConversionOptions(**values))


def load(folder, **options):
    model, info = VideoLlamaForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(info.values()), info
    return model.eval()


def weights_of(folder):
    return {key: tensor for file in sorted(folder.glob("*.safetensors")) for key, tensor in load_file(file).items()}


def copy_llama(folder):
    """A folder with the tiny tokenizer, for another language model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(LLAMA / name, folder / name)
    return folder
