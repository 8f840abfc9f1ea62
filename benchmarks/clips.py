"""Video files of any length, made in seconds: the packets of two seconds, over and over."""

from collections.abc import Iterator
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import av
import numpy as np


__all__ = ["long_clip"]

FPS, GROUP = 25, 50  # frames a second, and from one key frame to the next
SAMPLING_RATE, AAC_FRAME = 44_100, 1024


def long_clip(path: Path, minutes: float, size: tuple[int, int] = (1280, 720)) -> Path:
    """
    A video with sound, H.264 and AAC, of noise that moves.

    Args:
        path (`Path`): Its suffix says which container.
        minutes (`float`)
        size (`tuple[int, int]`): (width, height).
    """
    pattern = path.with_suffix(".pattern.mp4")
    _write_pattern(pattern, size)
    with av.open(str(pattern)) as source, av.open(str(path), "w") as target:
        picture, sound = source.streams.video[0], source.streams.audio[0]
        copies = {stream.index: target.add_stream_from_template(stream) for stream in (picture, sound)}
        packets = {stream.index: _packets(source, stream) for stream in (picture, sound)}
        rounds = round(minutes * 60 * FPS / GROUP)
        frame = int(1 / FPS / picture.time_base)
        pictures = _repeated(packets[picture.index], copies[picture.index], rounds, GROUP * frame)
        length = int(Fraction(AAC_FRAME, SAMPLING_RATE) / sound.time_base) * len(packets[sound.index])
        sounds = _repeated(packets[sound.index], copies[sound.index], rounds, length)
        for packet in merge(pictures, sounds, key=lambda packet: packet.dts * packet.time_base):
            target.mux(packet)
    pattern.unlink()
    return path


def _write_pattern(path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    width, height = size
    noise = rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    with av.open(str(path), "w") as container:
        options = {"g": str(GROUP), "bf": "3", "x264-params": f"min-keyint={GROUP}:scenecut=0"}
        picture = container.add_stream("libx264", rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        for number in range(GROUP):
            pixels = np.ascontiguousarray(np.roll(noise, 4 * number, axis=1)[: size[1], : size[0]])
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode())
        # Whole frames of AAC for as long as the pictures
        for number in range(SAMPLING_RATE * GROUP // FPS // AAC_FRAME):
            samples = rng.normal(0, 0.1, (1, AAC_FRAME)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = SAMPLING_RATE, number * AAC_FRAME
            container.mux(sound.encode(frame))
        container.mux(sound.encode())


def _packets(container: Any, stream: Any) -> list[Any]:
    container.seek(0)
    return [packet for packet in container.demux(stream) if packet.size]


def _repeated(packets: list[Any], stream: Any, rounds: int, length: int) -> Iterator[Any]:
    for number in range(rounds):
        for packet in packets:
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts = packet.pts + number * length, packet.dts + number * length
            copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
            yield copy
