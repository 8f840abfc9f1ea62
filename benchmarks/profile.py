"""
A question about a video file with sound, from the file to an answer of 32 tokens, under torch's profiler: which parts
take the time, and which operators take most of it themselves.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from .clips import long_clip
from .measure import Options, wait_for
from .models import model_of, processor_of


__all__ = ["run"]

ANSWER = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}
PROCESSOR, GENERATE, REST = "processor: file to tensors", "generate", "generate, what is left"
ENCODERS = ("vision_tower", "qformer", "video_resampler", "audio_tower", "audio_resampler")
PROMPT, TOKENS = "language_model, the prompt", "language_model, token by token"
NUM_OPERATORS = 12


def run(options: Options) -> dict[str, Any]:
    """Rows: the parts, and the operators."""
    model, processor = model_of(options), processor_of(options.size)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as marks:
        clip = str(long_clip(Path(folder) / "clip.mp4", minutes=1))
        for name in ENCODERS:
            marks.enter_context(marked(getattr(model.model, name), lambda _, name=name: name, options.device))
        marks.enter_context(marked(model.model.language_model, prompt_or_token, options.device))
        answer(model, processor, clip, options.device)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if options.device.type == "cuda" else [])]
        with profile(activities=activities) as profiled:
            answer(model, processor, clip, options.device)
    events = {event.key: event for event in profiled.key_averages()}
    return {"rows": [*parts(events), *operators(events, options.device)]}


@torch.no_grad()
def answer(model, processor, clip: str, device: torch.device) -> None:
    question = [{"type": "video", "path": clip}, {"type": "text", "text": "What do you see and hear?"}]
    with record_function(PROCESSOR):
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            load_audio_from_video=True,
        )
    with record_function(GENERATE):
        model.generate(**inputs.to(device, model.dtype), **ANSWER)
        wait_for(device)


@contextmanager
def marked(module: torch.nn.Module, name_of: Callable[[dict], str], device: torch.device) -> Iterator[None]:
    """The calls of a module are events of the profiler."""
    running: list[record_function] = []

    def enter(_module, _args, kwargs: dict) -> None:
        running.append(record_function(name_of(kwargs)))
        running[-1].__enter__()

    def leave(*_) -> None:
        wait_for(device)
        running.pop().__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    yield
    for hook in hooks:
        hook.remove()


def prompt_or_token(inputs: dict[str, Any]) -> str:
    return PROMPT if inputs["inputs_embeds"].shape[1] > 1 else TOKENS


def parts(events: dict[str, Any]) -> list[dict[str, Any]]:
    seconds = {name: event.cpu_time_total / 1e6 for name, event in events.items()}
    named = {name: seconds[name] for name in (PROCESSOR, *ENCODERS, PROMPT, TOKENS)}
    total = seconds[PROCESSOR] + seconds[GENERATE]
    named[REST] = total - sum(named.values())
    return [{"what": name, "seconds": taken, "share": taken / total} for name, taken in named.items()]


def operators(events: dict[str, Any], device: torch.device) -> list[dict[str, Any]]:
    of_device = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    own = {name: getattr(event, of_device) / 1e6 for name, event in events.items() if name.startswith("aten::")}
    longest = sorted(own, key=own.get, reverse=True)[:NUM_OPERATORS]
    return [
        {"what": name, "seconds": own[name], "share": own[name] / sum(own.values()), "calls": events[name].count}
        for name in longest
    ]
