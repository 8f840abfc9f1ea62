"""
Flash attention against eager attention, part by part, where the library finds the stand-in of tests/standins installed
(tests/test_flash_attention.py starts an interpreter in which it does):

    PYTHONPATH=tests/standins python -m pytest tests/cases_flash_attention.py

What is compared closely is in float32, which the kernels do not have: the stand-in takes it where it is asked to.
"""

from unittest import mock

import flash_attn
import pytest
import torch
from test_modeling import GREEDY, everything, left_padded, prompt
from transformers import AutoModelForMultimodalLM
from transformers.utils import is_flash_attn_2_available, is_torch_cuda_available

from benchmarks.models import checkpoint_activations
from transformers_videollama.training import STAGES, prepare_for_stage


CLOSE = {"rtol": 0, "atol": 3e-5}
ATTENTION = {"Blip2Attention", "Blip2QFormerMultiHeadAttention", "VideoLlamaImageBindAttention", "LlamaAttention"}
HALF = (torch.bfloat16, torch.float16)
KINDS = {"pixel_values": "image", "pixel_values_videos": "video", "input_features": "audio"}


@pytest.fixture(scope="session", autouse=True)
def _available():
    """
    The library asks for a GPU, too, before it says that flash attention is available, and keeps the answer. So it is
    asked once while torch says that there is one; nothing else is told so.
    """
    for asked in (is_flash_attn_2_available, is_torch_cuda_available):
        asked.cache_clear()
    with mock.patch("torch.cuda.is_available", return_value=True):
        assert is_flash_attn_2_available()
    is_torch_cuda_available.cache_clear()


def load(checkpoint, attention: str = "flash_attention_2", dtype: torch.dtype = torch.float32):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation=attention).eval()


@pytest.fixture(scope="session")
def flash_model(checkpoint):
    return load(checkpoint)


@pytest.fixture
def flash(flash_model):
    """In float32, for as long as a test runs."""
    with flash_attn.taking_float32():
        yield flash_model


@pytest.fixture(scope="session")
def eager(checkpoint):
    return load(checkpoint, "eager")


