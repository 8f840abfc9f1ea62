"""`videollama merge`: a checkpoint with what was trained in it."""

import argparse
from pathlib import Path

from ..convert.command import DTYPES, add_output_options, exit_status
from .trained import add_trained_options


__all__ = ["add_arguments", "run"]

EXAMPLE = """\
examples:
  videollama merge Video-LLaMA-mine --model Video-LLaMA-2-7B-Finetuned --adapter runs/lora
  videollama merge Video-LLaMA-mine --model Video-LLaMA-2-7B-Finetuned --branch runs/vl2 --branch runs/al2
  videollama merge original-mine --model Video-LLaMA-2-7B-Finetuned --adapter runs/lora \\
    --to-original --llama llama-2-7b-chat-hf
"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Writes a checkpoint with what was trained in it, which loads like any other."
    command.epilog = EXAMPLE
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    add = command.add_argument
    add("output", metavar="OUTPUT", type=Path, help="folder to write; must not exist, or be empty")
    add("--model", required=True, help="folder of the checkpoint that was trained, or its id on the Hub")
    add_trained_options(command)
    add("--dtype", choices=DTYPES, default="auto", help="of all weights (default: the model's)")
    add_output_options(command)
    add(
        "--to-original",
        action="store_true",
        help="write the original's layout instead: VL_*.pth, AL_*.pth and the language model; needs --llama",
    )
    add("--llama", metavar="DIR", help="with --to-original: the language model that the checkpoint was converted from")


def run(args: argparse.Namespace) -> int:
    """Merges; returns the exit status, as that of `convert`."""
    if args.to_original != (args.llama is not None):
        args.parser.error("--to-original and --llama need each other")
    from ..adapters import MergeOptions, merge
    from ..registration import register

    register()
    options = MergeOptions(
        model=args.model,
        output=args.output,
        adapter=args.adapter,
        branches=args.branch,
        dtype=args.dtype,
        max_shard_size=args.max_shard_size,
        hub_code=args.hub_code,
        original_llama=args.llama,
    )
    return exit_status(args.parser.prog, lambda: merge(options), ValueError, ImportError)
