"""
Kills `examples/train.py` at random moments and goes on with `--resume`: `python -m tests.killed_runs --number 40`.

The moments fall on branches and adapters, on `--save_total_limit` 1 and 2, and on runs that begin in an empty folder
and in one that another run has left. Prints what did not end as the same run that nobody killed.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from examples.render_clip import render_clip
from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.training import last_checkpoint


__all__ = ["KINDS", "KilledRuns"]

MAX_STEPS = 4
COMMON = f"""
    --stage vl2 --max_steps {MAX_STEPS} --save_steps 1 --logging_steps 1 --per_device_train_batch_size 2 --use_cpu
    --dataloader_num_workers 0 --learning_rate 1e-2 --report_to none --disable_tqdm 1
"""
# What trains, --save_total_limit, and whether another run has left checkpoints; the first half has two of each
KINDS = [("branch", 1, False), ("lora", 1, True), ("branch", 2, True), ("lora", 2, False)]
KINDS += [(what, limit, not anew) for what, limit, anew in KINDS]
NOTHING_TO_RESUME = "has no complete checkpoint to go on from"


def run_example(arguments: list[str], log: str) -> None:
    """`examples/train.py` in a process of its own, whose output goes into a file."""
    descriptor = os.open(log, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout.reconfigure(line_buffering=True)
    from examples import train

    train.main(arguments)


class KilledRuns:
    """
    Args:
        folder (`Path`): An empty one to work in.

    Attributes:
        seen (`Counter`): How many runs were killed where: before their first checkpoint, behind it, or after the end.
    """

    def __init__(self, folder: Path):
        self.folder, self.seen = folder, Counter()
        self._whole: dict[tuple[str, int], tuple[Path, float]] = {}
        # A process that has imported all that a run needs, and that the runs are split off from
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["examples.train", "killed_runs"])
        rows = []
        for i in range(2):
            clip = render_clip(self.folder / f"{i}.mp4", seconds=0.5, sound=False, seed=i)
            question = {"role": "user", "content": [{"type": "video", "path": clip.name}]}
            rows.append({"messages": [question, {"role": "assistant", "content": f"A ball of the colour {i}."}]})
        (self.folder / "chats.json").write_text(json.dumps(rows))

    def start(self, what: str, limit: int, output: Path, *options: str):
        """A run that was just begun; its output goes into the file `log` next to `output`."""
        arguments = ["--model", str(TINY_CHECKPOINT), "--data", str(self.folder / "chats.json")]
        arguments += ["--output_dir", str(output), "--save_total_limit", str(limit), *COMMON.split(), *options]
        arguments += ["--lora"] if what == "lora" else []
        log = Path(f"{output}.log")
        log.write_bytes(b"")
        process = self._context.Process(target=run_example, args=(arguments, str(log)))
        process.start()
        return process

    def finish(self, what: str, limit: int, output: Path, *options: str) -> str:
        """What a run printed that ran to its end, whatever that was."""
        self.start(what, limit, output, *options).join()
        return Path(f"{output}.log").read_text()

    def whole(self, what: str, seed: int = 42) -> tuple[Path, float]:
        """A run that nobody killed, and the seconds that it took; made once."""
        if (what, seed) not in self._whole:
            self._whole[what, seed] = self._make_whole(what, seed)
        return self._whole[what, seed]

    def _make_whole(self, what: str, seed: int) -> tuple[Path, float]:
        output = self.folder / f"{what}-{seed}"
        begun = time.monotonic()
        printed = self.finish(what, 2, output, "--seed", str(seed))
        if (steps := len(losses(output))) != MAX_STEPS:
            raise RuntimeError(f"a run that nobody killed has made {steps} steps:\n{printed}")
        return output, time.monotonic() - begun

    def faults(self, number: int, seed: int = 0) -> Iterator[str]:
        """Kills this many runs, the kinds in turn, and yields what was wrong with those that went on."""
        draw = np.random.default_rng(seed)
        for what in ("branch", "lora"):
            self.whole(what, seed=7)  # the first run of all reads the data, and takes longer than the others
        for i in range(number):
            what, limit, anew = KINDS[i % len(KINDS)]
            output = self.folder / f"killed-{i}"
            if anew:
                shutil.copytree(self.whole(what, seed=7)[0], output)
            moment = draw.uniform(0, MAX_STEPS)
            for fault in self._kill_one(what, limit, anew, output, moment):
                yield f"{i}: {moment:.3f} steps, {what}, save_total_limit={limit}, {anew=}: {fault}"
            shutil.rmtree(output)

    def _kill_one(self, what: str, limit: int, anew: bool, output: Path, moment: float) -> Iterator[str]:
        process = self.start(what, limit, output)
        # Counted in steps, since a machine may be busy now that was not before
        while process.is_alive() and printed_steps(Path(f"{output}.log").read_text()) < int(moment):
            time.sleep(0.005)
        process.join(moment % 1 * self.whole(what)[1] / MAX_STEPS)
        process.kill()
        process.join()
        killed = process.exitcode != 0
        before = printed_steps(Path(f"{output}.log").read_text())
        newest = last_checkpoint(output)
        done = 0 if newest is None else int(newest.rpartition("-")[2])
        if anew and not (output / "earlier-1").exists():  # killed before it touched what was there
            self.seen["before it began"] += 1
            return
        self.seen["ended before" if not killed else "with a checkpoint" if done else "without"] += 1
        if before > done + 1:
            yield f"the run had made {before} steps, and the newest complete checkpoint is of step {done}"
        printed = self.finish(what, limit, output, "--resume")
        if newest is None:
            if NOTHING_TO_RESUME not in printed:
                yield f"--resume found nothing and went on:\n{printed}"
            printed = self.finish(what, limit, output)
        if (steps := printed_steps(printed)) != MAX_STEPS - done:
            yield f"{steps} steps were made behind step {done}:\n{printed}"
        expected = self.whole(what)[0]
        if losses(output) != losses(expected):
            yield f"losses {losses(output)}, expected {losses(expected)}"
        if trained(output) != trained(expected):
            yield "what was trained differs from that of the run that nobody killed"


def printed_steps(printed: str) -> int:
    return sum("'loss'" in line for line in printed.splitlines())


def losses(output: Path) -> list[float]:
    """Of all steps up to the newest checkpoint, as it has them."""
    newest = last_checkpoint(output)
    if newest is None:
        return []
    history = json.loads(Path(newest, "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def trained(output: Path) -> dict[str, bytes]:
    """The file that a run leaves, branch or adapter."""
    return {path.name: path.read_bytes() for path in output.glob("*.safetensors")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.killed_runs", description=__doc__)
    parser.add_argument("--number", type=int, default=40, help="of moments (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    options = parser.parse_args()
    begun, found = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
        runs = KilledRuns(Path(folder))
        for fault in runs.faults(options.number, options.seed):
            print(fault, flush=True)
            found += 1
    print(f"{options.number} runs killed in {time.monotonic() - begun:.0f} s ({dict(runs.seen)}), {found} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
