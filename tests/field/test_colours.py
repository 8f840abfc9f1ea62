"""Colours are those that were drawn, and to within one of 255 those that FFmpeg makes of the same frames."""

import av
import numpy as np
import pytest

from transformers_videollama.media import load_video

from .kinds import COLOURS, KINDS
from .signals import PATCHES, patches_of


LOSS = 14  # of 255, of a lossy coder and of colours of less resolution


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("size", (None, (90, 120)))
def test_colours(file_of, name, size):
    frames = load_video(file_of(name), num_frames=4, size=size).frames
    if KINDS[name].recipe.pixels != "gray":
        for frame in frames:
            assert np.abs(patches_of(frame) - PATCHES).max() < LOSS
    height, width = frames.shape[1:3]
    theirs = of_ffmpeg(file_of(name), f"scale={width}:{height}")
    difference = np.abs(frames.astype(int) - theirs[[0, 2, 5, 7]]).max()
    assert difference <= 1


def of_ffmpeg(path, scale: str) -> np.ndarray:
    """All frames, through FFmpeg's filters."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        nodes = [graph.add_buffer(template=stream), graph.add(*scale.split("=")), graph.add("format", "rgb24")]
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        found = []
        for frame in container.decode(stream):
            graph.push(frame)
            found.append(graph.pull().to_ndarray())
    return np.stack(found)
