"""What happens to files: they are cut, damaged, turned, and frames of them are dropped."""

import struct
from collections.abc import Callable
from typing import Any

import av
import numpy as np


__all__ = ["ORIENTATIONS", "cut", "damage", "declare", "drop", "turned"]

# How frames lie in the file, and the matrix (a, b, c, d) that turns them upright: x' = a x + c y, y' = b x + d y
ORIENTATIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[int, int, int, int]]] = {
    "upright": (lambda upright: upright, (1, 0, 0, 1)),
    "turned left": (lambda upright: np.rot90(upright, 1), (0, 1, -1, 0)),
    "upside down": (lambda upright: np.rot90(upright, 2), (-1, 0, 0, -1)),
    "turned right": (lambda upright: np.rot90(upright, 3), (0, -1, 1, 0)),
    "mirrored": (lambda upright: upright[:, ::-1], (-1, 0, 0, 1)),
    "mirrored upside down": (lambda upright: upright[::-1], (1, 0, 0, -1)),
    "mirrored, turned left": (lambda upright: upright.swapaxes(0, 1), (0, 1, 1, 0)),
    "mirrored, turned right": (lambda upright: np.rot90(upright, 2).swapaxes(0, 1), (0, -1, -1, 0)),
}


def turned(name: str) -> Callable[[bytes], bytes]:
    """An MP4 file whose header says how its frames are to be turned."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        at = -1
        while (at := data.find(b"tkhd", at + 1)) >= 0:
            matrix = at + 4 + 40  # of a header of version 0
            width, height = (value >> 16 for value in struct.unpack(">2I", data[matrix + 36 : matrix + 44]))
            if not width:
                continue  # a track of sound
            a, b, c, d = ORIENTATIONS[name][1]
            x, y = width * (a < 0) + height * (c < 0), width * (b < 0) + height * (d < 0)
            one = 1 << 16
            values = (a * one, b * one, 0, c * one, d * one, 0, x * one, y * one, 1 << 30)
            changed[matrix : matrix + 36] = struct.pack(">9i", *values)
        return bytes(changed)

    return change


def cut(part: float) -> Callable[[bytes], bytes]:
    """The first part of a file, as of a download that broke off."""
    return lambda data: data[: int(part * len(data))]


def declare(name: bytes, other: bytes) -> Callable[[bytes], bytes]:
    """A file in which the bytes `name` are `other`."""
    return lambda data: data.replace(name, other)


def drop(*numbers: int) -> Callable[[list[Any]], list[Any]]:
    """Without the packets of some frames, for streams of key frames."""

    def change(packets: list[Any]) -> list[Any]:
        pictures = [packet for packet in packets if packet.stream.type == "video"]
        dropped = {id(pictures[number]) for number in numbers}
        return [packet for packet in packets if id(packet) not in dropped]

    return change


def damage(first: int, stop: int) -> Callable[[list[Any]], list[Any]]:
    """Noise in the place of the pictures' packets `[first, stop)`, behind the first bytes of each."""
    rng = np.random.default_rng(0)

    def change(packets: list[Any]) -> list[Any]:
        pictures = [packet for packet in packets if packet.stream.type == "video"]
        damaged = {id(packet) for packet in pictures[first:stop]}
        return [_noisy(packet, rng) if id(packet) in damaged else packet for packet in packets]

    return change


def _noisy(packet: Any, rng: np.random.Generator) -> Any:
    data = bytes(packet)
    head = min(8, len(data))
    noisy = av.Packet(data[:head] + rng.integers(0, 256, len(data) - head, dtype=np.uint8).tobytes())
    for name in ("stream", "pts", "dts", "time_base", "duration", "is_keyframe"):
        setattr(noisy, name, getattr(packet, name))
    return noisy
