"""The commands and the code of docs/training.md run as they are printed, in their order, on a tiny model."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from render_clip import render_clip


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
INSTALL = "pip install 'transformers-videollama[train]'\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint) -> Path:
    """A working directory that has what the page names: a checkpoint, clips, and files of the datasets."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(checkpoint, folder / "Video-LLaMA-2-7B-Finetuned")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "clips").mkdir()
    for i in range(2):
        render_clip(folder / "clips" / f"{i}.mp4", seconds=2, size=(96, 64), seed=i)
    Image.new("RGB", (64, 48), "teal").save(folder / "7.jpg")
    (row,) = json.loads(next(code for language, code in BLOCKS if language == "json"))
    (folder / "clips.json").write_text(json.dumps([row, row]))
    (folder / "webvid.csv").write_text("videoid,page_dir,name\n0,clips,a ball\n1,clips,another ball\n")
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": [{"image_id": 7, "caption": "teal"}]}))
    return folder


def run(command: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        ["bash", "-euc", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


def test_commands_and_code_run_as_printed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ("bash", INSTALL) in BLOCKS
    names: dict = {}
    for language, code in BLOCKS:
        if language == "bash" and code != INSTALL:
            run(code, folder)
        elif language == "python":
            exec(compile(code, "docs/training.md", "exec"), names)
    assert (folder / "runs" / "mine" / "branch.safetensors").is_file()
    assert (folder / "Video-LLaMA-mine-too" / "model.safetensors").is_file()


def test_files_that_the_page_names_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for name in re.findall(r"`((?:examples|benchmarks|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / name).exists(), name
