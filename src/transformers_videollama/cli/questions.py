"""`videollama ask` and `videollama chat`: questions about files."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ..tiny import TINY_CHECKPOINT
from .trained import add_trained_options


if TYPE_CHECKING:
    from ..modeling_video_llama import VideoLlamaForConditionalGeneration
    from ..processing_video_llama import VideoLlamaProcessor

__all__ = ["add_commands", "run"]

TINY_NOTE = (
    "videollama: no --model is named, so this package's tiny model answers. It knows coloured shapes that move, and "
    "eight sounds; for anything else, name a checkpoint."
)


def add_commands(commands: Any) -> None:
    """
    Args:
        commands: what `ArgumentParser.add_subparsers` returns.
    """
    ask = commands.add_parser("ask", help="answer one question and end")
    ask.add_argument(
        "inputs", nargs="+", metavar="FILE", help="videos, images or sounds (paths or URLs), then a question"
    )
    chat = commands.add_parser("chat", help="answer questions from standard input, one a line, until it ends")
    chat.add_argument("inputs", nargs="*", metavar="FILE", help="videos, images or sounds (paths or URLs)")
    for command in (ask, chat):
        _add_options(command)


def run(args: argparse.Namespace) -> None:
    """Answers on standard output."""
    if args.command == "chat":
        _Talk(args).talk()
        return
    if len(args.inputs) + len(args.image) < 2:
        raise ValueError('ask takes files and a question, as in: videollama ask clip.mp4 "What is happening?"')
    _Talk(args).ask(args.inputs[-1])


def _add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--model",
        help="folder of a converted checkpoint, or its id on the Hub (default: this package's tiny one)",
    )
    add_trained_options(command)
    add("--image", action="append", default=[], metavar="FILE", help="a further image; can be repeated")
    add("--no-audio", action="store_true", help="leave out the sound of videos")
    add("--num-frames", type=int, metavar="N", help="frames taken of each video (default: the processor's, 8)")
    add("--start", type=float, metavar="SECONDS", help="take frames and sound from here on")
    add("--end", type=float, metavar="SECONDS", help="take frames and sound up to here")
    add(
        "--sampling",
        choices=("uniform", "time", "headtail"),
        help="take frames evenly by number, evenly in time, or at random (default: the processor's, uniform)",
    )
    add("--video-stream", type=_track, metavar="TRACK", help="take this track: its index in the file, or its language")
    add("--audio-stream", type=_track, metavar="TRACK", help="hear this track: its index in the file, or its language")
    add("--on-damage", choices=("raise", "skip"), help="skip frames that cannot be decoded (default: raise)")
    add(
        "--decoder",
        choices=("pyav", "decord", "torchcodec"),
        help="what decodes the frames of videos (default: the processor's, pyav)",
    )
    add("--max-new-tokens", type=int, metavar="N", help="longest answer (default: the model's, 300)")
    add("--greedy", action="store_true", help="take the likeliest token instead of sampling")
    add("--device", help="cpu, cuda, cuda:1, ..., or auto to spread the model (default: cuda where there is one)")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="(default: the model's; with int4 and int8, bfloat16)",
    )
    add(
        "--quantize",
        choices=("4bit", "8bit", "int4", "int8"),
        help="quantise the language model while loading, with bitsandbytes (4bit, 8bit) or torchao (int4, int8)",
    )
    add("--json", action="store_true", help="print one JSON object for each answer instead of streaming it")


def _track(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


class _Talk:
    """A conversation on the command line, about files."""

    def __init__(self, args: argparse.Namespace):
        from ..adapters import load_checkpoint, processor_source
        from ..conversation import VideoLlamaConversation

        self.args = args
        if args.model is None:
            args.model = TINY_CHECKPOINT
            print(TINY_NOTE, file=sys.stderr)  # noqa: T201
        files = args.inputs[:-1] if args.command == "ask" else args.inputs
        self.sources = [*files, *args.image]
        self.processor = load_checkpoint(processor_source(args.model, args.adapter, args.branch), "AutoProcessor")
        # Every file is opened once, and before the model is loaded, which takes long
        self.blocks = [self._open(file) for file in files] + [self._open(file, "image") for file in args.image]
        self.conversation = VideoLlamaConversation(
            _load_model(args), self.processor, load_audio_from_video=False if args.no_audio else None
        )

    def _open(self, source: str, kind: str | None = None) -> dict[str, Any]:
        """A block of the conversation, which holds the opened medium."""
        from ..media import load_image, load_sound, media_kind
        from ..media.sources import folder_of, local_file

        file = folder_of(source) or local_file(source)
        kind = kind or media_kind(file)
        if kind == "image":
            return {"type": kind, kind: load_image(file)}
        options = {name: getattr(self.args, name) for name in ("start", "end", "audio_stream")}
        if kind == "audio":
            return {"type": kind, kind: load_sound(file, **options)}
        names = ("num_frames", "sampling", "video_stream", "on_damage", "decoder")
        options |= {name: getattr(self.args, name) for name in names}
        return {"type": kind, kind: self.processor.video_processor.open_videos([file], **options)[0]}

    def talk(self) -> None:
        for line in sys.stdin:
            if question := line.strip():
                self.ask(question)

    def ask(self, question: str) -> None:
        """Answers on standard output; the media stand in the first question."""
        from ..quantization import stored_bytes

        content = [{"type": "text", "text": question}]
        started = time.perf_counter()
        answer = self.conversation.ask(
            content if self.conversation.messages else self.blocks + content, **self._generation_options()
        )
        if self.args.json:
            report = {
                "question": question,
                "answer": answer.text,
                "files": self.sources,
                "model": self.args.model,
                "prompt_tokens": answer.prompt_tokens,
                "reused_tokens": answer.reused_tokens,
                "answer_tokens": answer.answer_tokens,
                "seconds": round(time.perf_counter() - started, 3),
                "model_bytes": stored_bytes(self.conversation.model),
            }
            print(json.dumps(report, ensure_ascii=False), flush=True)  # noqa: T201 (the answer)

    def _generation_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.args.max_new_tokens is not None:
            options["max_new_tokens"] = self.args.max_new_tokens
        if self.args.greedy:
            options |= {"do_sample": False, "top_p": None, "temperature": None}
        if not self.args.json:
            options["streamer"] = _streamer(self.processor)
        return options


def _load_model(args: argparse.Namespace) -> "VideoLlamaForConditionalGeneration":
    import torch

    from ..adapters import load_checkpoint, load_trained

    options: dict[str, Any] = {"dtype": args.dtype}
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.quantize or device == "auto":
        options["device_map"] = device
    if args.quantize:
        from ..quantization import loading_dtype, quantization_config

        options["dtype"] = loading_dtype(args.quantize, args.dtype, device)
        options["quantization_config"] = quantization_config(args.quantize, device=device)
    model = load_checkpoint(args.model, "AutoModelForMultimodalLM", **options)
    model = model if "device_map" in options else model.to(device)
    load_trained(model, args.adapter, args.branch)
    return model.eval()


def _streamer(processor: "VideoLlamaProcessor"):
    from transformers import TextStreamer

    class AnswerStreamer(TextStreamer):
        """Prints an answer while it is generated, without the space around it and the stop string after it."""

        def __init__(self):
            super().__init__(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.printed_any = False
            self.held = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            """The library's hook: `text` is what can be printed next."""
            stop = processor.stop_string or ""
            text = self.held + text
            if not self.printed_any:
                text = text.lstrip()
            self.held = ""
            if stream_end:
                text = text.removesuffix(stop).rstrip()
            else:
                # space, and what may be the beginning of the stop string, waits for the next token
                length = next((n for n in range(len(stop), 0, -1) if text.endswith(stop[:n])), 0)
                length = len(text[: len(text) - length].rstrip())
                text, self.held = text[:length], text[length:]
            self.printed_any = self.printed_any or bool(text)
            print(text, end="\n" if stream_end else "", flush=True)  # noqa: T201 (the answer)

    return AnswerStreamer()