def cast(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def mixed_batch(model, side: str) -> dict[str, torch.Tensor]:
    """Prompts of several lengths with videos of 3, 8 and 16 frames, sounds of 2 and 5 clips, an image, and none."""
    rows = [("video", "audio"), ("image",), (), ("audio", "video", "video")]
    inputs = left_padded([prompt(model, *kinds, tail=3 + i) for i, kinds in enumerate(rows)])
    if side == "right":
        lengths = inputs["attention_mask"].sum(1).tolist()
        turned = [row.roll(length, 0) for row, length in zip(inputs["input_ids"], lengths, strict=True)]
        inputs = {"input_ids": torch.stack(turned), "attention_mask": inputs["attention_mask"].flip(1)}
    videos, frames = ragged((3, 8, 16), (3, 224, 224), side)
    sounds, clips = ragged((2, 5), (128, 204), side)
    media = {
        "pixel_values": torch.randn(1, 3, 224, 224),
        "pixel_values_videos": videos,
        "video_frame_mask": frames,
        "input_features": sounds,
        "audio_clip_mask": clips,
    }
    return inputs | media


def ragged(lengths: tuple[int, ...], shape: tuple[int, ...], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Items of so many steps, padded with noise on one side, and the mask of their real steps"""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    mask = mask if side == "right" else mask.flip(1)
    return torch.randn(len(lengths), max(lengths), *shape), mask


def part_inputs(model, name: str) -> dict[str, torch.Tensor]:
    """What a part of the model takes."""
    config = model.config
    steps, mask = ragged((3, 8, 16), (config.num_query_tokens, config.qformer_config.hidden_size), "right")
    clips, heard = ragged((2, 5), (1, config.audio_config.projection_dim), "left")
    return {
        "vision_tower": {"pixel_values": torch.randn(2, 3, 224, 224)},
        "qformer": {
            "query_embeds": model.model.query_tokens.detach().expand(2, -1, -1),
            "encoder_hidden_states": torch.randn(2, 9, config.vision_config.hidden_size),
        },
        "video_resampler": {"steps": steps, "step_mask": mask},
        "audio_tower": {"input_features": torch.randn(2, 128, 204)},
        "audio_vision_tower": {"pixel_values": torch.randn(2, 3, 224, 224)},
        "audio_resampler": {"steps": clips, "step_mask": heard},
        "language_model": {"input_ids": torch.tensor([[1, 5, 6, 7, 8]])},
    }[name]


PARTS = (
    "vision_tower",
    "qformer",
    "video_resampler",
    "audio_tower",
    "audio_vision_tower",
    "audio_resampler",
    "language_model",
)


@torch.no_grad()
@pytest.mark.parametrize("name", PARTS)
def test_every_part_equals_eager(flash, eager, name):
    inputs = part_inputs(flash, name)
    outputs = [getattr(model.model, name)(**inputs).last_hidden_state for model in (flash, eager)]
    torch.testing.assert_close(*outputs, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", PARTS)
def test_every_part_asks_the_kernels(flash_model, name):
    """They have none for float32, and the parts do not go round them."""
    with pytest.raises(RuntimeError, match="only support fp16 and bf16"):
        getattr(flash_model.model, name)(**part_inputs(flash_model, name))


@torch.no_grad()
def test_every_attention_is_one_call(flash):
    """None of those of towers and Q-Formers comes with a mask, for which there are no kernels."""
    modules = [module for module in flash.modules() if type(module).__name__ in ATTENTION]
    called = []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(type(module).__name__)) for module in modules
    ]
    flash_attn.CALLS.clear()
    inputs = mixed_batch(flash, "right")
    flash.model.get_image_features(inputs["pixel_values"])
    flash.model.get_video_features(inputs["pixel_values_videos"], inputs["video_frame_mask"])
    flash.model.get_audio_features(inputs["input_features"], inputs["audio_clip_mask"])
    flash.model.get_audio_features(audio_pixel_values=inputs["pixel_values_videos"][:, :4])
    flash(torch.tensor([[1, 5, 6, 7]]))
    for hook in hooks:
        hook.remove()
    assert set(called) == ATTENTION
    assert dict(flash_attn.CALLS) == {"flash_attn_func": len(called)}


@torch.no_grad()
@pytest.mark.parametrize("side", ("right", "left"))
def test_ragged_videos_and_sounds_equal_eager(flash, eager, side):
    videos, sounds = ragged((3, 8, 16), (3, 224, 224), side), ragged((2, 5), (128, 204), side)
    frames = ragged((1, 4), (3, 224, 224), side)
    for name, call in {
        "videos": lambda model: model.get_video_features(*videos),
        "sounds": lambda model: model.get_audio_features(*sounds),
        "frames as sound": lambda model: model.get_audio_features(
            audio_pixel_values=frames[0], audio_clip_mask=frames[1]
        ),
    }.items():
        torch.testing.assert_close(*(call(model).pooler_output for model in (flash, eager)), **CLOSE, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("side", ("right", "left"))
def test_logits_of_a_padded_batch_equal_eager(flash, eager, side):
    inputs = mixed_batch(flash, side)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(*(model(**inputs).logits[real] for model in (flash, eager)), **CLOSE)


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"num_beams": 3},
        {"cache_implementation": "static"},
        {"cache_implementation": "quantized", "cache_config": {"backend": "quanto", "nbits": 4}},
        {"use_cache": False},
    ),
    ids=("greedy", "beams", "static cache", "quantised cache", "no cache"),
)
def test_answers_equal_eager(flash, eager, options):
    inputs = mixed_batch(flash, "left")
    answers = [model.generate(**inputs, **GREEDY, **options).tolist() for model in (flash, eager)]
    assert answers[0] == answers[1]


def packed_batch(model) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Three prompts with media as one row, and each of them alone."""
    media = {name: value for name, value in everything(model).items() if name in KINDS}
    prompts = [{"input_ids": torch.tensor([prompt(model, KINDS[name])]), name: value} for name, value in media.items()]
    prompts[2]["input_ids"] = torch.cat((prompts[2]["input_ids"], torch.tensor([[51, 52, 53]])), dim=1)
    packed = {"input_ids": torch.cat([alone["input_ids"] for alone in prompts], dim=1), **media}
    return packed, prompts


@torch.no_grad()
@pytest.mark.parametrize("given", ("position_ids", "cu_seq_lens"))
def test_packed_prompts_equal_single_ones(flash, eager, given):
    packed, prompts = packed_batch(flash)
    lengths = [alone["input_ids"].shape[1] for alone in prompts]
    packed["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    if given == "cu_seq_lens":
        begins = torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
        packed |= {"cu_seq_lens_q": begins, "cu_seq_lens_k": begins}
        packed |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    logits = flash(**packed, use_cache=False).logits.split(lengths, dim=1)
    for one, alone in zip(logits, prompts, strict=True):
        torch.testing.assert_close(one, eager(**alone).logits, **CLOSE)


def gradients(model, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs, labels=labels).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def answers_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The text as labels, without the first token, which would follow on padding where that is on the left."""
    ids = inputs["input_ids"]
    return ids.masked_fill((ids >= 1000) | (ids == 1) | (inputs["attention_mask"] == 0), -100)


@pytest.mark.parametrize("side", ("right", "left"))
def test_gradients_equal_eager(flash, eager, side):
    inputs = mixed_batch(flash, side)
    found, expected = (gradients(model, inputs, answers_of(inputs)) for model in (flash, eager))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], **CLOSE, msg=name)


def test_packed_gradients_equal_those_of_single_prompts(flash, eager):
    packed, prompts = packed_batch(flash)
    lengths = [alone["input_ids"].shape[1] for alone in prompts]
    packed["position_ids"] = torch.cat([torch.arange(length) for length in lengths])[None]
    begins = torch.tensor(lengths[:-1]).cumsum(0)
    counts = {"num_items_in_batch": torch.tensor(10), "use_cache": False}
    for inputs in (packed, *prompts):
        inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 1000, -100)
    packed["labels"][:, begins] = -100  # the first token of a prompt follows on nothing
    for model, batches in ((flash, [packed]), (eager, prompts)):
        model.zero_grad()
        for inputs in batches:
            model(**inputs, **counts).loss.backward()
    for (name, one), (_, other) in zip(flash.named_parameters(), eager.named_parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, **CLOSE, msg=name)


@pytest.mark.parametrize("name", ("pixel_values_videos", "video_frame_features"))
def test_a_video_without_a_frame_is_refused(flash, name):
    given = {
        "pixel_values_videos": torch.zeros(2, 2, 3, 224, 224),
        "video_frame_features": torch.zeros(2, 2, flash.config.num_query_tokens, 32),
    }
    mask = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="video 1 has no real frame"):
        flash.get_video_features(**{name: given[name]}, video_frame_mask=mask)
    with pytest.raises(ValueError, match="item 1 has no real step"):
        flash.model.video_resampler(given["video_frame_features"], mask)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(checkpoint, dtype):
    """What the kernels are made for."""
    models = [load(checkpoint, attention, dtype) for attention in ("flash_attention_2", "eager")]
    inputs = cast(everything(models[0]), dtype)
    found, expected = (model(**inputs).logits.float() for model in models)
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def stage_inputs(model, stage: str) -> dict[str, torch.Tensor]:
    """A batch of a stage, with two items of several lengths."""
    torch.manual_seed(0)
    (branch,) = STAGES[stage].branches
    steps, mask = ragged((2, 5), (3, 224, 224), "right")
    names = {"video": ("pixel_values_videos", "video_frame_mask"), "audio": ("audio_pixel_values", "audio_clip_mask")}
    inputs = left_padded([prompt(model, branch), prompt(model, branch, tail=7)])
    return {**inputs, **dict(zip(names[branch], (steps.to(model.dtype), mask), strict=True))}


def branch_gradients(model, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the branch, which is kept in float32."""
    found = gradients(model, inputs, answers_of(inputs))
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    return found


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], share: float) -> None:
    """Differences are small against each gradient, or against the others where it is nothing but rounding itself."""
    assert found.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() < share * (expected[name].norm() + 0.01 * largest), name


@pytest.mark.parametrize(("dtype", "share"), ((torch.bfloat16, 0.1), (torch.float16, 0.01)))
@pytest.mark.parametrize("stage", ("vl2", "al2"))
def test_a_branch_in_float32_trains_in_a_model_of_half_precision(checkpoint, stage, dtype, share):
    """Outside autocast, where the branch's attention, as the only one, would get float32."""
    results = []
    for attention in ("flash_attention_2", "eager"):
        model = load(checkpoint, attention, dtype)
        trained = prepare_for_stage(model, STAGES[stage])
        results.append(branch_gradients(model, stage_inputs(model, stage)))
        assert results[-1].keys() == set(trained)
    assert_near(*results, share)


@pytest.fixture(scope="module")
def training(checkpoint):
    """A model in float16 whose video branch trains in float32."""
    model = load(checkpoint, dtype=torch.float16)
    prepare_for_stage(model, STAGES["vl2"])
    return model


def test_features_in_float32_train_a_branch_in_float32(training):
    """As those of a cache may be; the model's own precision is what tells how to attend."""
    inputs = stage_inputs(training, "vl2")
    expected = branch_gradients(training, inputs)
    pixels = inputs.pop("pixel_values_videos")
    features = training.model.get_frame_features(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    found = branch_gradients(training, {**inputs, "video_frame_features": features.detach().float()})
    assert_near(found, expected, 0.01)


def test_autocast_of_the_caller_is_kept(training):
    inputs = cast(part_inputs(training, "video_resampler"), torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        assert training.model.video_resampler(**inputs).pooler_output.dtype == torch.bfloat16
    assert training.model.video_resampler(**inputs).pooler_output.dtype == torch.float32


def test_checkpointing_gives_a_branch_in_float32_the_same_gradients(training):
    inputs = stage_inputs(training, "vl2")
    training.train()
    results = []
    for checkpointing in (False, True):
        if checkpointing:
            checkpoint_activations(training)
        torch.manual_seed(1)  # of the dropout
        results.append(branch_gradients(training, inputs))
    assert_near(*results, 1e-4)
