"""Colours are those that were drawn, and those of FFmpeg to within one of 255; sound is that of FFmpeg, too."""

import av
import numpy as np
import pytest
import torch

from transformers_videollama.media import load_sound, load_video
from transformers_videollama.media.spectrograms import log_mel_spectrogram

from .kinds import CODECS, COLOURS, KINDS
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


# What is above the last of these bins, 7 kHz, is where filters that resample differ
BINS = 118
# More channels are weighed, which is tested elsewhere; at 8 kHz there is nothing above 4 kHz but rounding
ALIKE = [
    name for name, kind in CODECS.items() if len(kind.whole_channels) <= 2 and kind.recipe.sampling_rate > 2 * 8000
]


@pytest.mark.parametrize("name", ALIKE)
def test_sound(file_of, name):
    ours = load_sound(file_of(name)).read(0.0, 1.9, 16_000).mean(axis=0)
    theirs = sound_of_ffmpeg(file_of(name))[: len(ours)]
    mine, other = (
        log_mel_spectrogram(torch.from_numpy(np.ascontiguousarray(samples)), 16_000, 128)[:BINS]
        for samples in (ours, theirs)
    )
    assert abs(float(mine.mean() - other.mean())) < 0.005


def sound_of_ffmpeg(path) -> np.ndarray:
    """All samples as of `ffmpeg -ac 1 -ar 16000`, from -1 to 1."""
    resampler = av.AudioResampler(format="s32", layout="mono", rate=16_000)
    with av.open(str(path)) as container:
        found = []
        for frame in [*container.decode(container.streams.audio[0]), None]:
            if frame is not None:
                frame.pts = None  # gaps are not filled
            found += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    return (np.concatenate(found) / 2**31).astype(np.float32)
