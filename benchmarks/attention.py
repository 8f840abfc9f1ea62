"""
Videos encoded a second, seconds of a prompt, and tokens answered a second, by attention and by the number of videos at
once, and how far features and logits are from eager attention's. On a CPU also with the language model in 4 bit, which
on an accelerator `memory` measures; on an accelerator also the memory that all of it takes at most.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import BatchFeature
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_flash_attn_4_available

from .batch import with_features
from .generate import answering, bytes_of_a_token
from .load import quantised_model_of
from .measure import Options, copy_rate, difference, flops_of, forget_peak, matrix_rate, peak_gib, seconds_of
from .models import model_of, processor_of, questions_about_noise


__all__ = ["available", "run", "using"]

FLASH = {
    "flash_attention_2": ("flash-attn", is_flash_attn_2_available),
    "flash_attention_3": ("flash-attn-3", is_flash_attn_3_available),
    "flash_attention_4": ("flash-attn-4", is_flash_attn_4_available),
}
VIDEOS = (1, 8)
SDPA = "aten::_scaled_dot_product_"  # what the names of its kernels begin with


def run(options: Options) -> dict[str, Any]:
    """Rows: attentions and numbers of videos; and one video with the language model in 4 bit."""
    questions = questions_about_noise(processor_of(options.size), max(VIDEOS)).to(options.device, options.dtype)
    rates = {"matrix FLOP/s": matrix_rate(options), "bytes/s of copying": copy_rate(options)}
    model = model_of(options)
    with using(model, "eager"):
        expected = {number: outputs_of(model, first(questions, number)) for number in VIDEOS}
    implementations, left_out = available(options)
    rows = []
    for name in implementations:
        with using(model, name):
            for number in VIDEOS:
                chosen = first(questions, number)
                row = row_of(name, model, chosen, rates, options)
                rows.append(row | differences(outputs_of(model, chosen), expected[number]))
    with using(model, "sdpa"):
        kernels = kernels_of(model, questions)
    del model
    if options.device.type == "cpu":
        rows.append(row_of("sdpa, 4 bit", quantised_model_of("4bit", options), first(questions, 1), rates, options))
    return {"rows": rows, **rates, "kernels of sdpa": kernels, "left out": left_out}


def available(options: Options) -> tuple[list[str], dict[str, str]]:
    """Implementations of attention that run here, and why others do not."""
    names, left_out = ["eager", "sdpa"], {}
    for name, (package, is_available) in FLASH.items():
        if options.device.type == "cpu":
            left_out[name] = "needs a GPU"
        elif options.dtype == torch.float32:
            left_out[name] = "needs weights of 16 bits"
        elif not is_available():
            left_out[name] = f"needs the package {package}"
        else:
            names.append(name)
    return names, left_out


@contextmanager
def using(model, implementation: str) -> Iterator[None]:
    """All parts of a model attend by an implementation."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    yield
    model.set_attn_implementation(before)


def first(questions: BatchFeature, number: int) -> dict[str, torch.Tensor]:
    return {name: tensor[:number] for name, tensor in questions.items()}


def videos_of(questions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {part: questions[part] for part in ("pixel_values_videos", "video_frame_mask")}


@torch.no_grad()
def outputs_of(model, questions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    features = model.get_video_features(**videos_of(questions)).pooler_output
    return {"features": features, "logits": model(**questions, logits_to_keep=1).logits}


def differences(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    return {f"{name} differ from eager's by": difference(found[name], expected[name]) for name in found}


def kernels_of(model, questions: BatchFeature) -> dict[str, int]:
    """What torch chose for sdpa in one forward pass, and how often."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        outputs_of(model, dict(questions))
    counts = {event.key: event.count for event in profiled.key_averages()}
    return {name.removeprefix(SDPA): count for name, count in counts.items() if name.startswith(SDPA)}


def row_of(name: str, model, questions: dict, rates: dict[str, float], options: Options) -> dict[str, Any]:
    forget_peak(options.device)
    number = len(questions["input_ids"])
    videos = videos_of(questions)
    with torch.no_grad():
        flops = flops_of(lambda: model.get_video_features(**videos))
        encoding = seconds_of(lambda: model.get_video_features(**videos), options.repeats, options.device)
        prompt, _ = with_features(model, questions)
    first_token, another = answering(model, prompt, options)
    return {
        "attention": name,
        "videos": number,
        "encoding": encoding,
        "videos encoded a second": number / encoding.median_s,
        "share of matrix rate": flops / encoding.median_s / rates["matrix FLOP/s"],
        "prompt": first_token,
        "seconds a token": another,
        "tokens a second": number / another.median_s,
        "share of memory rate": bytes_of_a_token(model) / another.median_s / rates["bytes/s of copying"],
        "GiB at most": peak_gib(options.device),
    }
