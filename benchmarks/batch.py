"""
Eight questions about eight videos, in one batch and one by one: answers of 32 tokens, with the videos encoded in the
same call, and with their features computed before.
"""

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .measure import Options, seconds_of
from .models import model_of, processor_of, questions_about_noise


__all__ = ["run"]

BATCH = 8
GENERATING = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}


def run(options: Options) -> dict[str, Any]:
    """Rows: both ways, with and without encoding."""
    model, processor = model_of(options), processor_of(options.size)
    together = questions_about_noise(processor, BATCH).to(options.device, options.dtype)
    singles = [{name: values[i : i + 1] for name, values in together.items()} for i in range(BATCH)]
    rows = rows_of("encoded in the call", model, together, singles, options)
    rows += rows_of("features computed before", model, *with_features(model, together), options)
    return {"rows": rows}


def rows_of(name: str, model, together: dict, singles: list[dict], options: Options) -> list[dict[str, Any]]:
    def answer(*prompts: dict) -> None:
        for inputs in prompts:
            model.generate(**inputs, **GENERATING)

    one_by_one = seconds_of(lambda: answer(*singles), options.repeats, options.device)
    at_once = seconds_of(lambda: answer(together), options.repeats, options.device)
    tokens = BATCH * GENERATING["max_new_tokens"]
    return [
        {
            "videos": name,
            "answers": how,
            "seconds": timing,
            "tokens a second": tokens / timing.median_s,
            "times one by one": one_by_one.median_s / timing.median_s,
        }
        for how, timing in (("one by one", one_by_one), ("a batch", at_once))
    ]


@torch.no_grad()
def with_features(model, inputs: dict) -> tuple[dict, list[dict]]:
    """The same prompts with what `get_video_features` gives, for a batch and for each."""
    seen = model.get_video_features(inputs["pixel_values_videos"], inputs["video_frame_mask"]).pooler_output

    def prompt(rows: slice) -> dict:
        text = {name: inputs[name][rows] for name in ("input_ids", "attention_mask")}
        return {**text, "mm_encoder_outputs": {"video": BaseModelOutputWithPooling(pooler_output=seen[rows])}}

    return prompt(slice(None)), [prompt(slice(i, i + 1)) for i in range(len(seen))]
