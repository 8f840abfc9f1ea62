"""The code of docs/inference.md runs as it is printed, in its order, and its figures are those that were measured."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from pages import ROOT, Page
from transformers import AutoModelForMultimodalLM

from transformers_videollama import TINY_CHECKPOINT, VideoLlamaConfig


PAGE = Page("docs/inference.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bell_clip) -> Path:
    folder = tmp_path_factory.mktemp("inference")
    shutil.copytree(TINY_CHECKPOINT, folder / "Video-LLaMA-2-7B-Finetuned")
    shutil.copy(bell_clip, folder / "clip.mp4")
    return folder


@pytest.mark.slow
def test_code_runs_as_printed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names: dict = {}
    for language, code in PAGE.blocks:
        assert language == "python"
        PAGE.execute(code, names)
    said = capsys.readouterr().out
    seen, heard = "I see a red circle that moves left.", "I hear a bell."
    # The tiny model has learned nothing of second questions
    assert re.match(rf"{seen}\n.+ \(\d+ of \d+ tokens of the prompt were there already\)\n{seen} \n{heard} \n", said)
    texts = names["processor"].post_process_image_text_to_text(names["outputs"])
    assert texts[0].strip().endswith(seen)
    assert "disk" in names["placed"].hf_device_map.values() or torch.cuda.is_available()


def test_figures_are_those_that_were_measured():
    result = json.loads((ROOT / "benchmarks" / "results" / "chat-small-cpu-float32.json").read_text())
    first, second, anew = (row["first token after, s"]["median_s"] for row in result["rows"])
    number = r"([\d.]+)"
    said = re.search(
        rf"takes {number}% of [^.]*: {number} s\. [^.]* takes {number} s, and [^.]* anew, takes {number} s",
        PAGE.text,
    ).groups()
    assert said == (f"{100 * second / first:.2g}", f"{second:.3g}", f"{first:.3g}", f"{anew:.3g}")
    assert result["rows"][2]["same answer"] is True


def test_what_the_page_says_of_memory():
    with torch.device("meta"):
        model = AutoModelForMultimodalLM.from_config(VideoLlamaConfig(audio_config={}))
    language = model.model.language_model.num_parameters() + model.lm_head.weight.numel()
    assert f"{1 - language / model.num_parameters():.0%} of the 7B model's parameters" in PAGE.text
    text = model.config.text_config
    of_a_token = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    assert f"takes {of_a_token / 2**20} MiB for a token of the 7B model in 16 bit" in PAGE.text
