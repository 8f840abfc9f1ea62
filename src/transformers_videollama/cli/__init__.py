"""
The `videollama` command: ask about files, talk, serve answers, prepare data for training, convert and merge
checkpoints.
"""

import argparse
from collections.abc import Sequence

from .. import __version__
from ..convert.command import add_arguments as add_conversion_arguments
from ..convert.command import run as run_conversion
from .merging import add_arguments as add_merge_arguments
from .merging import run as run_merge
from .precomputing import add_arguments as add_precompute_arguments
from .precomputing import run as run_precompute
from .questions import add_commands as add_questions
from .questions import run as run_questions
from .serving import add_arguments as add_serve_arguments
from .serving import run as run_serve


__all__ = ["main"]

EPILOG = """examples:
  videollama ask clip.mp4 "What do you see and hear?"
  videollama ask clip.mp4 "What is happening?" --model ./Video-LLaMA-2-7B-Finetuned
  videollama ask before.jpg after.jpg "What has changed?" --model ./Video-LLaMA-2-7B-Finetuned --quantize 4bit
  videollama chat clip.mp4 --start 60 --end 90 --model ./Video-LLaMA-2-7B-Finetuned
  videollama serve --model ./Video-LLaMA-2-7B-Finetuned --port 8000
  videollama convert original/ Video-LLaMA-2-7B-Finetuned
  videollama merge Video-LLaMA-mine --model ./Video-LLaMA-2-7B-Finetuned --adapter runs/lora
  videollama precompute webvid.csv features/ --format webvid --model ./Video-LLaMA-2-7B-Pretrained
"""
COMMANDS = {
    "ask": run_questions,
    "chat": run_questions,
    "serve": run_serve,
    "precompute": run_precompute,
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command.

    Args:
        argv (`Sequence[str]`, *optional*): Arguments; those of the process by default.

    Returns:
        `int`: the exit status: 0, or 2 (through `SystemExit`, as argparse does) for wrong input, and 1 where
        `precompute` cannot use its data, model or folder; of `convert` and `merge`, as
        [`~transformers_videollama.convert.command.run`].
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "convert":
        return run_conversion(args.parser, args)
    if args.command == "merge":
        return run_merge(args)
    from ..registration import register  # the package leaves it to the command

    try:
        register()
        COMMANDS[args.command](args)
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
    add_questions(commands)
    add_serve_arguments(commands.add_parser("serve", help="answer OpenAI's clients over HTTP, until stopped"))
    add_precompute_arguments(commands.add_parser("precompute", help="compute features of a dataset, to train from"))
    convert = commands.add_parser("convert", help="convert original checkpoints into a folder that loads here")
    convert.set_defaults(parser=convert)
    add_conversion_arguments(convert)
    merge = commands.add_parser("merge", help="write a checkpoint with an adapter or trained branches in it")
    merge.set_defaults(parser=merge)
    add_merge_arguments(merge)
    return parser
