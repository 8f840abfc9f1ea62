"""`make gpu`: a step that fails or hangs keeps none from running, and another call goes on where one stopped."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, wheels
from benchmarks.__main__ import SUITES
from benchmarks.attention import using
from benchmarks.measure import Options, Timing, difference
from benchmarks.models import model_of
from benchmarks.report import as_json, from_json
from benchmarks.steps import MARGIN_S, ROOT, Record, Step, run_steps


RESULT = {
    "suite": "one",
    "what": "What is measured.",
    "command": "python -m benchmarks one",
    "size": "tiny",
    "device": "cpu",
    "dtype": "float32",
    "repeats": 2,
    "machine": "a machine",
    "accelerator": None,
    "load_average": 0.5,
    "date": "2026-01-01",
    "versions": {"torch": "2"},
    "rows": [{"what": "it", "seconds": Timing.of([1.0, 2.0])}],
}
ONE, TWO, THREE = (Step(name, 5) for name in ("one", "two", "three"))
HERE = {"device": "a", "versions": {"torch": "2"}, "code": "1"}


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


SUCCEEDS = python(f"print('noise')\nprint({as_json(RESULT)!r})")
FAILS = python("raise SystemExit('no kernel fits this device')")
HANGS = python("import time\ntime.sleep(60)")


class Commands:
    """What steps run, by their suites, and in which order they were asked for."""

    def __init__(self, **commands: list[str]):
        self.commands, self.asked = commands, []

    def __call__(self, step: Step) -> list[str]:
        self.asked.append(step.suite)
        return self.commands.get(step.suite, SUCCEEDS)


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path / "gpu.json", HERE, commit="abc")


def run(record: Record, commands: Commands, steps=(ONE, TWO, THREE), limit_s=60, on_gpu=True) -> list[str]:
    return [step.suite for step in run_steps(steps, record, commands, limit_s, on_gpu)]


def test_results_are_written_with_what_they_hold_for(record):
    assert run(record, Commands()) == []
    entries = from_json(record.path.read_text())
    assert list(entries) == ["one", "two", "three"]
    assert all(entry["measured on"] == HERE and entry["commit"] == "abc" for entry in entries.values())
    assert entries["one"]["result"] == RESULT
    table = record.path.with_suffix(".md").read_text()
    assert "| one | a result |" in table
    assert "| it | 1.5 (1 to 2) |" in table


def test_a_step_that_fails_is_noted_with_the_reason_and_the_others_run(record, capsys):
    assert run(record, Commands(two=FAILS)) == ["two"]
    entry = json.loads(record.path.read_text())["two"]
    assert entry["failed"] == "ended with exit code 1"
    assert entry["wrote last"] == ["no kernel fits this device"]
    assert "| two | failed: ended with exit code 1; wrote last: no kernel fits this device |" in (
        record.path.with_suffix(".md").read_text()
    )
    assert "two: failed" in capsys.readouterr().err


def test_a_step_that_hangs_is_ended_with_what_it_has_started(record, tmp_path):
    started = tmp_path / "started"
    script = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({str(started)!r}).write_text(str(child.pid))
time.sleep(60)
"""
    began = time.monotonic()
    assert run(record, Commands(one=python(script)), (Step("one", 2), Step("two", 2)), limit_s=5) == ["one"]
    assert time.monotonic() - began < 30
    assert record.entries["one"]["failed"] == "took more than 2 s, and was ended"
    assert "result" in record.entries["two"]
    status = Path("/proc", started.read_text(), "status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_another_call_goes_on_where_one_stopped(record):
    run(record, Commands(one=FAILS), (ONE, TWO))
    commands = Commands()
    assert run(Record(record.path, HERE), commands) == []
    assert commands.asked == ["three", "one"]  # what failed before comes last


@pytest.mark.parametrize("changed", [{"device": "b"}, {"versions": {"torch": "3"}}, {"code": "2"}])
def test_results_of_another_device_version_or_code_count_as_none(record, changed):
    run(record, Commands())
    commands = Commands()
    assert run(Record(record.path, HERE | changed), commands, (ONE,)) == []
    assert commands.asked == ["one"]
    assert json.loads(record.path.read_text())["two"]["measured on"] == HERE  # it stays until its step runs


def test_a_step_begins_only_where_its_time_is_left(record):
    commands = Commands()
    assert run(record, commands, (Step("long", 100), ONE), limit_s=10) == ["long"]
    assert commands.asked == ["one"]
    assert "long" not in record.entries


def test_time_that_is_left_goes_to_the_step_that_needs_it(record):
    slow = python(f"import time\ntime.sleep(1.5)\nprint({as_json(RESULT)!r})")
    assert run(record, Commands(one=slow), (Step("one", 1), Step("two", 1)), limit_s=20) == []


def test_what_a_cpu_cannot_do_is_left_out_with_the_reason(record):
    steps = (ONE, Step("compiled", 5, only_on_gpu="takes minutes on a CPU"))
    commands = Commands()
    assert run(record, commands, steps, on_gpu=False) == []
    assert commands.asked == ["one"]
    assert record.entries["compiled"]["left out"] == "takes minutes on a CPU"
    assert run(Record(record.path, HERE), commands, steps, on_gpu=False) == []
    assert commands.asked == ["one"]


def test_the_plan_takes_less_than_nine_minutes():
    assert {step.suite for step in gpu.STEPS} <= set(SUITES)
    assert sum(step.seconds + MARGIN_S for step in gpu.STEPS) <= gpu.LIMIT_S
    assert gpu.LIMIT_S <= 9 * 60 - 60  # for installing and starting


def test_the_plan_is_that_of_the_page():
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    planned = re.findall(r"^\| `(\w+)` \| (\d+) \|", page, flags=re.MULTILINE)
    assert planned == [(step.suite, str(step.seconds)) for step in gpu.STEPS]


def test_the_checksum_is_that_of_the_code():
    assert gpu.checksum_of_code() == gpu.checksum_of_code()
    assert len(gpu.checksum_of_code()) == 12


def test_all_parts_attend_by_what_is_chosen():
    model = model_of(Options("tiny", torch.device("cpu"), torch.float32, 1))
    with using(model, "eager"):
        assert {part.config._attn_implementation for part in parts_of(model)} == {"eager"}
    assert {part.config._attn_implementation for part in parts_of(model)} == {"sdpa"}


def parts_of(model) -> list:
    names = ("vision_tower", "qformer", "video_resampler", "audio_tower", "language_model")
    return [model, *(getattr(model.model, name) for name in names)]


def test_the_difference_is_relative():
    assert difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)


