"""
Tokens a second of answers to 1, 8 and 64 questions at once, behind their first tokens: share of the machine's rate of
copying that the weights and the keys and values are read at, measured in the same run.
"""

from typing import Any

from .batch import with_features
from .generate import answering, bytes_of_a_token, new_tokens
from .measure import Options, copy_rate, forget_peak, peak_gib
from .models import model_of, processor_of, questions_about_noise


__all__ = ["run"]

BATCHES = (1, 8, 64)


def run(options: Options) -> dict[str, Any]:
    """Rows: numbers of questions."""
    model, processor = model_of(options), processor_of(options.size)
    rate = copy_rate(options)
    rows = [row_of(model, processor, number, rate, options) for number in BATCHES]
    return {"rows": rows, "bytes of weights": bytes_of_a_token(model), "bytes/s of copying": rate}


def row_of(model, processor, number: int, rate: float, options: Options) -> dict[str, Any]:
    questions = questions_about_noise(processor, number).to(options.device, options.dtype)
    prompt, _ = with_features(model, questions)
    forget_peak(options.device)
    first_token, another = answering(model, prompt, options)
    tokens = prompt["input_ids"].shape[1] + new_tokens(options) // 2  # in the cache, of each answer, on average
    read = bytes_of_a_token(model) + number * tokens * bytes_of_cache(model)
    return {
        "answers": number,
        "first tokens": first_token,
        "seconds a token of each": another,
        "tokens a second": number / another.median_s,
        "bytes read": read,
        "share of memory rate": read / another.median_s / rate,
        "GiB at most": peak_gib(options.device),
    }


def bytes_of_cache(model) -> int:
    """Of the keys and values of one token."""
    text = model.config.text_config
    values = text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return 2 * values * model.dtype.itemsize
