"""docs/small-data.md: the commands, as they are printed, teach the tiny model 40 clips of somebody's own."""

import json
import shutil
import time
from pathlib import Path

import pytest
from own_clips import QUESTIONS, render_own_clips, rows_of
from pages import ROOT, Page
from transformers import AutoModelForMultimodalLM, AutoProcessor

from examples.tiny.evaluate import ask
from transformers_videollama import TINY_CHECKPOINT


pytestmark = pytest.mark.slow
PAGE = Page("docs/small-data.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory with what the page names."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(TINY_CHECKPOINT, folder / "Video-LLaMA-2-7B-Finetuned")
    (folder / "examples").symlink_to(ROOT / "examples")
    clips = render_own_clips(folder / "clips", 40, seed=1)
    (folder / "clips.json").write_text(json.dumps(rows_of(clips, "clips")))
    return folder


def share_of_right_answers(checkpoint: Path, folder: Path, clips: dict[str, tuple[str, ...]]) -> float:
    """To the letter, asked as README asks: with the defaults of the processor that lies in the checkpoint."""
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint).eval()
    asked = [
        (folder / name, question, answer)
        for name, answers in sorted(clips.items(), key=lambda clip: clip[1][2])  # prompts of one length together
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    said = ask(model, AutoProcessor.from_pretrained(checkpoint), [row[:2] for row in asked])
    return sum(text == row[2] for text, row in zip(said, asked, strict=True)) / len(asked)


def test_forty_clips_are_learned_and_asked_about_as_the_readme_asks(folder, monkeypatch):
    held_out = render_own_clips(folder / "held-out", 18, seed=2)
    assert share_of_right_answers(folder / "Video-LLaMA-2-7B-Finetuned", folder / "held-out", held_out) <= 0.05
    monkeypatch.chdir(folder)
    started, names = time.perf_counter(), {}
    for language, code in PAGE.blocks:
        if language == "bash":
            said = PAGE.run(["bash", "-euc", code], folder, OMP_NUM_THREADS="1")
        else:
            PAGE.execute(code, names)
    seconds = time.perf_counter() - started
    right = share_of_right_answers(folder / "Video-LLaMA-small", folder / "held-out", held_out)
    print(f"{right:.0%} of {3 * len(held_out)} held-out answers right after {seconds:.0f} s")
    assert right >= 0.75
    assert said.startswith("I see a ")