def test_wheels_are_made_smaller_and_stay_what_they_were(tmp_path):
    wheel = tmp_path / "bitsandbytes-1-py3-none-any.whl"
    library = os.urandom(1000) * 100
    files = {f"bitsandbytes/libbitsandbytes_{name}.so": library for name in ("cpu", "cuda118", "cuda130", "rocm64")}
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, "bitsandbytes/__init__.py": b"1"}.items():
            archive.writestr(name, content)
    before = wheel.stat().st_size
    wheels.main([str(tmp_path), "--cuda", "130"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        kept = {name: archive.read(name) for name in archive.namelist()}
    prefix = "bitsandbytes/libbitsandbytes_"
    assert kept == {
        f"{prefix}cpu.so": library,
        f"{prefix}cuda130.so": library,
        "bitsandbytes/__init__.py": b"1",
    }
    assert wheel.stat().st_size < before / 2
    assert list(tmp_path.iterdir()) == [wheel]


def test_no_wheels_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        wheels.main([str(tmp_path)])
    assert "has no wheels" in capsys.readouterr().err


@pytest.mark.slow
def test_all_steps_run_on_a_cpu(tmp_path):
    settings = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--repeats", "1", "--seconds", "3000"]
    command = [sys.executable, "-m", "benchmarks.gpu", *settings, "--output", str(tmp_path), "--commit", "abc"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    (path,) = tmp_path.glob("*.json")
    assert path.name == "gpu-tiny-cpu-float32.json"
    entries = json.loads(path.read_text())
    assert list(entries) == [step.suite for step in gpu.STEPS]
    assert all(
        "left out" in entry if step.only_on_gpu else entry["result"]["rows"]
        for step, entry in zip(gpu.STEPS, entries.values(), strict=True)
    )
    assert [row["answers"] for row in entries["decode"]["result"]["rows"]] == [1, 8, 64]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0
    assert "no result of" not in again.stderr  # torch may have to say something of its own
    assert json.loads(path.read_text()) == entries
