"""Files and folders that appear whole or not at all."""

import os

import pytest

from transformers_videollama.files import appearing


def write(kind: str, partial) -> None:
    if kind == "folder":
        partial.mkdir()
        partial = partial / "inside"
    partial.write_text("new", encoding="utf-8")


def read(kind: str, path) -> str:
    return ((path / "inside") if kind == "folder" else path).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ("file", "folder"))
@pytest.mark.parametrize("place", ("here", "new/folders/on/the/way"))
def test_appears_when_the_block_ends(tmp_path, kind, place):
    path = tmp_path / place / "result"
    with appearing(path) as partial:
        write(kind, partial)
        assert not path.exists()
    assert read(kind, path) == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ("file", "folder"))
@pytest.mark.parametrize("fault", (ValueError, KeyboardInterrupt))
@pytest.mark.parametrize("when", ("before", "after"))
def test_nothing_is_left_of_a_failure(tmp_path, kind, fault, when):
    def fail(path):
        with appearing(path) as partial:
            if when == "after":
                write(kind, partial)
            raise fault

    with pytest.raises(fault):
        fail(tmp_path / "new" / "folder" / "result")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_has_the_name_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "result"
    path.write_text("old", encoding="utf-8")

    def fail():
        with appearing(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    with appearing(path) as partial:
        partial.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"


def test_all_of_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, steps = tmp_path / "result", []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("fsync"), real_sync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda old, new: (steps.append("replace"), real_replace(old, new)))
    with appearing(path) as partial:
        write("folder", partial)
    assert steps == ["fsync", "fsync", "replace", "fsync"]  # the file, the folder; then the folder that names them


def test_folders_of_others_on_the_way_stay(tmp_path):
    def fail():
        with appearing(tmp_path / "new" / "result"):
            (tmp_path / "new" / "of another").write_text("x", encoding="utf-8")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["of another"]
