"""Time to the first token of a first and of a second question about a video with sound, from the mp4 file on."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from examples.render_clip import render_clip
from transformers_videollama import ConversationAnswer, VideoLlamaConversation

from .measure import Options, Timing, flops_of, matrix_rate, wait_for
from .models import model_of, processor_of


__all__ = ["run"]

FIRST, SECOND = "What do you see and hear in this video?", "And what happens at the end?"
GENERATING = {"max_new_tokens": 16, "do_sample": False}


class FirstToken(BaseStreamer):
    """Notes when the first token comes; what `generate` puts before it is the prompt."""

    def __init__(self, device: torch.device):
        self.device = device
        self.calls = 0
        self.time = 0.0

    def put(self, value: torch.Tensor) -> None:
        self.calls += 1
        if self.calls == 2:
            wait_for(self.device)
            self.time = time.perf_counter()

    def end(self) -> None:
        """Nothing is held back."""


def run(options: Options) -> dict[str, Any]:
    """Rows: the first question, the second that goes on from the cache, and the second that begins anew."""
    model, processor = model_of(options), processor_of(options.size)
    with tempfile.TemporaryDirectory() as folder:
        size = (320, 240) if options.size == "tiny" else (1280, 720)
        clip = str(render_clip(Path(folder) / "clip.mp4", seconds=10, size=size, keyframe_interval=50))
        opening = [{"type": "video", "path": clip}, {"type": "text", "text": FIRST}]
        rounds = [talk(model, processor, opening) for _ in range(options.repeats + 1)][1:]
        ask = VideoLlamaConversation(model, processor).ask
        flops = flops_of(lambda: ask(opening, max_new_tokens=1, do_sample=False))
    rate = matrix_rate(options)
    rows = []
    for question, (_, _, told) in rounds[0].items():
        seconds, core_seconds = ([each[question][i] for each in rounds] for i in (0, 1))
        rows.append({"question": question, "first token after, s": Timing.of(seconds, core_seconds), **told})
    first = rows[0]["first token after, s"].median_s
    for row in rows:
        row["of the first"] = row["first token after, s"].median_s / first
    rows[0]["share of matrix rate"] = flops / first / rate
    return {"matrix_flops_per_s": rate, "flops_of_the_first": flops, "rows": rows}


def talk(model, processor, opening: list[dict]) -> dict[str, tuple[float, float, dict]]:
    """One conversation: question -> seconds to its first token, those of all cores, and what was computed for it."""
    conversation = VideoLlamaConversation(model, processor)

    def ask(content) -> tuple[float, float, ConversationAnswer]:
        return to_first_token(model, lambda streamer: conversation.ask(content, streamer=streamer, **GENERATING))

    *first_seconds, first = ask(opening)
    messages = [{"role": "user", "content": opening}, conversation.messages[-1], {"role": "user", "content": SECOND}]
    *second_seconds, second = ask(SECOND)
    *anew_seconds, text = to_first_token(model, lambda streamer: answer_to(model, processor, messages, streamer))
    tokens = [{"prompt tokens": answer.prompt_tokens, "reused": answer.reused_tokens} for answer in (first, second)]
    return {
        "first": (*first_seconds, tokens[0]),
        "second": (*second_seconds, tokens[1]),
        "second, anew": (*anew_seconds, {**tokens[1], "reused": 0, "same answer": text == second.text}),
    }


def answer_to(model, processor, messages: list[dict], streamer: BaseStreamer) -> str:
    """As without a conversation: everything is opened, encoded and read again."""
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device, model.dtype)
    new = model.generate(**inputs, streamer=streamer, **GENERATING)[:, inputs["input_ids"].shape[1] :]
    return processor.post_process_image_text_to_text(new)[0].strip()


def to_first_token(model, call: Callable[[BaseStreamer], Any]) -> tuple[float, float, Any]:
    """Seconds to the first token, seconds of all cores in the whole call, and what the call returns"""
    streamer = FirstToken(model.device)
    started, started_cores = time.perf_counter(), time.process_time()
    result = call(streamer)
    return streamer.time - started, time.process_time() - started_cores, result
