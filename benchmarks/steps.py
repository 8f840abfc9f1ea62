"""
Suites one after another, each in a process of its own, so that peaks of memory are its own and none waits for one that
hangs. Each has seconds that it may take; a record on the disk knows which have a result.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .report import as_markdown, from_json, table


__all__ = ["MARGIN_S", "ROOT", "Record", "Step", "run_steps"]

ROOT = Path(__file__).parents[1]
MARGIN_S = 1  # for ending a step and writing what came of it
REASON_LINES = 20  # of what a step that failed wrote last


@dataclass(frozen=True)
class Step:
    """
    A suite of `python -m benchmarks`.

    Attributes:
        suite (`str`)
        seconds (`int`): That it may take. What steps before it did not need is added.
        only_on_gpu (`str`, *optional*): Why a CPU leaves it out.
    """

    suite: str
    seconds: int
    only_on_gpu: str | None = None


class Record:
    """
    What came of each step, in NAME.json and, for people, in NAME.md.

    Args:
        path (`Path`): Of NAME.json.
        measured_on (`dict`): Device, versions and code. A result of others counts as none.
        commit (`str`, *optional*): Noted with each step.
    """

    def __init__(self, path: Path, measured_on: dict[str, Any], commit: str | None = None):
        self.path, self.measured_on, self.commit = path, measured_on, commit
        self.entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.entries = from_json(path.read_text(encoding="utf-8"))

    def pending(self, steps: Sequence[Step]) -> list[Step]:
        """Steps without a result; those that failed before come last."""
        own = {name: entry for name, entry in self.entries.items() if entry["measured on"] == self.measured_on}
        missing = [step for step in steps if step.suite not in own or "failed" in own[step.suite]]
        return sorted(missing, key=lambda step: step.suite in own)

    def write(self, step: Step, entry: dict[str, Any]) -> None:
        self.entries[step.suite] = {"measured on": self.measured_on, "commit": self.commit, **entry}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(self.path, json.dumps(self.entries, default=asdict, indent=1) + "\n")
        _write_whole(self.path.with_suffix(".md"), _markdown(self.entries))


def run_steps(
    steps: Sequence[Step],
    record: Record,
    command_of: Callable[[Step], list[str]],
    limit_s: float,
    on_gpu: bool,
) -> list[Step]:
    """
    Runs the steps that lack a result, as long as there is time.

    Args:
        steps (`Sequence[Step]`)
        record ([`Record`])
        command_of (`Callable`): step -> the command whose last line of output is its result in JSON.
        limit_s (`float`): Seconds for all of them. A step is begun only where its own fit into what is left.
        on_gpu (`bool`)

    Returns:
        `list[Step]`: that lack a result still.
    """
    end = time.monotonic() + limit_s
    pending = record.pending(steps)
    for i, step in enumerate(pending):
        left = end - time.monotonic()
        if step.only_on_gpu and not on_gpu:
            record.write(step, {"left out": step.only_on_gpu})
        elif step.seconds <= left:
            allowed = max(step.seconds, left - sum(later.seconds + MARGIN_S for later in pending[i + 1 :]))
            print(f"{step.suite}: at most {allowed:.0f} s", file=sys.stderr, flush=True)
            entry = _run(command_of(step), allowed)
            record.write(step, entry)
            print(f"{step.suite}: {_outcome(entry)}, {entry['seconds']:.0f} s", file=sys.stderr, flush=True)
    return record.pending(steps)


def _run(command: list[str], allowed_s: float) -> dict[str, Any]:
    """Its result, or why it has none; and the seconds that it took."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    reason = None
    try:
        output, errors = process.communicate(timeout=allowed_s)
    except subprocess.TimeoutExpired:
        reason = f"took more than {allowed_s:.0f} s, and was ended"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
    if reason is not None:
        output, errors = process.communicate()
    elif process.returncode != 0:
        reason = f"ended with exit code {process.returncode}"
    entry = {"seconds": round(time.monotonic() - started, 1), "command": shlex.join(["python", *command[1:]])}
    if reason is not None:
        lines = [line.rpartition("\r")[2] for line in errors.strip().split("\n")]  # of a progress bar, what it came to
        return {**entry, "failed": reason, "wrote last": lines[-REASON_LINES:]}
    return {**entry, "result": from_json(output.strip().splitlines()[-1])}


def _markdown(entries: dict[str, dict[str, Any]]) -> str:
    """What came of each step, and the tables of those that have results."""
    rows = [
        {
            "step": suite,
            "came to": _outcome(entry),
            "seconds": entry.get("seconds"),
            "code": entry["measured on"]["code"],
            "commit": entry["commit"],
        }
        for suite, entry in entries.items()
    ]
    parts = [f"#{as_markdown(entry['result'])}" for entry in entries.values() if "result" in entry]
    return "\n\n".join(("# gpu", "Results of `python -m benchmarks.gpu`.", table(rows), *parts)) + "\n"


def _outcome(entry: dict[str, Any]) -> str:
    if "left out" in entry:
        return f"left out: {entry['left out']}"
    return "a result" if "result" in entry else f"failed: {entry['failed']}; wrote last: {entry['wrote last'][-1]}"


def _write_whole(path: Path, text: str) -> None:
    """A call that is ended in the midst leaves what was there before."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
