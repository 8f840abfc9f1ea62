"""The frames of files of all kinds: each is the one that decoding from the first to the last gives at its place."""

import gc
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from whole_videos import decode_all

from transformers_videollama.media import MediaError, load_video
from transformers_videollama.media.frames import open_video
from transformers_videollama.media.sources import local_file


OPEN_GROUPS = {"g": "20", "bf": "3", "x264-params": "open-gop=1"}
STREAMS = {
    "closed.mp4": ("libx264", {"g": "20", "bf": "3"}),
    "open.mp4": ("libx264", OPEN_GROUPS),
    "one group.mp4": ("libx264", {"g": "1000", "bf": "3"}),
    "key frames alone.mp4": ("libx264", {"g": "1"}),
    "fragmented.mp4": ("libx264", OPEN_GROUPS),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=20:open-gop=1:bframes=4"}),
    "open.mkv": ("libx264", OPEN_GROUPS),
    "vp9.webm": ("libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
    "vp8.webm": ("libvpx", {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "mpeg4.avi": ("mpeg4", {"g": "20", "bf": "2"}),
    "h264.avi": ("libx264", {"g": "20", "bf": "3"}),
    "open.ts": ("libx264", OPEN_GROUPS),
    "mpeg2.mpg": ("mpeg2video", {"g": "20", "bf": "2"}),
    "sorenson.flv": ("flv", {"g": "20"}),
}


def encode(path: Path, codec: str, options: dict, frames: np.ndarray, rate: int = 25) -> Path:
    movflags = {"movflags": "frag_keyframe+empty_moov"} if "fragmented" in path.name else {}
    with av.open(str(path), "w", options=movflags) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """Coarse noise that moves, so that no two frames are alike"""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    return np.stack([np.roll(noise, 5 * number, axis=1) for number in range(90)])


@pytest.mark.parametrize("name", STREAMS)
def test_every_frame_is_found_wherever_it_stands(tmp_path, moving, name):
    path = encode(tmp_path / name, *STREAMS[name], moving)
    everything = decode_all(path)
    assert len(everything) == 90
    for options in ({}, {"num_frames": 90}, {"num_frames": 37}, {"sampling": "headtail", "generator": 1}):
        video = load_video(path, **options)
        assert (video.total_num_frames, round(video.fps)) == (90, 25)
        assert np.abs(video.frames - everything[list(video.indices)].astype(int)).max() < 8
    for index in (0, 1, 17, 18, 19, 20, 21, 22, 39, 40, 41, 88, 89):  # each by itself, near key frames
        with open_video(local_file(path)) as file:
            frames = file.read([index])
        assert np.abs(frames[index] - everything[index].astype(int)).max() < 8, index


def matrix(turn: int) -> bytes:
    """Of an MP4 track that is shown turned by so many degrees."""
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("size", (None, (224, 224), (50, 100)))
@pytest.mark.parametrize("turn", (0, 90, 180, 270))
def test_frames_are_those_of_decord_which_the_original_uses(tmp_path, moving, size, turn):
    """To the bit; also upright ones, of files that say how telephones were held."""
    decord = pytest.importorskip("decord")
    path = encode(tmp_path / "clip.mp4", "libx264", {"g": "20", "bf": "3"}, moving)
    content = path.read_bytes()
    head = content.index(b"tkhd")
    path.write_bytes(content[:head] + content[head:].replace(matrix(0), matrix(turn), 1))
    scaled = {} if size is None else {"height": size[0], "width": size[1]}
    video = load_video(path, size=size)
    expected = decord.VideoReader(str(path), **scaled).get_batch(list(video.indices)).asnumpy()
    np.testing.assert_array_equal(video.frames, expected)


@pytest.mark.slow
def test_hidden_frames_of_vp8_are_not_counted(tmp_path, moving):
    """Its encoder may make frames that are only referred to; here, one whose bit says so."""
    path = encode(tmp_path / "clip.webm", "libvpx", {"g": "20", "lag-in-frames": "0"}, moving)
    hidden = tmp_path / "hidden.webm"
    with av.open(str(path)) as source, av.open(str(hidden), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size:
                content = bytearray(packet)
                content[0] &= 0xFF ^ (0x10 * (number == 50))
                copied = av.Packet(bytes(content))
                copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
                copied.is_keyframe, copied.stream = packet.is_keyframe, stream
                target.mux(copied)
    everything = decode_all(hidden)
    video = load_video(hidden, num_frames=1000)
    assert video.total_num_frames == len(everything) == 89
    assert np.abs(video.frames - everything.astype(int)).max() < 8


def test_a_frame_that_cannot_be_decoded_is_named(tmp_path, moving):
    path = encode(tmp_path / "clip.mkv", "libx264", {"g": "1"}, moving)
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + bytes(len(content) // 3) + content[2 * third :])
    with pytest.raises(MediaError, match=r"clip\.mkv: (is cut|is damaged|frame \d+ cannot be decoded)"):
        load_video(path, num_frames=90)


def test_decoded_frames_are_let_go(tmp_path, moving):
    """Without waiting for the collector of cycles, which counts objects and not their megabytes."""
    path = encode(tmp_path / "one group.mp4", "libx264", {"g": "1000"}, moving)
    gc.collect()
    gc.disable()
    try:
        load_video(path, num_frames=20)
        assert not [thing for thing in gc.get_objects() if type(thing) in (av.VideoFrame, av.Packet)]
    finally:
        gc.enable()
