"""
A training step of the Video Q-Former with the language model of the size that is measured, in one process: a batch
from video files, from features computed before, and with gradient checkpointing. On an accelerator, also the memory
that the step takes at most.
"""

import gc
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.render_clip import render_clip
from transformers_videollama import EncodedMedia, VideoLlamaForConditionalGeneration
from transformers_videollama.training import STAGES, VideoLlamaDataCollator, prepare_for_stage

from .measure import Options, forget_peak, peak_gib, seconds_of
from .models import checkpoint_activations, model_of, processor_of


__all__ = ["CAPTION", "STAGE", "run", "step_of"]

STAGE = STAGES["vl1"]
BATCH = 8
CAPTION = " ".join(["a red ball swings over the ground and a bell rings twice"] * 10)


def run(options: Options) -> dict[str, Any]:
    """Rows: where the batch comes from, and checkpointing."""
    model, processor = model_of(options), processor_of(options.size)
    prepare_for_stage(model, STAGE)
    collator = STAGE.collator(processor, recipe="paper")
    batch = 2 if options.size == "tiny" else BATCH
    with tempfile.TemporaryDirectory() as folder:
        clips = [str(render_clip(Path(folder) / f"{seed}.mp4", seconds=6, seed=seed)) for seed in range(batch)]
        files = [row_about(clip) for clip in clips]
        features = [row_about(EncodedMedia(each)) for each in features_of(model, collator(files))]
        measured = [measure_step("video files", model.train(), collator, files, options)]
    measured.append(measure_step("features", model, collator, features, options))
    checkpoint_activations(model)
    measured.append(measure_step("features, checkpointing", model, collator, features, options))
    return {"rows": measured, "stage": STAGE.name, "rows of a batch": batch}


def row_about(video: str | EncodedMedia) -> dict[str, list[dict]]:
    return {
        "messages": [
            {"role": "user", "content": [{"type": "video", "video": video}]},
            {"role": "assistant", "content": [{"type": "text", "text": CAPTION}]},
        ]
    }


@torch.no_grad()
def features_of(model: VideoLlamaForConditionalGeneration, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What `videollama precompute` keeps of each video, (T, Q, D)."""
    videos = batch["pixel_values_videos"].to(model.device, model.dtype)
    return [model.model.get_frame_features(frames).cpu() for frames in videos]


def measure_step(
    name: str,
    model: VideoLlamaForConditionalGeneration,
    collator: VideoLlamaDataCollator,
    rows: Sequence[Any],
    options: Options,
) -> dict[str, Any]:
    gc.collect()  # what the step before left
    forget_peak(options.device)
    step = step_of(model, collator, rows)
    tokens = int(collator(rows)["attention_mask"].sum())
    reading = seconds_of(lambda: collator(rows), options.repeats)
    timing = seconds_of(step, options.repeats, options.device)
    return {
        "from": name,
        "seconds a step": timing,
        "of which reading the rows": reading.median_s,
        "tokens a second": tokens / timing.median_s,
        "GiB at most": peak_gib(options.device),
    }


def step_of(
    model: VideoLlamaForConditionalGeneration,
    collator: VideoLlamaDataCollator,
    rows: Sequence[Any],
    in_autograd: bool = False,
) -> Callable[[], None]:
    """A step as the `Trainer` does it in one process: reading and collating the rows, forward, backward, AdamW."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-6)

    def step() -> None:
        batch = {name: tensor.to(model.device) for name, tensor in collator(rows).items()}
        if in_autograd:
            batch["pixel_values_videos"].requires_grad_()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
