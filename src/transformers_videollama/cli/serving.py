"""`videollama serve`: answers to OpenAI's clients."""

import argparse

from ..tiny import TINY_CHECKPOINT
from .trained import add_trained_options


__all__ = ["add_arguments", "run"]


def add_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--engine", choices=("transformers", "vllm"), default="transformers", help="(default: %(default)s)")
    add("--model", default=TINY_CHECKPOINT, help="folder of a converted checkpoint (default: this package's tiny one)")
    add_trained_options(command)
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


def run(args: argparse.Namespace) -> None:
    from ..serving import serve

    serve(args)
