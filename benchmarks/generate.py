"""
Tokens a second of an answer about a video, behind its first token, one answer at a time: how often the media are
encoded, what a static cache and a compiled model bring, and how near the weights are read at the machine's own speed:
that of copying, and that of products of a vector with matrices.
"""

import time
from typing import Any

import torch

from .measure import Options, Timing, copy_rate, vector_rate, wait_for
from .models import model_of, processor_of, questions_about_noise


__all__ = ["answering", "bytes_of_a_token", "new_tokens", "run"]


def run(options: Options) -> dict[str, Any]:
    """Rows: caches and compilation."""
    model, processor = model_of(options), processor_of(options.size)
    inputs = questions_about_noise(processor, 1).to(options.device, options.dtype)
    encoded = count_calls(model, inputs)
    read = bytes_of_a_token(model)
    rates = {"copying": copy_rate(options), "products with a vector": vector_rate(options)}
    rows = []
    for name, generating in (("dynamic cache", {}), ("static cache", {"cache_implementation": "static"})):
        rows.append(row_of(name, model, inputs, generating, options))
    model.forward = torch.compile(model.forward, fullgraph=True)
    static = {"cache_implementation": "static"}
    rows.append(row_of("static cache, compiled", model, inputs, static, options))
    for row in rows:
        for what, rate in rates.items():
            row[f"share of the rate of {what}"] = read * row["tokens a second"] / rate
        row["times the first"] = row["tokens a second"] / rows[0]["tokens a second"]
    return {"rows": rows, "bytes read for a token": read, "bytes/s": rates, "calls of encoders": encoded}


def bytes_of_a_token(model) -> int:
    """Of the weights that one more token is computed with; of the embeddings, that is a single row."""
    language = model.model.language_model
    return sum(p.nbytes for p in (*language.layers.parameters(), *language.norm.parameters(), model.lm_head.weight))


def count_calls(model, inputs: dict) -> dict[str, int]:
    """How often each encoder runs in one call of `generate`."""
    calls = {"vision_tower": 0, "qformer": 0, "video_resampler": 0}

    def count(name: str):
        def hook(module, args, output) -> None:
            calls[name] += 1

        return hook

    hooks = [getattr(model.model, name).register_forward_hook(count(name)) for name in calls]
    model.generate(**inputs, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    for hook in hooks:
        hook.remove()
    return calls


def row_of(name: str, model, inputs: dict, generating: dict, options: Options) -> dict[str, Any]:
    _, another = answering(model, inputs, options, **generating)
    return {"cache": name, "seconds a token": another, "tokens a second": 1 / another.median_s}


def new_tokens(options: Options) -> int:
    """Of an answer whose time is taken."""
    return 8 if options.size == "tiny" else 48


def answering(model, inputs: dict[str, Any], options: Options, **generating) -> tuple[Timing, Timing]:
    """Seconds to the first token, and for each that follows."""
    tokens = new_tokens(options)

    def seconds(number: int) -> float:
        length = {"max_new_tokens": number, "min_new_tokens": number}
        wait_for(options.device)
        started = time.perf_counter()
        model.generate(**inputs, **length, do_sample=False, **generating)
        wait_for(options.device)
        return time.perf_counter() - started

    for number in (tokens, 1):  # compiles
        seconds(number)
    pairs = [(seconds(1), seconds(tokens)) for _ in range(options.repeats)]
    another = [(whole - first) / (tokens - 1) for first, whole in pairs]
    return Timing.of([first for first, _ in pairs]), Timing.of(another)
