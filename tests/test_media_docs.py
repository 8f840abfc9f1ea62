"""The code of docs/media.md runs as it is printed, and its tables have every option and every limit."""

import dataclasses
import inspect
import re
import shutil

import numpy as np
from pages import Page

from transformers_videollama import load_video
from transformers_videollama.media import MediaAccess, restrict_media_access


PAGE = Page("docs/media.md")


def rows(section: str) -> set[str]:
    """The names in the first column of a section's table."""
    text = PAGE.text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return {
        name
        for line in re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line)
    }


def test_code_runs_as_printed(bell_clip, tmp_path, monkeypatch, capsys):
    shutil.copy(bell_clip, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for code in PAGE.code("python"):
            PAGE.execute(code, names)
    finally:
        restrict_media_access(names["before"])
    first, last = capsys.readouterr().out.splitlines()
    assert first == "(8, 10, 12, 14) (1.0, 1.25, 1.5, 1.75)"
    assert last == str(np.shape(names["video"].frames))
    assert names["before"] == MediaAccess()


def test_every_option_and_limit_is_in_a_table():
    options = set(inspect.signature(load_video).parameters)
    options -= {"source", "size", "video_fps", "max_frames", "generator", "timeout", "access"}  # of no block
    assert rows("Which frames") == options
    fields = {field.name for field in dataclasses.fields(MediaAccess) if field.init and not field.name.startswith("_")}
    assert rows("What strangers may have opened") == fields
