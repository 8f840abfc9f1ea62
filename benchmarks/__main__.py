"""The command `python -m benchmarks SUITE`: measures, prints a table, and can keep the result."""

import argparse
import importlib
import shlex
import sys
from typing import Any

import torch

from .measure import Options, about_machine
from .models import SIZES
from .report import as_json, as_markdown, keep


SUITES = (
    "attention",
    "batch",
    "chat",
    "convert",
    "decode",
    "encode",
    "generate",
    "load",
    "media",
    "memory",
    "prefill",
)
SUITES += ("profile", "serve", "step", "train")
DTYPES = ("float32", "bfloat16", "float16")


def main(argv: list[str] | None = None) -> None:
    args = _parser().parse_args(argv)
    options = Options(args.size, torch.device(args.device), getattr(torch, args.dtype), args.repeats)
    result = measure(args.suite, options, argv if argv is not None else sys.argv[1:])
    if args.keep:
        for path in keep(result):
            print(path, file=sys.stderr)
    print(as_json(result) if args.json else as_markdown(result))


def measure(suite: str, options: Options, arguments: list[str]) -> dict[str, Any]:
    module = importlib.import_module(f".{suite}", __package__)
    about = {
        "suite": suite,
        "what": module.__doc__.strip(),
        "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
        "size": options.size,
        "device": str(options.device),
        "dtype": str(options.dtype).removeprefix("torch."),
        "repeats": options.repeats,
        **about_machine(options),
    }
    return about | module.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures speed and memory.")
    add = parser.add_argument
    add("suite", choices=SUITES)
    add("--size", choices=SIZES, default="small", help="of the model (default: %(default)s)")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=default, help="(default: %(default)s)")
    add("--dtype", choices=DTYPES, default="float32", help="(default: %(default)s)")
    add("--repeats", type=int, default=5, metavar="N", help="(default: %(default)s)")
    add("--json", action="store_true", help="print one line of JSON instead of a table")
    add("--keep", action="store_true", help="write the result to benchmarks/results, with a plot")
    return parser


if __name__ == "__main__":
    main()
