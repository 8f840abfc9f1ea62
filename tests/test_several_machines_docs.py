"""The commands of docs/several-machines.md run as they are printed, those of two machines at once and on this one."""

import json
import shutil
from pathlib import Path

import pytest
from pages import ROOT, Page
from render_clip import render_clip
from safetensors.torch import load_file


pytestmark = pytest.mark.slow
PAGE = Page("docs/several-machines.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("several")
    shutil.copytree(checkpoint, folder / "Video-LLaMA-2-7B-Finetuned")
    (folder / "examples").symlink_to(ROOT / "examples")
    clip = render_clip(folder / "clip.mp4", seconds=0.5, sound=False)
    question = {"role": "user", "content": [{"type": "video", "path": clip.name}, {"type": "text", "text": "What?"}]}
    rows = [{"messages": [question, {"role": "assistant", "content": f"Ball {i}."}]} for i in range(4)]
    (folder / "clips.json").write_text(json.dumps(rows))
    return folder


def test_commands_run_as_printed(folder):
    one, first, second, again = PAGE.code("bash")
    run = {"folder": folder, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    PAGE.run(["bash", "-euc", one], **run)
    branch = load_file(folder / "runs" / "ddp" / "branch.safetensors")
    both = f"({first}) & {second}\nwait $!".replace("10.0.0.1", "127.0.0.1")
    PAGE.run(["bash", "-euc", both], **run)
    apart = load_file(folder / "runs" / "two" / "branch.safetensors")
    assert all(apart[name].equal(tensor) for name, tensor in branch.items())
    PAGE.run(["bash", "-euc", again], **run)
    assert (folder / "runs" / "ddp" / "checkpoint-3").is_dir()
    assert not (folder / "runs" / "ddp" / "earlier-1").exists()


def test_the_files_that_the_page_names_are_there():
    assert all((ROOT / path).exists() for path in PAGE.names_of_files())
    for name in ("ddp.yaml", "fsdp2.yaml", "deepspeed_zero3.yaml"):
        assert f"`{name}`" in PAGE.text
        assert (ROOT / "examples" / "accelerate" / name).is_file()
