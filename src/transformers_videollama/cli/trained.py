"""The options that name what was trained on top of a checkpoint."""

import argparse


__all__ = ["add_trained_options"]


def add_trained_options(command: argparse.ArgumentParser) -> None:
    """Adds `--adapter` and `--branch`, as [`~transformers_videollama.adapters.load_trained`] takes them."""
    command.add_argument("--adapter", metavar="DIR", help="adapter that training with --lora has written")
    command.add_argument(
        "--branch",
        action="append",
        default=[],
        metavar="FILE",
        help="trained branch: branch.safetensors, its folder, or the original's VL_*.pth or AL_*.pth; can be repeated",
    )
