"""
Frames to the features that the language model gets: vision tower, Q-Former and Video Q-Former, of random weights. The
share is that of the machine's rate for a large matrix product in the same dtype, measured in the same run.
"""

from typing import Any

import torch

from transformers_videollama import VideoLlamaModel

from .measure import Options, flops_of, forget_peak, matrix_rate, memory_of, peak_gib, seconds_of
from .models import vision_model_of


__all__ = ["run"]

NUM_FRAMES = 8
CLIPS = {"cpu": (1, 2), "cuda": (1, 8, 64)}
FRAMES_OF_MEMORY, ENCODED_AT_ONCE = (16, 64, 256), 16


def run(options: Options) -> dict[str, Any]:
    """Rows: one clip and a batch of them, in the dtype that is asked for and in bfloat16."""
    rows, rates = [], {}
    for dtype in dict.fromkeys((options.dtype, torch.bfloat16)):
        measured = Options(options.size, options.device, dtype, options.repeats)
        rates[str(dtype)] = matrix_rate(measured)
        model = vision_model_of(measured)
        rows += [row_of(model, clips, measured, rates[str(dtype)]) for clips in CLIPS[options.device.type]]
        del model
    first = rows[0]["seconds"].median_s
    for row in rows:
        row["a clip, of the first"] = row["seconds"].median_s / row["clips"] / first
    if options.device.type == "cuda":
        return {"rows": rows, "matrix FLOP/s": rates}
    size, numbers = ("tiny", FRAMES_OF_MEMORY[:1]) if options.size == "tiny" else ("small", FRAMES_OF_MEMORY)
    memory = {f"{frames} frames": memory_of_frames(frames, size) for frames in numbers}
    return {"rows": rows, "matrix FLOP/s": rates, f"MiB with encode_batch_size={ENCODED_AT_ONCE}, {size}": memory}


@torch.no_grad()
def row_of(model: VideoLlamaModel, clips: int, options: Options, rate: float) -> dict[str, Any]:
    side = model.config.vision_config.image_size
    pixels = torch.randn(clips, NUM_FRAMES, 3, side, side, device=options.device, dtype=options.dtype)
    flops = flops_of(lambda: model.get_video_features(pixels))
    forget_peak(options.device)
    timing = seconds_of(lambda: model.get_video_features(pixels), options.repeats, options.device)
    return {
        "weights": str(options.dtype).removeprefix("torch."),
        "clips": clips,
        "seconds": timing,
        "frames a second": clips * NUM_FRAMES / timing.median_s,
        "TFLOP": flops / 1e12,
        "share of matrix rate": flops / timing.median_s / rate,
        "GiB at most": peak_gib(options.device),
    }


def memory_of_frames(frames: int, size: str) -> float:
    """MiB at most beside the model and the pixels, in clips of 8 frames."""
    preparation = (
        "import torch\n"
        "from benchmarks.measure import Options\n"
        "from benchmarks.models import vision_model_of\n"
        f"model = vision_model_of(Options({size!r}, torch.device('cpu'), torch.float32, 1))\n"
        "side = model.config.vision_config.image_size\n"
        f"model.config.encode_batch_size = {ENCODED_AT_ONCE}\n"
        f"pixels = torch.randn({frames // NUM_FRAMES}, {NUM_FRAMES}, 3, side, side)\n"
        "torch.no_grad().__enter__()\n"
        "model.get_video_features(pixels[:1])\n"
    )
    return memory_of(preparation, "model.get_video_features(pixels)").more_mib
