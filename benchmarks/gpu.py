"""
What a GPU has to show, in one call of less than nine minutes, without network:

    python -m benchmarks.gpu                                        # `make gpu` installs what is missing before
    python -m benchmarks.gpu --size tiny --device cpu --dtype float32 --output trial

After each step, its result is written to `benchmarks/results`. A step that fails or takes too long is noted there
with the reason, and the others go on. Another call runs what has no result yet of this device, these versions and this
code.
"""

import argparse
import hashlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import transformers_videollama

from .__main__ import DTYPES
from .measure import Options, about_machine
from .models import SIZES
from .report import RESULTS
from .steps import ROOT, Record, Step, run_steps


__all__ = ["LIMIT_S", "STEPS", "main"]

LIMIT_S = 480  # of a call; with installing and starting, it takes less than nine minutes
STEPS = (
    Step("encode", 45),
    Step("attention", 70),
    Step("prefill", 45),
    Step("decode", 55),
    Step("chat", 45),
    Step("memory", 80),
    Step("step", 55),
    Step("generate", 70, only_on_gpu="compiles, which takes minutes on a CPU"),
)
MEASURED = (Path(transformers_videollama.__file__).parent, Path(__file__).parent, ROOT / "examples" / "render_clip.py")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the step that runs is ended, too
    options = Options(args.size, torch.device(args.device), getattr(torch, args.dtype), args.repeats)
    measured_on = about(options)
    device = "cpu" if options.device.type == "cpu" else re.sub(r"\W+", "-", measured_on["device"].lower())
    path = args.output / f"gpu-{args.size}-{device}-{args.dtype}.json"
    record = Record(path, measured_on, args.commit or commit_of_checkout())

    def command_of(step: Step) -> list[str]:
        settings = ("--size", args.size, "--device", args.device, "--dtype", args.dtype)
        return [sys.executable, "-m", "benchmarks", step.suite, *settings, "--repeats", str(args.repeats), "--json"]

    missing = run_steps(STEPS, record, command_of, args.seconds, options.device.type == "cuda")
    print(path)
    if missing:
        names = ", ".join(step.suite for step in missing)
        print(f"no result of {names}; another call goes on with them", file=sys.stderr)
    return 1 if missing else 0


def about(options: Options) -> dict[str, Any]:
    """What a result holds for: where one of these differs, the step runs again."""
    machine = about_machine(options)
    return {
        "device": machine["accelerator"] or machine["machine"],
        "versions": machine["versions"],
        "repeats": options.repeats,
        "code": checksum_of_code(),
    }


def checksum_of_code() -> str:
    """Of what is measured and of what measures, which a copy without git has too."""
    checksum = hashlib.sha256()
    for part in MEASURED:
        for path in sorted(part.rglob("*")) if part.is_dir() else (part,):
            if path.is_file() and path.suffix != ".pyc" and RESULTS not in path.parents:
                checksum.update(str(path.relative_to(part.parent)).encode())
                checksum.update(path.read_bytes())
    return checksum.hexdigest()[:12]


def commit_of_checkout() -> str | None:
    """With "-dirty" where files differ from it; `None` in a copy without git."""
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return described.stdout.strip() if described.returncode == 0 else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measures all that a GPU has to show."
    )
    add = parser.add_argument
    add("--size", choices=SIZES, default="7b", help="of the model (default: %(default)s)")
    add("--device", default="cuda", help="(default: %(default)s)")
    add("--dtype", choices=DTYPES, default="bfloat16", help="(default: %(default)s)")
    add("--repeats", type=int, default=3, metavar="N", help="(default: %(default)s)")
    add("--seconds", type=float, default=LIMIT_S, help="that the call may take (default: %(default)s)")
    add("--output", type=Path, default=RESULTS, metavar="FOLDER", help="of the results (default: benchmarks/results)")
    add("--commit", help="noted in the results (default: what git says)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
