"""The commands and the code of the pages about training run as they are printed, in their order, on a tiny model."""

import json
import shutil
from pathlib import Path

import pytest
from pages import ROOT, Page
from PIL import Image
from render_clip import render_clip
from safetensors.torch import load_file
from tiny_conversions import REFERENCE


pytestmark = pytest.mark.slow
NAMES = ("own-data", "training", "both-branches", "evaluation", "adapters")
PAGES = {name: Page(f"docs/{name}.md") for name in NAMES}
INSTALL = "pip install 'transformers-videollama[train]'\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint) -> Path:
    """A working directory that has what the page names: a checkpoint, clips, and files of the datasets."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(checkpoint, folder / "Video-LLaMA-2-7B-Finetuned")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "llama-2-7b-chat-hf").symlink_to(REFERENCE / "checkpoints" / "llama-2-7b-chat-hf")
    (folder / "clips").mkdir()
    for i in range(2):
        render_clip(folder / "clips" / f"{i}.mp4", seconds=2, size=(96, 64), seed=i)
    Image.new("RGB", (64, 48), "teal").save(folder / "7.jpg")
    (row,) = json.loads(PAGES["own-data"].code("json")[0])
    (folder / "clips.json").write_text(json.dumps([row, row]))
    (folder / "held-out.json").write_text(PAGES["evaluation"].code("json")[0])
    (folder / "webvid.csv").write_text("videoid,page_dir,name\n0,clips,a ball\n1,clips,another ball\n")
    (folder / "filter_cap.json").write_text(json.dumps({"annotations": [{"image_id": 7, "caption": "teal"}]}))
    return folder


def run_page(page: Page, folder: Path) -> None:
    names: dict = {}
    for language, code in page.blocks:
        if language == "bash" and code != INSTALL:
            page.run(["bash", "-euc", code], folder, OMP_NUM_THREADS="1")
        elif language == "python":
            page.execute(code, names)


def test_own_data(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run_page(PAGES["own-data"], folder)
    assert (folder / "runs" / "mine" / "branch.safetensors").is_file()
    assert (folder / "Video-LLaMA-mine" / "processor_config.json").is_file()


def test_training(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ("bash", INSTALL) in PAGES["training"].blocks
    run_page(PAGES["training"], folder)
    assert (folder / "runs" / "al1" / "AL_LLaMA_2_7B.pth").is_file()


def test_both_branches(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (row,) = json.loads(PAGES["both-branches"].code("json")[0])
    (folder / "clips.json").write_text(json.dumps([row, row]))
    run_page(PAGES["both-branches"], folder)
    trained = load_file(folder / "runs" / "both" / "branch.safetensors")
    assert {name.split(".")[1] for name in trained} == {"video_resampler", "audio_resampler"}
    assert (folder / "runs" / "both-lora" / "adapter_model.safetensors").is_file()


def test_evaluation(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run_page(PAGES["evaluation"], folder)
    (row,) = json.loads(PAGES["evaluation"].code("json")[0])
    (question, wanted) = row["messages"][0]["content"][1]["text"], row["messages"][1]["content"]
    assert f"{question} {wanted} " in capsys.readouterr().out
    for run, steps in (("watched", (1, 2)), ("watched-too", (1,))):
        assert (folder / "runs" / run / "curves.png").is_file()
        for step in steps:
            assert json.loads((folder / "runs" / run / f"answers-{step}.jsonl").read_text())["kind"] == row["kind"]


def test_adapters(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run_page(PAGES["adapters"], folder)
    for name in ("config.json", "model.safetensors", "video_llama.py"):
        assert (folder / "Video-LLaMA-lora" / name).is_file()
    assert (folder / "original-lora" / "llama" / "tokenizer.model").is_file()
