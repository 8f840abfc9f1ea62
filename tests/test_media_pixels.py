"""Decoded frames become pixels: upright whatever the file says, opaque, and of standard range."""

import itertools
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from whole_videos import decode_all

from transformers_videollama.media import load_video
from transformers_videollama.media.pixels import over_white


SIZE = (48, 80)  # (height, width)
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 200))  # of the quarters
# a, b, c, d of the matrix: the pixel (x, y) is shown at (a x + c y, b x + d y)
ORIENTATIONS = [(a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)]
ORIENTATIONS += [(0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)]


def quarters() -> np.ndarray:
    frame = np.empty((*SIZE, 3), np.uint8)
    height, width = SIZE[0] // 2, SIZE[1] // 2
    for number, colour in enumerate(COLOURS):
        top, left = number // 2 * height, number % 2 * width
        frame[top : top + height, left : left + width] = colour
    return frame


def shown(frame: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Pixel by pixel, as the matrix says."""
    a, b, c, d = matrix
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    right, down = a * x + c * y, b * x + d * y
    right, down = right - right.min(), down - down.min()
    result = np.empty((down.max() + 1, right.max() + 1, 3), np.uint8)
    result[down, right] = frame
    return result


def encode(path: Path, frames: list[np.ndarray], codec: str = "libx264", **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def tilt(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes the matrix into the header of an MP4's track."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = content.index(upright, content.index(b"tkhd"))
    content[place : place + len(upright)] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def remux(source: Path, target: Path) -> Path:
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    return target


def close(frame: np.ndarray, expected: np.ndarray) -> bool:
    """Within what encoding changes, but for the edges of colours."""
    return frame.shape == expected.shape and np.quantile(np.abs(frame.astype(int) - expected), 0.85) <= 12


@pytest.mark.parametrize("suffix", (".mp4", ".mkv"))
@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_frames_are_turned_and_mirrored_as_the_header_says(tmp_path, matrix, suffix):
    path = tilt(encode(tmp_path / "clip.mp4", [quarters()] * 3), matrix)
    if suffix == ".mkv":
        path = remux(path, tmp_path / "clip.mkv")
    expected = shown(quarters(), matrix)
    assert all(close(frame, expected) for frame in load_video(path).frames)
    assert load_video(path, size=(32, 40)).frames.shape == (3, 32, 40, 3)


@pytest.mark.parametrize("matrix", ((0, 0, 0, 0), (1, 0, 0, 0)))
def test_a_matrix_that_makes_the_picture_vanish_is_not_followed(tmp_path, matrix):
    path = tilt(encode(tmp_path / "clip.mp4", [quarters()]), matrix)
    assert close(load_video(path).frames[0], quarters())


@pytest.mark.parametrize("suffix", (".mp4", ".mkv", ".ts"))
@pytest.mark.parametrize("codec", ("libx264", "libx265"))
def test_an_orientation_in_the_stream_holds_for_all_frames_from_there_on(tmp_path, codec, suffix):
    """Only the first frame says it; frames behind later key frames are decoded without it."""
    options = {"g": "5", "bf": "0"} if codec == "libx264" else {"x265-params": "log-level=none:keyint=5:bframes=0"}
    plain = encode(tmp_path / "plain.mp4", [quarters()] * 20, codec, **options)
    path = tmp_path / f"clip{suffix}"
    kind = "h264" if codec == "libx264" else "hevc"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        for number, packet in enumerate(packet for packet in old.demux(source) if packet.size):
            if number == 0:
                packet = with_orientation(packet, kind)
            packet.stream = stream
            new.mux(packet)
    expected = shown(quarters(), (0, -1, 1, 0))  # counterclockwise
    for options in ({}, {"num_frames": 3}, {"start": 1.2}, {"num_frames": 20}):
        assert all(close(frame, expected) for frame in load_video(path, **options).frames), options


def with_orientation(packet: av.Packet, kind: str) -> av.Packet:
    """One message of supplemental information before the packet's own units: "turn by 90 degrees counterclockwise"."""
    header = {"h264": b"\x06", "hevc": b"\x4e\x01"}[kind]
    # cancel flag 0, no flips, the angle / 360 * 2 ** 16, and what says that it holds on
    bits = "0" + "00" + f"{1 << 14:016b}" + ("010" if kind == "h264" else "1") + ("0" if kind == "h264" else "")
    bits += "1"
    payload = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    unit = (header + bytes([47, len(payload)]) + payload + b"\x80").replace(b"\0\0\1", b"\0\0\3\1")
    new = av.Packet(len(unit).to_bytes(4, "big") + unit + bytes(packet))
    new.pts, new.dts, new.time_base, new.is_keyframe = packet.pts, packet.dts, packet.time_base, packet.is_keyframe
    new.duration = packet.duration
    return new


# ------------------------------------------------------------------------------------------------- transparent frames


def ramp(alpha: int) -> np.ndarray:
    rgba = np.empty((*SIZE, 4), np.uint8)
    rgba[..., :3] = quarters()
    rgba[..., 3] = 255
    rgba[: SIZE[0] // 2, :, 3] = alpha
    return rgba


@pytest.mark.parametrize("alpha", (0, 1, 127, 254, 255))
def test_over_white_is_what_pillow_gives(alpha):
    rgba = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    rgba[:16, :, 3] = alpha
    white = Image.new("RGBA", (32, 32), "white")
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB")).astype(int)
    assert np.abs(over_white(rgba) - expected).max() <= 1
    np.testing.assert_array_equal(over_white(rgba)[rgba[..., 3] == 255], rgba[rgba[..., 3] == 255][:, :3])


@pytest.mark.parametrize("size", (None, (24, 40)))
def test_transparent_frames_are_over_white(tmp_path, size):
    pictures = [Image.fromarray(ramp(0)), Image.fromarray(ramp(255))]
    pictures[0].save(tmp_path / "clip.png", save_all=True, append_images=pictures[1:], duration=100)
    first, second = load_video(tmp_path / "clip.png", size=size).frames
    half = len(first) // 2
    assert (first[: half - 2] == 255).all()
    np.testing.assert_array_equal(first[half + 2 :], second[half + 2 :])
    if size is None:
        np.testing.assert_array_equal(second, quarters())


# ------------------------------------------------------------------------------------------------- high dynamic range


def pq(light: float) -> float:
    """SMPTE ST 2084: cd/m2 -> signal."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (light / 10_000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def encode_hdr(path: Path, grey: list[float], transfer: int) -> Path:
    """Stripes of grey, given as signals from 0 to 1, in 10 bits of BT.2020."""
    luma = np.repeat(np.array([64 + round(876 * signal) for signal in grey], "<u2"), 32)
    with av.open(str(path), "w") as container:
        options = {"x265-params": f"log-level=none:bframes=0:lossless=1:colorprim=9:transfer={transfer}:colormatrix=9"}
        stream = container.add_stream("libx265", rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, len(luma), "yuv420p10le"
        frame = av.VideoFrame(len(luma), 64, "yuv420p10le")
        for plane, row in zip(frame.planes, (luma, luma[::2] * 0 + 512, luma[::2] * 0 + 512), strict=True):
            line = row.tobytes().ljust(plane.line_size, b"\0")
            plane.update(line * plane.height)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(path: Path, **options) -> list[int]:
    frame = load_video(path, **options).frames[0]
    assert np.ptp(frame.astype(int), axis=-1).max() <= 3  # grey stays grey
    width = frame.shape[1] // 6
    return [int(frame[len(frame) // 2, width * number + width // 2, 1]) for number in range(6)]


def test_pq_becomes_standard_range(tmp_path):
    path = encode_hdr(tmp_path / "pq.mp4", [pq(light) for light in (0, 1, 26, 203, 1000, 4000)], 16)
    for options in ({}, {"size": (32, 96)}):
        black, dark, grey, white, peak, beyond = greys(path, **options)
        assert black <= 2
        assert abs(dark - 255 * (1 / 203) ** (1 / 2.4)) < 4  # what is dark is kept
        assert abs(grey - 255 * (26 / 203) ** (1 / 2.4)) < 4
        assert 215 < white < 245  # of paper; what is above it remains apart
        assert peak >= 252
        assert beyond == 255


def test_hlg_becomes_standard_range(tmp_path):
    black, dark, grey, white, bright, peak = greys(
        encode_hdr(tmp_path / "hlg.mp4", [0, 0.2, 0.38, 0.75, 0.9, 1.0], 18)
    )
    assert black <= 2
    assert black < dark < grey < 140 < 215 < white < 245  # HLG's white of paper is 75% of its signal
    assert white < bright < peak
    assert peak >= 252


def test_colours_of_standard_range_are_as_they_were(tmp_path):
    """BT.709's own curve, also in BT.2020."""
    path = encode_hdr(tmp_path / "sdr.mp4", [0, 0.2, 0.4, 0.6, 0.8, 1.0], 14)
    np.testing.assert_array_equal(load_video(path).frames, decode_all(path))
