"""README's commands and code run as they are printed, on stand-ins for the released files."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, Page
from PIL import Image
from render_clip import render_clip
from tiny_conversions import HEADS, REFERENCE


README = Page("README.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory that has what README names: the original's files, a clip and a photo."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(REFERENCE / "checkpoints", folder / "original")
    # Attention heads of the tiny stand-ins; those of the released files are known
    shutil.copy(HEADS, folder / "original" / "conversion.json")
    render_clip(folder / "clip.mp4", seconds=3.0)
    Image.new("RGB", (64, 48), "teal").save(folder / "photo.jpg")
    (folder / "examples").symlink_to(ROOT / "examples")
    content = [{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What moves?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "A ball."}]
    (folder / "clips.json").write_text(json.dumps([{"messages": messages}]))
    return folder


def test_the_first_commands_are_the_demo_and_the_tests():
    first = [code.strip() for code in README.code("bash")[:3]]
    assert [first[0], first[2]] == ["make demo", "make test"]


@pytest.mark.slow
def test_demo_prints_what_readme_says(folder):
    """Run as `make demo` does; then the command that needs no model."""
    printed = README.code("text")[0]
    assert printed in README.run([sys.executable, "-m", "examples.demo"], folder)
    assert printed.endswith(f"  {README.run(['bash', '-euc', README.code('bash')[1]], folder)}")


@pytest.mark.slow
def test_commands_and_code_run_as_printed(folder):
    conversion, *commands = README.code("bash")[3:]
    README.run(["bash", "-euc", conversion], folder)
    code = "\n".join(README.code("python"))
    said = README.run([sys.executable, "-c", code + "\nprint(video.shape, sound.shape)"], folder)
    assert said.endswith("torch.Size([1, 5, 64]) torch.Size([1, 3, 64])\n")
    for block in commands:
        said = README.run(["bash", "-euc", block], folder)
        assert len(said.splitlines()) >= len(block.strip().splitlines())


def paths_of_the_tree() -> list[str]:
    """What the tree names, folders with a `/` at the end: a line is in the last folder above it with less indent."""
    folders, paths = [], []
    for line in README.code("text")[-1].splitlines():
        indent, name = re.match(r"([│├└─ ]*)(\S+)", line).groups()
        folders = folders[: len(indent) // 4]
        paths.append("".join([*folders, name]))
        if name.endswith("/"):
            folders.append(name)
    return paths


@pytest.mark.parametrize("path", paths_of_the_tree())
def test_what_the_tree_names_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_make_help_lists_the_commands_of_readme():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"`?make ([a-z-]+)`?", README.text):
        assert f"make {target}" in listed
