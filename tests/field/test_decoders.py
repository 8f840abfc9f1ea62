"""decord gives the frames of PyAV, to the bit, or refuses a file; docs/media.md says so to those who choose it."""

import re

import numpy as np
import pytest

from transformers_videollama.media import MediaError, load_video

from .kinds import KINDS


pytest.importorskip("decord", reason="decord is not installed; the extra test dependencies have it")
# The pictures of other kinds are made as those of one of these are
PICTURES = [
    name for name, kind in KINDS.items() if kind.error is None and not re.search(r", sound|sound at|sound in", name)
]
# Pattern of names -> why decord does not read them
REFUSED = {
    r"second camera": r"reads stream \d+ alone",
    r"\b(ts|m2ts|mpg|vob)\b|interlaced mpeg2": "does not find the frames of",
    r"mirrored": "does not mirror frames",
    r"\bgif\b": "does not show what may be transparent",
    r"piped avi": "believes the header, which counts 1073741824 frames",
    r"hides frames": "finds 40 frames, and the file has 35",
    r"h264 in avi|a frame every": r"says frame \d+ is shown at",
    r"\b(nut|apng|ogv)\b|(piped|recorder) (mkv|webm|wmv)": "its reader fails",
}


@pytest.mark.parametrize("name", PICTURES)
def test_frames_are_those_of_pyav_or_refused(file_of, name):
    kind = KINDS[name]
    options = {"num_frames": len(kind.numbers), **kind.options}
    why = next((message for names, message in REFUSED.items() if re.search(names, name)), None)
    if why is None:
        frames, expected = (load_video(file_of(name), decoder=by, **options).frames for by in ("decord", "pyav"))
        np.testing.assert_array_equal(frames, expected)
    else:
        with pytest.raises(MediaError, match=rf"(?s)decoder='decord': {why}.*; try decoder='pyav'$"):
            load_video(file_of(name), decoder="decord", **options)
