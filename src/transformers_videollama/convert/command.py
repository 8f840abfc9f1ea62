"""The command `videollama convert`; `python -m conversion` in a checkout is the same."""

# ruff: noqa: T201 (this module talks to people)

import argparse
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .errors import ConversionError
from .options import DTYPES, STYLES, ConversionOptions


__all__ = ["add_arguments", "add_output_options", "exit_status", "main", "run"]

EXAMPLE = """\
examples:
  videollama convert Video-LLaMA-2-7B-Finetuned video-llama-7b \\
    --vision eva_vit_g.pth --blip2 blip2_pretrained_flant5xxl.pth
  videollama convert Video-LLaMA-2-7B-Finetuned video-llama-7b --blip2 Salesforce/blip2-flan-t5-xxl
  videollama convert Video-LLaMA-Series video-llama-vicuna-7b --no-audio \\
    --video-branch Video-LLaMA-Series/finetune-vicuna7b-v2.pth --blip2 Salesforce/blip2-flan-t5-xxl \\
    --vicuna-delta lmsys/vicuna-7b-delta-v0 --base-llama llama-7b-hf

SOURCE is searched for VL_*.pth, AL_*.pth, imagebind_huge.pth, eva_vit_g.pth, blip2_pretrained_flant5xxl.pth and a
folder with a language model (config.json and weights) or a *.gguf file with one. Every path may also be a Hub id:
org/name, org/name/file.pth.
"""
OVERRIDES_NAME = "conversion.json"
UNITS = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}


def main(argv: Sequence[str] | None = None, prog: str = "videollama convert") -> int:
    """
    Runs the command by itself.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.
        prog (`str`): The command's name in messages.

    Returns:
        `int`: as [`run`].
    """
    parser = argparse.ArgumentParser(prog=prog)
    add_arguments(parser)
    return run(parser, parser.parse_args(argv))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Converts; returns the exit status: 0; 1 failed to write, 2 wrong input, 130 and 143 interrupted."""
    options = _options(parser, args)
    from .pipeline import convert  # heavy, which wrong arguments and --help need not wait for

    return exit_status(parser.prog, lambda: convert(options), ConversionError)


def exit_status(prog: str, write: Callable[[], object], *wrong_input: type[Exception]) -> int:
    """
    Runs what writes a folder that appears complete or not at all, and prints what it returns.

    Args:
        prog (`str`): The command's name in messages.
        write (`Callable`)
        wrong_input (exception types): what it raises for wrong input.

    Returns:
        `int`: as [`run`].
    """
    try:
        with _sigterm_raises():
            print(write())
    except wrong_input as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except Terminated:
        print(f"{prog}: terminated; nothing was written", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; nothing was written", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{prog}: error: {where}{error.strerror or error}; nothing was written", file=sys.stderr)
        return 1
    return 0


class Terminated(BaseException):
    """SIGTERM, as an exception that unwinds what was begun."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds those of the command, its description and its examples."""
    parser.description = "Converts original Video-LLaMA checkpoints into a folder that from_pretrained loads."
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", metavar="SOURCE", help="folder or Hub id that holds the original's files")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder to write; must not exist")
    add = parser.add_argument
    add("--style", choices=STYLES, help="prompt style (default: vicuna for Vicuna-era checkpoints, else llama-2)")
    add("--dtype", choices=DTYPES, default="auto", help="of all weights (default: the language model's own)")
    add("--no-audio", action="store_true", help="leave the audio branch out")
    add("--with-imagebind-vision", action="store_true", help="add the trunk that training the audio branch needs")
    add("--dry-run", action="store_true", help="check names and shapes, write nothing")
    add_output_options(parser)
    add(
        "--config",
        type=_overrides,
        metavar="FILE.json",
        help=f"what shapes cannot tell: attention heads (default: SOURCE/{OVERRIDES_NAME}, if there is one)",
    )
    add("--push-to-hub", metavar="ORG/NAME", help="upload the finished folder")
    files = parser.add_argument_group("files, where SOURCE lacks them or has several")
    files.add_argument("--vision", metavar="FILE", help="eva_vit_g.pth")
    files.add_argument(
        "--blip2", metavar="FILE", help="blip2_pretrained_flant5xxl.pth, or a BLIP-2 folder in the library's format"
    )
    files.add_argument("--video-branch", metavar="FILE", help="VL_*.pth")
    files.add_argument("--imagebind", metavar="FILE", help="imagebind_huge.pth")
    files.add_argument("--audio-branch", metavar="FILE", help="AL_*.pth")
    files.add_argument(
        "--llama", metavar="PATH", help="the language model, in the library's format or as a .gguf file"
    )
    files.add_argument("--vicuna-delta", metavar="DIR", help="Vicuna v0 as published; needs --base-llama")
    files.add_argument("--base-llama", metavar="DIR", help="the LLaMA that --vicuna-delta is added to")


def _options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> ConversionOptions:
    if (args.vicuna_delta is None) != (args.base_llama is None):
        parser.error("--vicuna-delta and --base-llama need each other")
    if args.vicuna_delta is not None and args.llama is not None:
        parser.error("--llama and --vicuna-delta exclude each other")
    if args.no_audio and args.with_imagebind_vision:
        parser.error("--no-audio and --with-imagebind-vision exclude each other")
    if args.dry_run and args.push_to_hub is not None:
        parser.error("--dry-run and --push-to-hub exclude each other")
    overrides = Path(args.source) / OVERRIDES_NAME
    if args.config is None and overrides.is_file():
        try:
            args.config = _overrides(str(overrides))
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
    kinds = ("vision", "blip2", "video_branch", "imagebind", "audio_branch", "llama")
    return ConversionOptions(
        source=args.source,
        output=args.output,
        style=args.style,
        dtype=args.dtype,
        audio=not args.no_audio,
        with_imagebind_vision=args.with_imagebind_vision,
        files={kind: getattr(args, kind) for kind in kinds},
        vicuna_delta=args.vicuna_delta,
        base_llama=args.base_llama,
        overrides=args.config or {},
        max_shard_size=args.max_shard_size,
        hub_code=args.hub_code,
        push_to_hub=args.push_to_hub,
        dry_run=args.dry_run,
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--hub-code` and `--max-shard-size`, which every command that writes a checkpoint takes."""
    parser.add_argument(
        "--hub-code", action="store_true", help="put the code next to the weights, for trust_remote_code=True"
    )
    parser.add_argument(
        "--max-shard-size", type=_size, default="2GB", metavar="SIZE", help="of a file of weights (default: 2GB)"
    )


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", text, re.IGNORECASE)
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected a number and KB, MB, GB or TB, such as 2GB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _overrides(text: str) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise argparse.ArgumentTypeError(f'{text}: expected {{"vision_config": {{"num_attention_heads": 16}}, ...}}')
    return content
