"""
Memory that the weights take, and that an accelerator gives at most while the model is made and while it answers a
question about a video: as it is, and with the language model in 4 bit, by bitsandbytes ("4bit") and by torchao
("int4"), loaded from a folder whose weights are zeros.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from transformers_videollama.quantization import stored_bytes

from .generate import answering
from .load import quantised_model_of
from .measure import Options, forget_peak, peak_gib
from .models import model_of, processor_of, questions_about_noise


__all__ = ["run"]

KINDS = ("4bit", "int4")


def run(options: Options) -> dict[str, Any]:
    """Rows: the dtype that is asked for, and quantisations."""
    questions = questions_about_noise(processor_of(options.size), 1).to(options.device, options.dtype)
    dtype = str(options.dtype).removeprefix("torch.")
    rows, left_out = [row_of(dtype, partial(model_of, options), questions, options)], {}
    for kind in KINDS:
        try:
            rows.append(row_of(kind, partial(quantised_model_of, kind, options), questions, options))
        except (
            ImportError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # its package is not there, or does not fit this machine
            left_out[kind] = f"{type(error).__name__}: {error}"
    if options.device.type == "cpu":
        left_out["GiB at most"] = "is counted on an accelerator alone"
    return {"rows": rows, "left out": left_out}


def row_of(kind: str, make: Callable[[], Any], questions: Any, options: Options) -> dict[str, Any]:
    gc.collect()  # the model before
    if options.device.type == "cuda":
        torch.cuda.empty_cache()
    forget_peak(options.device)
    model = make()
    making = peak_gib(options.device)
    forget_peak(options.device)
    first_token, another = answering(model, questions, options)
    return {
        "weights": kind,
        "GiB of weights": stored_bytes(model) / 2**30,
        "GiB at most, made": making,
        "GiB at most, answering": peak_gib(options.device),
        "video and prompt": first_token,
        "seconds a token": another,
    }
