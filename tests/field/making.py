"""Makes files of any kind from a recipe, with PyAV and Pillow alone. What is in them is said in `signals`."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from .signals import chirp, draw


__all__ = ["Recipe", "make"]

TICK = Fraction(1, 600)  # of streams whose frames have times of their own
PILLOW = {"gif": "GIF", "webp": "WEBP", "apng": "PNG"}
FORMATS = {"mkv": "matroska", "mpg": "mpeg", "ts": "mpegts", "m2ts": "mpegts", "wmv": "asf", "ogv": "ogg"}
BITS_PER_SECOND = 96_000  # of each channel of sound
PIECE = 1024  # samples that an encoder gets at once


@dataclass(frozen=True)
class Recipe:
    """
    How a file is made.

    Attributes:
        suffix (`str`): Of the file; it says the container.
        video (`str`, *optional*): The encoder of the pictures; `None` for none.
        sound (`str`, *optional*): The encoder of the sound; `None` for none.
        frames (`int`): How many.
        rate (`int` or `Fraction`): Frames per second.
        times (`tuple[float, ...]`): When each frame is shown, in seconds; `index / rate` by default.
        size (`tuple[int, int]`): (width, height).
        pixels (`str`): FFmpeg's name of the pixel format.
        colours (`tuple[str, str]`, *optional*): The matrix, "itu601", "itu709" or "bt2020", and the range, "mpeg" or
            "jpeg"; not declared by default.
        aspect (`Fraction`): Width of a pixel by its height.
        lies (`Callable[[np.ndarray], np.ndarray]`): How an upright frame lies in the file.
        video_options, sound_options, options (`dict`): Of the two encoders and of the container.
        format (`str`, *optional*): FFmpeg's name of the container, where the suffix does not say it.
        sound_seconds (`float`, *optional*): Length of the sound; as long as the pictures by default.
        sound_at (`float`): When the sound's first sample plays, in seconds after the first frame is shown.
        sampling_rate (`int`), layout (`str`): Of the sound.
        begins_at (`float`): The container's time of the first frame.
        cameras (`int`): Tracks of pictures, the number n of which begins with the frame 100 n.
        languages (`tuple[str, ...]`): One sound track each, the number n of which begins with the second 4 n.
        seekable (`bool`): Whether the container can go back and complete its header.
        change (`Callable[[bytes], bytes]`, *optional*): What is done to the finished file, such as damage.
        change_packets (`Callable`, *optional*): What is done to the list of packets before they are written.
    """

    suffix: str
    video: str | None = "libx264"
    sound: str | None = None
    frames: int = 40
    rate: int | Fraction = 10
    times: tuple[float, ...] = ()
    size: tuple[int, int] = (160, 120)
    pixels: str = "yuv420p"
    colours: tuple[str, str] | None = None
    aspect: Fraction = Fraction(1)
    lies: Callable[[np.ndarray], np.ndarray] = np.asarray
    video_options: Mapping[str, str] = field(default_factory=lambda: {"g": "10"})
    sound_options: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    sound_seconds: float | None = None
    sound_at: float = 0.0
    sampling_rate: int = 48_000
    layout: str = "mono"
    begins_at: float = 0.0
    cameras: int = 1
    languages: tuple[str, ...] = ("und",)
    seekable: bool = True
    change: Callable[[bytes], bytes] | None = None
    change_packets: Callable[[list[Any]], list[Any]] | None = None

    @property
    def seconds(self) -> float:
        """When the last frame ends."""
        return (self.times[-1] if self.times else (self.frames - 1) / self.rate) + 1 / float(self.rate)

    @property
    def frame_times(self) -> tuple[float, ...]:
        return self.times or tuple(float(index / self.rate) for index in range(self.frames))

    @property
    def length_of_sound(self) -> float:
        return self.seconds if self.sound_seconds is None else self.sound_seconds


def make(recipe: Recipe, path: Path) -> Path:
    """Write the file of a recipe to `path`, whose suffix does not matter."""
    if recipe.suffix in PILLOW:
        _write_animation(recipe, path)
    elif recipe.seekable:
        _write_container(recipe, str(path))
    else:
        pipe = _Pipe()
        _write_container(recipe, pipe)
        path.write_bytes(pipe.data)
    if recipe.change:
        path.write_bytes(recipe.change(path.read_bytes()))
    return path


def _write_animation(recipe: Recipe, path: Path) -> None:
    images = [Image.fromarray(draw(number, recipe.size)) for number in range(recipe.frames)]
    ends = [*recipe.frame_times[1:], recipe.seconds]
    delays = [round((end - time) * 1000) for time, end in zip(recipe.frame_times, ends, strict=True)]
    images[0].save(
        path, PILLOW[recipe.suffix], save_all=True, append_images=images[1:], duration=delays, **recipe.options
    )


class _Pipe:
    """What a muxer writes to and cannot go back in."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def _write_container(recipe: Recipe, target: str | _Pipe) -> None:
    format_ = recipe.format or FORMATS.get(recipe.suffix, recipe.suffix)
    with av.open(target, "w", format=format_, options=dict(recipe.options)) as container:
        cameras = [_picture_stream(container, recipe) for _ in range(recipe.cameras) if recipe.video]
        sounds = [_sound_stream(container, recipe, language) for language in recipe.languages if recipe.sound]
        container.start_encoding()
        packets: list[Any] = []
        for number, stream in enumerate(cameras):
            packets += _picture_packets(stream, recipe, first=100 * number)
        for number, stream in enumerate(sounds):
            packets += _sound_packets(stream, recipe, first=4.0 * number)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        container.mux(recipe.change_packets(packets) if recipe.change_packets else packets)


