"""
Tokens of a prompt that the language model reads a second, by attention: share of the machine's rate for a large matrix
product in the same dtype, measured in the same run, and how far what is answered first is from eager attention's.
"""

from typing import Any

import torch

from .attention import available, using
from .measure import Options, difference, flops_of, forget_peak, matrix_rate, peak_gib, seconds_of
from .models import model_of


__all__ = ["run"]

PROMPTS = {"cpu": ((1, 256), (4, 256)), "cuda": ((1, 2048), (8, 2048))}  # how many at once, and their tokens
FIRST_ID = 3  # behind the tokenizer's own symbols


def run(options: Options) -> dict[str, Any]:
    """Rows: attentions and numbers of prompts."""
    model = model_of(options)
    rate = matrix_rate(options)
    implementations, left_out = available(options)
    rows = []
    for shape in PROMPTS[options.device.type]:
        beyond = min(getattr(model.config, f"{kind}_token_id") for kind in ("image", "video", "audio"))
        ids = torch.randint(FIRST_ID, beyond, shape, device=options.device)
        with using(model, "eager"):  # whose products are all counted
            flops = flops_of(lambda ids=ids: read(model, ids))
            expected = read(model, ids)
        for name in implementations:
            with using(model, name):
                rows.append({"attention": name, **row_of(model, ids, flops, expected, rate, options)})
    return {"rows": rows, "matrix FLOP/s": rate, "left out": left_out}


@torch.no_grad()
def read(model, ids: torch.Tensor) -> torch.Tensor:
    """(B, 1, vocabulary): the logits behind each prompt; keys and values are kept, as for an answer."""
    return model(input_ids=ids, use_cache=True, logits_to_keep=1).logits


def row_of(
    model, ids: torch.Tensor, flops: int, expected: torch.Tensor, rate: float, options: Options
) -> dict[str, Any]:
    forget_peak(options.device)
    timing = seconds_of(lambda: read(model, ids), options.repeats, options.device)
    return {
        "prompts": len(ids),
        "tokens of each": ids.shape[1],
        "seconds": timing,
        "tokens a second": ids.numel() / timing.median_s,
        "share of matrix rate": flops / timing.median_s / rate,
        "differs from eager by": difference(read(model, ids), expected),
        "GiB at most": peak_gib(options.device),
    }
