"""The code of docs/preference.md runs as it is printed, in its order, on a tiny model."""

import json
import shutil

import pytest
import torch
from pages import Page
from render_clip import render_clip


PAGE = Page("docs/preference.md")
INSTALL = "pip install 'transformers-videollama[train]'\n"


@pytest.fixture
def folder(tmp_path, checkpoint, monkeypatch):
    """A working directory that has what the page names: a checkpoint, a clip, conversations, and pairs of answers."""
    shutil.copytree(checkpoint, tmp_path / "Video-LLaMA-2-7B-Finetuned")
    (tmp_path / "clips").mkdir()
    render_clip(tmp_path / "clips" / "0.mp4", seconds=1, size=(96, 64))
    ((pair,),) = map(json.loads, PAGE.code("json"))
    (tmp_path / "pairs.json").write_text(json.dumps([pair, pair]))
    (tmp_path / "clips.json").write_text(json.dumps([{"messages": pair["prompt"] + pair["chosen"]}] * 2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
def test_code_runs_as_printed(folder):
    assert PAGE.code("bash") == [INSTALL]
    names: dict = {}
    branches = []
    for code in PAGE.code("python"):
        PAGE.execute(code, names)
        branches.append(names["model"].model.video_resampler.query_tokens.detach().clone())
    loaded, after_sft, after_dpo, _ = branches
    assert not torch.equal(loaded, after_sft)
    assert not torch.equal(after_sft, after_dpo)
    assert all(names[trainer].state.global_step == 2 for trainer in ("sft", "dpo", "grpo"))
    assert (folder / "runs" / "sft" / "branch.safetensors").is_file()
    batch = names["sft"].data_collator([names["sft"].train_dataset[0]])
    learned = names["processor"].decode(batch["labels"][batch["labels"] != -100])
    assert learned.strip() == "A ball swings from side to side. </s>"
    assert len(batch["pixel_values_videos"]) == len(batch["input_features"]) == 1