def _picture_stream(container: Any, recipe: Recipe) -> Any:
    stream = container.add_stream(recipe.video, rate=recipe.rate, options=dict(recipe.video_options))
    stream.height, stream.width = recipe.lies(draw(0, recipe.size)).shape[:2]
    stream.pix_fmt = recipe.pixels
    stream.codec_context.thread_count = 1  # small frames are coded faster by one
    stream.codec_context.sample_aspect_ratio = recipe.aspect
    if recipe.times:
        stream.codec_context.time_base = TICK
    if recipe.colours:
        matrix, range_ = recipe.colours
        stream.codec_context.colorspace = Colorspace[matrix.upper()]
        stream.codec_context.color_range = ColorRange[range_.upper()]
    return stream


def _sound_stream(container: Any, recipe: Recipe, language: str) -> Any:
    options = dict(recipe.sound_options)
    stream = container.add_stream(recipe.sound, rate=recipe.sampling_rate, layout=recipe.layout, options=options)
    stream.codec_context.bit_rate = BITS_PER_SECOND * stream.layout.nb_channels
    if language != "und":
        stream.metadata["language"] = language
    return stream


def _picture_packets(stream: Any, recipe: Recipe, first: int) -> Iterator[Any]:
    tick = TICK if recipe.times else 1 / Fraction(recipe.rate)
    context = stream.codec_context
    colours = {"dst_colorspace": context.colorspace, "dst_color_range": context.color_range} if recipe.colours else {}
    for number, time in enumerate(recipe.frame_times):
        pixels = np.ascontiguousarray(recipe.lies(draw(first + number, recipe.size)))
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format=recipe.pixels, **colours)
        frame.pts, frame.time_base = round(time / tick), tick
        yield from _moved(stream.encode(frame), recipe.begins_at)
    yield from _moved(stream.encode(), recipe.begins_at)


def _sound_packets(stream: Any, recipe: Recipe, first: float) -> Iterator[Any]:
    samples = chirp(recipe.length_of_sound, recipe.sampling_rate, first)
    later = recipe.begins_at + recipe.sound_at
    channels = stream.layout.nb_channels
    for begin in range(0, len(samples), PIECE):
        piece = np.repeat(samples[begin : begin + PIECE], channels)[None]
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=recipe.layout)
        frame.sample_rate, frame.pts = recipe.sampling_rate, begin
        frame.time_base = Fraction(1, recipe.sampling_rate)
        yield from _moved(stream.encode(frame), later)
    yield from _moved(stream.encode(None), later)


def _moved(packets: list[Any], seconds: float) -> Iterator[Any]:
    for packet in packets:
        ticks = round(seconds / packet.time_base)
        packet.pts += ticks
        packet.dts += ticks
        yield packet
