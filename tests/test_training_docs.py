"""The commands and the code of docs/training.md run as they are printed, in their order, on a tiny model."""

import json
import shutil
from pathlib import Path

import pytest
from pages import ROOT, Page
from PIL import Image
from render_clip import render_clip


pytestmark = pytest.mark.slow
PAGE = Page("docs/training.md")
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
    (row,) = json.loads(PAGE.code("json")[0])
    (folder / "clips.json").write_text(json.dumps([row, row]))
    (folder / "webvid.csv").write_text("videoid,page_dir,name\n0,clips,a ball\n1,clips,another ball\n")
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": [{"image_id": 7, "caption": "teal"}]}))
    return folder


def test_commands_and_code_run_as_printed(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ("bash", INSTALL) in PAGE.blocks
    names: dict = {}
    for language, code in PAGE.blocks:
        if language == "bash" and code != INSTALL:
            PAGE.run(["bash", "-euc", code], folder, OMP_NUM_THREADS="1")
        elif language == "python":
            PAGE.execute(code, names)
    assert (folder / "runs" / "mine" / "branch.safetensors").is_file()
    assert (folder / "Video-LLaMA-mine-too" / "model.safetensors").is_file()
