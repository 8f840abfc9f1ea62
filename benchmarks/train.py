"""
A training step of the Video Q-Former, forward, backward and update: from frames, from features of frames computed
before, with gradient checkpointing; and, for comparison, as it would be if the frozen encoders were not kept out of
autograd. Each in a process of its own.
"""

from collections.abc import Callable
from typing import Any

import torch

from .measure import Options, Timing, memory_of


__all__ = ["run"]

CLIPS, NUM_FRAMES, TEXT_TOKENS = 2, 8, 128
PREPARE = """
import torch
from benchmarks.measure import Options
from benchmarks.models import model_of, processor_of
from benchmarks.train import batch_of, train_step
model = model_of(Options({size!r}, torch.device({device!r}), {dtype}, 1))
batch = batch_of(model, features={features})
{more}
step = train_step(model, batch)
step()
"""
VARIANTS = {
    "frames": {},
    "features of frames": {"features": True},
    "features of frames, checkpointing": {"features": True, "more": "model.gradient_checkpointing_enable()"},
    "frames, encoders in autograd": {"more": "batch['pixel_values_videos'].requires_grad_()"},
}


def run(options: Options) -> dict[str, Any]:
    """Rows: the variants."""
    rows = []
    for name, variant in VARIANTS.items():
        values = {"size": options.size, "device": str(options.device), "dtype": options.dtype}
        preparation = PREPARE.format(**{"features": False, "more": ""} | values | variant)
        runs = [memory_of(preparation, "step()") for _ in range(options.repeats)]
        timing = Timing.of([each.seconds for each in runs])
        rows.append(
            {
                "from": name,
                "seconds a step": timing,
                "tokens a second": CLIPS * TEXT_TOKENS / timing.median_s,
                "MiB more at most": max(each.more_mib for each in runs),
            }
        )
    return {"rows": rows}


def batch_of(model, features: bool) -> dict[str, Any]:
    """Clips with as many tokens of text, of which all are learned."""
    config = model.config
    generator = torch.Generator(model.device).manual_seed(0)
    placeholders = torch.full((CLIPS, config.video_resampler_config.num_query_tokens), config.video_token_id)
    text = torch.randint(3, 1000, (CLIPS, TEXT_TOKENS))
    ids = torch.cat([placeholders, text], dim=1).to(model.device)
    labels = torch.cat([torch.full_like(placeholders, -100), text], dim=1).to(model.device)
    if features:
        name, shape = "video_frame_features", (config.num_query_tokens, config.qformer_config.hidden_size)
    else:
        side = config.vision_config.image_size
        name, shape = "pixel_values_videos", (3, side, side)
    given = torch.randn(CLIPS, NUM_FRAMES, *shape, generator=generator, device=model.device, dtype=model.dtype)
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), name: given}


def train_step(model, batch: dict[str, Any]) -> Callable[[], None]:
    """The branch that stage VL 1 trains, with AdamW."""
    model.requires_grad_(False).train()
    model.model.video_resampler.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.model.video_resampler.parameters(), lr=1e-6)

    def step() -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
