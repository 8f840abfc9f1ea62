"""
Videos encoded a second, seconds of a prompt, and tokens answered a second, by attention and by the number of videos at
once; and with the language model in 4 bit. On an accelerator, also the memory that all of it takes at most.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, BatchFeature
from transformers.utils import is_flash_attn_2_available

from transformers_videollama.quantization import quantization_config

from .batch import with_features
from .generate import answering, bytes_of_a_token
from .load import write_model
from .measure import Options, copy_rate, flops_of, matrix_rate, seconds_of
from .models import model_of, processor_of, questions_about_noise


__all__ = ["run"]

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")
VIDEOS = {"cpu": (1, 8), "cuda": (1, 8, 64)}


def run(options: Options) -> dict[str, Any]:
    """Rows: attentions and numbers of videos; and one video with the language model in 4 bit."""
    numbers = VIDEOS[options.device.type]
    questions = questions_about_noise(processor_of(options.size), max(numbers)).to(options.device, options.dtype)
    rates = {"matrix FLOP/s": matrix_rate(options), "bytes/s of copying": copy_rate(options)}
    rows, left_out = [], {}
    for name in IMPLEMENTATIONS:
        if name == "flash_attention_2" and not is_flash_attn_2_available():
            left_out[name] = "needs a GPU and the package flash-attn"
            continue
        model = model_of(options, attn_implementation=name)
        rows += [row_of(name, model, first(questions, number), rates, options) for number in numbers]
        del model
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), options)
        model = AutoModelForMultimodalLM.from_pretrained(
            folder, dtype=options.dtype, device_map=options.device, quantization_config=quantization_config("4bit")
        )
        model.requires_grad_(False).eval()
        rows.append(row_of("sdpa, 4 bit", model, first(questions, 1), rates, options))
    return {"rows": rows, **rates, "left out": left_out}


def first(questions: BatchFeature, number: int) -> dict[str, torch.Tensor]:
    return {name: tensor[:number] for name, tensor in questions.items()}


def row_of(name: str, model, questions: dict, rates: dict[str, float], options: Options) -> dict[str, Any]:
    if options.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(options.device)
    number = len(questions["input_ids"])
    videos = {part: questions[part] for part in ("pixel_values_videos", "video_frame_mask")}
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
        "GiB at most": torch.cuda.max_memory_allocated(options.device) / 2**30
        if options.device.type == "cuda"
        else None,
    }
