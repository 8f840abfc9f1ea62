"""
A training step of the Video Q-Former, from rows of a dataset to updated weights: from video files, from features
computed before, with gradient checkpointing; and, for comparison, as it would be if the frozen encoders were not kept
out of autograd. Each in a process of its own. Of the size 7b, the encoders have the released size, and the language
model of the small size stands in for the released one.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from transformers_videollama.training import precompute, prepare_for_stage
from transformers_videollama.training.datasets import load_messages
from transformers_videollama.training.feature_cache import FeatureCache, FeatureDataset, load_features

from .clips import long_clip
from .measure import Options, Timing, memory_of, seconds_of
from .models import checkpoint_activations, save_training_model
from .step import CAPTION, STAGE, step_of


__all__ = ["run", "training_step"]

CLIPS, NUM_FRAMES = 2, 8
READ_ROWS, READ_SHARD = 1024, 256
PREPARE = """
import pathlib, torch
from benchmarks.train import training_step
step = training_step(pathlib.Path({folder!r}), {device!r}, {dtype}, **{variant})
step()
"""
VARIANTS: dict[str, dict[str, bool]] = {
    "video files": {},
    "features": {"from_features": True},
    "features, checkpointing": {"from_features": True, "checkpointing": True},
    "video files, encoders in autograd": {"in_autograd": True},
}


def run(options: Options) -> dict[str, Any]:
    """Rows: the variants. Beside them, what features cost once, and how fast one process reads them, shuffled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_training_model(folder / "model", options.size)
        write_data(folder)
        started = time.perf_counter()
        compute_features(folder, options)
        computing = (time.perf_counter() - started) / CLIPS
        collator = STAGE.collator(AutoProcessor.from_pretrained(folder / "model"), recipe="paper")
        rows = load_messages(folder / "clips.csv", format="webvid")
        tokens = int(collator([rows[i] for i in range(CLIPS)])["attention_mask"].sum())
        # Of the released size, the encoders would keep about six times as much in autograd as of the small one
        variants = [name for name in VARIANTS if options.size != "7b" or "autograd" not in name]
        measured = [row_of(name, folder, tokens, options) for name in variants]
        reading = reading_rate(folder / "reading", options.repeats)
    return {"rows": measured, "seconds for the features of a row": computing, "rows read a second": reading}


def row_of(name: str, folder: Path, tokens: int, options: Options) -> dict[str, Any]:
    values = {"folder": str(folder), "device": str(options.device), "dtype": options.dtype}
    preparation = PREPARE.format(variant=VARIANTS[name], **values)
    runs = [memory_of(preparation, "step()") for _ in range(options.repeats)]
    timing = Timing.of([each.seconds for each in runs])
    return {
        "from": name,
        "seconds a step": timing,
        "tokens a second": tokens / timing.median_s,
        "MiB more at most": max(each.more_mib for each in runs),
    }


def write_data(folder: Path) -> None:
    for number in range(CLIPS):
        long_clip(folder / f"{number}.mp4", minutes=0.1, size=(320, 240))
    lines = "".join(f"{number},.,{CAPTION}\n" for number in range(CLIPS))
    (folder / "clips.csv").write_text(f"videoid,page_dir,name\n{lines}")


def compute_features(folder: Path, options: Options) -> None:
    precompute(
        folder / "clips.csv",
        folder / "features",
        model=str(folder / "model"),
        format="webvid",
        load_audio_from_video=False,
        device=str(options.device),
        dtype=str(options.dtype).removeprefix("torch."),
    )


def training_step(
    folder: Path,
    device: str,
    dtype: torch.dtype,
    from_features: bool = False,
    checkpointing: bool = False,
    in_autograd: bool = False,
) -> Callable[[], None]:
    """A step as the `Trainer` does it in one process: reading and collating the rows, forward, backward, AdamW."""
    model = AutoModelForMultimodalLM.from_pretrained(folder / "model", dtype=dtype, device_map=device)
    collator = STAGE.collator(AutoProcessor.from_pretrained(folder / "model"), recipe="paper")
    rows: Sequence[Any] = load_messages(folder / "clips.csv", format="webvid")
    if from_features:
        rows = load_features(folder / "features", model, collator.processor_as_trained())
    if checkpointing:
        checkpoint_activations(model)
    prepare_for_stage(model, STAGE)
    return step_of(model.train(), collator, rows, in_autograd)


def reading_rate(folder: Path, repeats: int) -> float:
    """Rows a second of features of the released size in float32, 0.8 MB each, from files that are in memory."""
    block = {"type": "video", "text": None, "path": "clip.mp4"}
    rows = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": [block]}]}] * READ_ROWS)
    options = {"branch": "video", "dtype": "float32", "shard_size": READ_SHARD, "num_rows": READ_ROWS}
    cache = FeatureCache.create(folder, {"options": options}, rows)
    for shard in range(cache.num_shards):
        features = {f"{row}.0.0": torch.randn(NUM_FRAMES, 32, 768) for row in cache.shard_rows(shard)}
        cache.write_shard(shard, features, {})
    dataset = FeatureDataset(cache)
    order = np.random.default_rng(0).permutation(READ_ROWS)
    return READ_ROWS / seconds_of(lambda: [dataset[i] for i in order], repeats).median_s
