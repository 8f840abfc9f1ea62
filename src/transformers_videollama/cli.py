"""The `videollama` command: ask about files, talk, serve answers, prepare data for training, convert checkpoints."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import __version__
from .convert.command import add_arguments as add_conversion_arguments
from .convert.command import run as run_conversion
from .tiny import TINY_CHECKPOINT


if TYPE_CHECKING:
    from .modeling_video_llama import VideoLlamaForConditionalGeneration
    from .processing_video_llama import VideoLlamaProcessor

__all__ = ["main"]

EPILOG = """examples:
  videollama ask clip.mp4 "What do you see and hear?"
  videollama ask clip.mp4 "What is happening?" --model ./Video-LLaMA-2-7B-Finetuned
  videollama ask before.jpg after.jpg "What has changed?" --model ./Video-LLaMA-2-7B-Finetuned --quantize 4bit
  videollama chat clip.mp4 --start 60 --end 90 --model ./Video-LLaMA-2-7B-Finetuned
  videollama serve --model ./Video-LLaMA-2-7B-Finetuned --port 8000
  videollama convert original/ Video-LLaMA-2-7B-Finetuned
  videollama precompute webvid.csv features/ --format webvid --model ./Video-LLaMA-2-7B-Pretrained
"""

TINY_NOTE = (
    "videollama: no --model is named, so this package's tiny model answers. It knows coloured shapes that move, and "
    "eight sounds; for anything else, name a checkpoint."
)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.

    Returns:
        `int`: the exit status: 0, or 2 (through `SystemExit`, as argparse does) for wrong input; of `convert`, as
        [`~transformers_videollama.convert.command.run`].
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "ask" and len(args.inputs) + len(args.image) < 2:
        parser.error('ask takes files and a question, as in: videollama ask clip.mp4 "What is happening?"')
    if args.command == "convert":
        return run_conversion(args.parser, args)
    from .registration import register  # the package leaves it to the command

    try:
        register()
        if args.command in COMMANDS:
            COMMANDS[args.command](args)
            return 0
        conversation = _Talk(args)
        if args.command == "ask":
            conversation.ask(args.inputs[-1])
        else:
            conversation.talk()
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videollama",
        description="Ask a Video-LLaMA model about videos, images and sounds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask", help="answer one question and end")
    ask.add_argument(
        "inputs", nargs="+", metavar="FILE", help="videos, images or sounds (paths or URLs), then a question"
    )
    chat = commands.add_parser("chat", help="answer questions from standard input, one a line, until it ends")
    chat.add_argument("inputs", nargs="*", metavar="FILE", help="videos, images or sounds (paths or URLs)")
    for command in (ask, chat):
        _add_options(command)
    _add_serve_options(commands.add_parser("serve", help="answer OpenAI's clients over HTTP, until stopped"))
    _add_precompute_options(commands.add_parser("precompute", help="compute features of a dataset, to train from"))
    convert = commands.add_parser("convert", help="convert original checkpoints into a folder that loads here")
    convert.set_defaults(parser=convert)
    add_conversion_arguments(convert)
    return parser


def _add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--model",
        help="folder of a converted checkpoint, or its id on the Hub (default: this package's tiny one)",
    )
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


def _add_serve_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--engine", choices=("transformers", "vllm"), default="transformers", help="(default: %(default)s)")
    add("--model", default=TINY_CHECKPOINT, help="folder of a converted checkpoint (default: this package's tiny one)")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine alone)")
    add("--port", type=int, default=8000, help="(default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one; vLLM chooses by itself)")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="(default: the model's)")
    add("--max-upload", type=int, default=256, metavar="MIB", help="largest request (default: %(default)s)")
    add("--timeout", type=float, default=300, metavar="SECONDS", help="longest answer (default: %(default)s)")
    add(
        "--allow-local",
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose files requests may name; can be repeated (default: none)",
    )
    add("--allow-private", action="store_true", help="let requests name addresses of private networks")
    add(
        "--media-workers",
        type=int,
        default=4,
        metavar="N",
        help="processes that media are opened in; 0: the server's own, which a hostile file may end "
        "(default: %(default)s)",
    )
    add("engine_options", nargs="*", metavar="OPTION", help="behind --: further options of vLLM's server")


def _add_precompute_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("data", metavar="DATA", help="file of a dataset")
    add("folder", metavar="OUT", help="folder for the features; one that is not complete is continued")
    add("--model", required=True, help="folder of a converted checkpoint, or its id on the Hub")
    add("--format", default="messages", help="of DATA: %(default)s, webvid, llava-cc3m, minigpt-4, ...")
    add("--media-dir", metavar="DIR", help="folder that paths of media start from (default: that of DATA)")
    add("--branch", choices=("video", "audio"), default="video", help="branch to be trained (default: %(default)s)")
    add("--batch-size", type=int, default=64, metavar="N", help="frames encoded at once (default: %(default)s)")
    add("--shard-size", type=int, default=256, metavar="N", help="rows of one file (default: %(default)s)")
    add("--processes", type=int, default=1, metavar="N", help="(default: %(default)s; process i uses GPU i)")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(default: %(default)s)")
    add(
        "--max-unreadable", type=int, default=100, metavar="N", help="rows that may be left out (default: %(default)s)"
    )
    add(
        "--max-unreadable-share",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of the rows that may be left out (default: %(default)s)",
    )
    add(
        "--no-audio",
        dest="load_audio_from_video",
        action="store_const",
        const=False,
        help="leave out the sound of videos, which training without it does not need",
    )
    add(
        "--media-workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that each process opens media in; 0: itself (default: %(default)s)",
    )


def _precompute(args: argparse.Namespace) -> None:
    from .training import precompute

    cache = precompute(**{name: value for name, value in vars(args).items() if name != "command"})
    left_out = cache.unreadable()
    print(  # noqa: T201 (the answer)
        f"{cache.folder}: features of {cache.num_rows - len(left_out)} rows in {cache.num_shards} files, "
        f"{len(left_out)} rows left out"
    )
    for row, reason in left_out.items():
        print(f"row {row}: {reason}")  # noqa: T201


def _serve(args: argparse.Namespace) -> None:
    from .serving import serve

    serve(args)


COMMANDS = {"precompute": _precompute, "serve": _serve}


class _Talk:
    """A conversation on the command line, about files."""

    def __init__(self, args: argparse.Namespace):
        from .conversation import VideoLlamaConversation

        self.args = args
        if args.model is None:
            args.model = TINY_CHECKPOINT
            print(TINY_NOTE, file=sys.stderr)  # noqa: T201
        files = args.inputs[:-1] if args.command == "ask" else args.inputs
        self.sources = [*files, *args.image]
        self.processor = _load(args, "AutoProcessor")
        # Every file is opened once, and before the model is loaded, which takes long
        self.blocks = [self._open(file) for file in files] + [self._open(file, "image") for file in args.image]
        self.conversation = VideoLlamaConversation(
            _load_model(args), self.processor, load_audio_from_video=False if args.no_audio else None
        )

    def _open(self, source: str, kind: str | None = None) -> dict[str, Any]:
        """A block of the conversation, which holds the opened medium."""
        from .media import load_image, load_sound, media_kind
        from .media.sources import folder_of, local_file

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
        from .quantization import stored_bytes

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


def _load(args: argparse.Namespace, auto_class: str, **options) -> Any:
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        return getattr(transformers, auto_class).from_pretrained(args.model, **options)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"the model {args.model} cannot be loaded: {error}") from error


def _load_model(args: argparse.Namespace) -> "VideoLlamaForConditionalGeneration":
    import torch

    options: dict[str, Any] = {"dtype": args.dtype}
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.quantize or device == "auto":
        options["device_map"] = device
    if args.quantize:
        from .quantization import loading_dtype, quantization_config

        options["dtype"] = loading_dtype(args.quantize, args.dtype, device)
        options["quantization_config"] = quantization_config(args.quantize, device=device)
    model = _load(args, "AutoModelForMultimodalLM", **options)
    return (model if "device_map" in options else model.to(device)).eval()


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
