"""Loading a converted folder in interpreters that know nothing yet: Auto classes, remote code, the Hub."""

import json
from pathlib import Path

import pytest
import torch
from hub_server import serve_repository
from interpreters import run_python, told
from tiny_conversions import HEADS, REFERENCE
from transformers import AutoModelForMultimodalLM

from transformers_videollama.convert.command import main as convert


IMPORT = "import transformers_videollama"
NO_PACKAGE = "import sys; sys.modules['transformers_videollama'] = None"

LOAD_EVERYTHING = """
import json, sys
import torch
from transformers import (
    AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText,
    AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer, AutoVideoProcessor,
)
source, options = sys.argv[1], json.loads(sys.argv[2])
names = {}
for auto in (
    AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText,
    AutoModelForMultimodalLM, AutoProcessor, AutoTokenizer, AutoVideoProcessor,
):
    loaded = auto.from_pretrained(source, **options)
    names[auto.__name__] = type(loaded).__name__
    if auto is AutoModelForMultimodalLM:
        model = loaded
    if auto is AutoProcessor:
        processor = loaded
chat = [{"role": "user", "content": [{"type": "image", "image": torch.zeros(3, 9, 9, dtype=torch.uint8)}]}]
inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
names["logits"] = model.eval()(**inputs).logits[0, -1, :5].tolist()
print(json.dumps(names))
"""

EXPECTED = {
    "AutoConfig": "VideoLlamaConfig",
    "AutoFeatureExtractor": "VideoLlamaFeatureExtractor",
    "AutoImageProcessor": "VideoLlamaImageProcessor",
    "AutoModel": "VideoLlamaModel",
    "AutoModelForCausalLM": "VideoLlamaForConditionalGeneration",
    "AutoModelForImageTextToText": "VideoLlamaForConditionalGeneration",
    "AutoModelForMultimodalLM": "VideoLlamaForConditionalGeneration",
    "AutoProcessor": "VideoLlamaProcessor",
    "AutoTokenizer": "TokenizersBackend",
    "AutoVideoProcessor": "VideoLlamaVideoProcessor",
}


def load_everything(first_line: str, source: str, options: dict | None = None, **environment: str) -> dict:
    result = run_python(f"{first_line}\n{LOAD_EVERYTHING}", source, json.dumps(options or {}), **environment)
    assert result.returncode == 0, result.stderr[-4000:]
    assert not told(result.stderr, "rror"), result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected(model, processor) -> dict:
    chat = [{"role": "user", "content": [{"type": "image", "image": torch.zeros(3, 9, 9, dtype=torch.uint8)}]}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    return {**EXPECTED, "logits": pytest.approx(model(**inputs).logits[0, -1, :5].tolist(), abs=1e-5)}


@pytest.mark.slow
def test_auto_classes(checkpoint, expected):
    assert load_everything(IMPORT, str(checkpoint)) == expected


@pytest.mark.slow
def test_remote_code(tmp_path, expected):
    """With --hub-code, a folder carries the modules and loads where the package is not there."""
    output = tmp_path / "with-code"
    arguments = [str(REFERENCE / "checkpoints"), str(output), "--hub-code", "--config", str(HEADS)]
    assert convert([*arguments, "--with-imagebind-vision"]) == 0
    names = load_everything(
        NO_PACKAGE, str(output), {"trust_remote_code": True}, HF_MODULES_CACHE=str(tmp_path / "modules")
    )
    assert names == expected


@pytest.mark.slow
def test_hub(checkpoint, tmp_path, expected):
    """Downloads from a server that speaks the Hub's file API, and loads again from the cache without it."""
    cache = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    with serve_repository(checkpoint, "org/video-llama") as endpoint:
        online = load_everything(IMPORT, "org/video-llama", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", **cache)
    assert online == expected
    assert list((tmp_path / "home").rglob("model.safetensors"))
    offline = load_everything(IMPORT, "org/video-llama", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1", **cache)
    assert offline == expected


def test_save_and_reload_gives_identical_outputs(model, tmp_path):
    model.save_pretrained(tmp_path)
    reloaded = AutoModelForMultimodalLM.from_pretrained(tmp_path).eval()
    inputs = {"input_ids": torch.tensor([[1, *[1001] * 5, *[1002] * 3, 7]])}
    media = {"pixel_values_videos": torch.randn(1, 2, 3, 224, 224), "input_features": torch.randn(1, 2, 128, 204)}
    torch.testing.assert_close(reloaded(**inputs, **media).logits, model(**inputs, **media).logits, rtol=0, atol=0)
    assert reloaded.config.to_dict() == model.config.to_dict() | {"_name_or_path": reloaded.config._name_or_path}
    assert reloaded.generation_config.to_dict() == model.generation_config.to_dict()
    assert reloaded.state_dict().keys() == model.state_dict().keys()


def test_the_tiny_checkpoint_is_tiny(checkpoint):
    files = [path for path in Path(checkpoint).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6
