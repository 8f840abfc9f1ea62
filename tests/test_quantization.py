"""The language model in 8 and 4 bit: what is quantised, what it takes, and that the tiny model is still right."""

import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForMultimodalLM, BitsAndBytesConfig, TorchAoConfig

from examples.tiny.evaluate import ask
from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.quantization import KINDS, loading_dtype, quantization_config, stored_bytes


DTYPES = ("float32", "bfloat16", "float16")


def load(config, folder=TINY_CHECKPOINT, dtype="bfloat16"):
    return AutoModelForMultimodalLM.from_pretrained(folder, dtype=dtype, quantization_config=config, device_map="cpu")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict:
    """The tiny checkpoint in each dtype."""
    folders = {}
    for dtype in DTYPES:
        folders[dtype] = tmp_path_factory.mktemp("stored") / dtype
        AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT, dtype=dtype).save_pretrained(folders[dtype])
    return folders


def is_quantised(layer: nn.Linear) -> bool:
    return type(layer.weight) is not nn.Parameter


def linear_layers(part: nn.Module) -> list[nn.Linear]:
    return [module for module in part.modules() if isinstance(module, nn.Linear)]


def bytes_of_scales(kind: str, layer: nn.Linear) -> int:
    values = layer.in_features * layer.out_features
    return {
        "8bit": 4 * layer.out_features,
        "int8": (4 + 1) * layer.out_features,  # with a zero point
        "4bit": 4 * values // 64 + 4 * 16,  # with the 16 values of NF4
        "int4": (2 + 2) * values // 128,  # with a zero point
    }[kind]


def answer(model, processor, clip) -> str:
    return ask(model, processor, [(clip, "What do you see and hear?")])[0]


RIGHT = "I see a red circle that moves left and I hear a bell."


@pytest.mark.parametrize("kind", KINDS)
def test_the_language_model_alone_is_quantised_and_answers(kind, tiny_processor, bell_clip):
    model = load(quantization_config(kind, device="cpu"))
    text, rest = linear_layers(model.model.language_model), linear_layers(model)
    assert all(is_quantised(layer) for layer in text)
    assert {layer.weight.dtype for layer in rest if layer not in text and not is_quantised(layer)} == {torch.bfloat16}
    assert sum(is_quantised(layer) for layer in rest) == len(text)
    assert answer(model, tiny_processor, bell_clip) == RIGHT


@pytest.mark.parametrize(
    ("source", "dtype"), [*((source, "auto") for source in DTYPES), *(("float16", dtype) for dtype in DTYPES)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_answers_or_is_refused(kind, source, dtype, stored, tiny_processor, bell_clip):
    if (kind, dtype) == ("int8", "float16"):
        with pytest.raises(ValueError, match=r"int8 weights overflow in float16; load .* bfloat16 or float32"):
            loading_dtype(kind, dtype)
        return
    config = quantization_config(kind, device="cpu")
    model = load(config, stored[source], loading_dtype(kind, dtype, "cpu"))
    assert answer(model, tiny_processor, bell_clip) == RIGHT


def test_what_overflows_is_no_answer(stored, tiny_processor, bell_clip):
    model = load(quantization_config("int8"), stored["float16"], "auto")
    with pytest.raises(ValueError, match=r"NaN or infinite logits from the model in torch.float16.*bfloat16"):
        answer(model, tiny_processor, bell_clip)


@pytest.mark.parametrize("dtype", ("float32", "float16"))
def test_int4_on_a_gpu_takes_bfloat16_alone(dtype):
    assert loading_dtype("int4", "auto", "cuda:1") == loading_dtype("int4", "bfloat16", "cuda:1") == "bfloat16"
    with pytest.raises(ValueError, match=rf"int4 weights need bfloat16 on cuda, got {dtype}; or take 4bit"):
        loading_dtype("int4", dtype, "cuda:1")


@pytest.mark.parametrize("kind", KINDS)
def test_stored_bytes_are_those_of_values_and_scales(kind):
    plain = load(None)
    layers = linear_layers(plain.model.language_model)
    values = sum(layer.weight.numel() for layer in layers)
    assert stored_bytes(plain) == plain.get_memory_footprint()  # which the library counts rightly without scales
    bits = int(kind.strip("bint"))
    expected = stored_bytes(plain) - 2 * values + values * bits // 8 + sum(bytes_of_scales(kind, x) for x in layers)
    assert stored_bytes(load(quantization_config(kind, device="cpu"))) == expected


def whole(kind: str):
    """As users of the library write it, without a list of parts that stay as they are."""
    from torchao.quantization import Int8WeightOnlyConfig

    return {
        "4bit": lambda: BitsAndBytesConfig(load_in_4bit=True),
        "8bit": lambda: BitsAndBytesConfig(load_in_8bit=True),
        "int8": lambda: TorchAoConfig(Int8WeightOnlyConfig()),
    }[kind]()


@pytest.mark.parametrize("kind", ("4bit", "8bit", "int8"))
def test_every_part_may_be_quantised(kind, tiny_processor, bell_clip):
    model = load(whole(kind))
    layers = linear_layers(model)
    assert {name for name, layer in model.named_modules() if layer in layers and not is_quantised(layer)} == {
        "lm_head"
    }
    assert answer(model, tiny_processor, bell_clip) == RIGHT


@pytest.mark.parametrize("kind", ("4bit", "8bit", "int8"))
def test_a_quantised_model_is_saved_and_loaded(kind, tmp_path, tiny_processor, bell_clip):
    model = load(quantization_config(kind))
    model.save_pretrained(tmp_path)
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path, device_map="cpu")
    assert stored_bytes(again) == stored_bytes(model)
    assert answer(again, tiny_processor, bell_clip) == RIGHT


def test_unknown_kind_and_absent_package(monkeypatch):
    with pytest.raises(ValueError, match=r"must be one of 4bit, 8bit, int4, int8, got '2bit'"):
        quantization_config("2bit")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match=r"needs torchao 0\.18"):
        quantization_config("int8")
