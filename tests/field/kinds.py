"""The table of kinds of files: how each is made, and what is in it. A new kind is a new line."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .making import Recipe


__all__ = ["KINDS", "PENDING", "Kind"]


@dataclass(frozen=True)
class Kind:
    """
    A kind of file, and where it differs from what its recipe says.

    Attributes:
        recipe ([`Recipe`])
        shown (`tuple[int, ...]`, *optional*): The numbers that the frames carry, in the order in which they are shown;
            all of them by default.
        times (`tuple[float, ...]`, *optional*): When each is shown, in seconds after the first; the recipe's by
            default.
        delay (`float`): Seconds of the encoder's own before the sound, where the container cannot say that they are no
            sound.
        hears (`bool`): Whether there is any sound in the file's sound track.
        error (`str`, *optional*): A pattern in the message of the `MediaError` that the file is refused with.
        options (`dict`): Of `load_video`.
    """

    recipe: Recipe
    shown: tuple[int, ...] | None = None
    times: tuple[float, ...] | None = None
    delay: float = 0.0
    error: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(range(self.recipe.frames)) if self.shown is None else self.shown

    @property
    def shown_at(self) -> tuple[float, ...]:
        if self.times is not None:
            return self.times
        times = [self.recipe.frame_times[number] for number in self.numbers]
        return tuple(time - times[0] for time in times)


H264 = {"g": "10", "bf": "2"}
H264_MP4 = Recipe("mp4", "libx264", "aac", video_options=H264)
FRAGMENTED = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
REALTIME = {"g": "10", "deadline": "realtime", "cpu-used": "8"}
MPEG2 = {"g": "10", "bf": "2"}

# Name -> a file as this container usually is, with sound where it can have any
CONTAINERS = {
    "mp4": H264_MP4,
    "mov": replace(H264_MP4, suffix="mov", sound="pcm_s16le"),
    "fragmented mp4": replace(H264_MP4, options=FRAGMENTED),
    "mkv": replace(H264_MP4, suffix="mkv"),
    "piped mkv": replace(H264_MP4, suffix="mkv", sound="flac", seekable=False),
    "webm": Recipe("webm", "libvpx-vp9", "libopus", video_options=REALTIME),
    "recorder webm": Recipe(
        "webm", "libvpx", "libopus", video_options=REALTIME, options={"live": "1"}, seekable=False
    ),
    "avi": Recipe("avi", "mpeg4", "pcm_s16le"),
    "flv": Recipe("flv", "flv", "libmp3lame", sampling_rate=44_100),
    "mpg": Recipe("mpg", "mpeg2video", "mp2", rate=25, frames=100, video_options=MPEG2),
    "vob": Recipe("vob", "mpeg2video", "ac3", rate=25, frames=100, video_options=MPEG2),
    "ts": Recipe("ts", "libx264", "aac", video_options=H264),
    "m2ts": Recipe("m2ts", "libx264", "ac3", video_options=H264, options={"mpegts_m2ts_mode": "1"}),
    "wmv": Recipe("wmv", "wmv2", "wmav2"),
    "ogv": Recipe("ogv", "libvpx", "vorbis", layout="stereo", sound_options={"strict": "-2"}, video_options=REALTIME),
    "mxf": Recipe("mxf", "mpeg2video", "pcm_s16le", rate=25, frames=100, video_options=MPEG2),
    "gif": Recipe("gif"),
    "webp": Recipe("webp", options={"lossless": True}),
    "apng": Recipe("apng"),
    "avif": Recipe("avif", "libaom-av1", video_options={"cpu-used": "8", "g": "10"}),
}
# Seconds of the encoder's own, which the container cannot tell from sound
DELAYS = {
    "flv": 0.0,
    "mpg": 0.0,
    "vob": 0.0,
    "ts": 1024 / 48_000,
    "m2ts": 256 / 48_000,
    "wmv": 0.0,
}


def with_and_without_sound() -> dict[str, Kind]:
    kinds = {}
    for name, recipe in CONTAINERS.items():
        if recipe.sound:
            kinds[f"{name}, sound"] = Kind(recipe, delay=DELAYS.get(name, 0.0))
        kinds[f"{name}, silent"] = Kind(replace(recipe, sound=None))
    return kinds


def offsets() -> dict[str, Kind]:
    return {
        f"{name}, sound at {at}": Kind(replace(CONTAINERS[name], sound_at=at), delay=DELAYS.get(name, 0.0))
        for name in ("mp4", "mov", "fragmented mp4", "mkv", "webm", "flv", "mpg", "vob", "ts", "m2ts", "wmv")
        for at in (-2.0, -0.3, 0.3, 3.0)
    }


UNEVEN = (0.0, 2.0, *(4 + number / 30 for number in range(38)))  # as of a phone, or of what a screen shows
DELAYED = (0.0, 0.1, 1.5, 1.6, 1.7, 3.0, 3.2, 3.4, 3.6, 3.8)

KINDS = {
    **with_and_without_sound(),
    **offsets(),
    # Frames that are not evenly spread in time
    "uneven mp4": Kind(replace(CONTAINERS["mp4"], times=UNEVEN)),
    "uneven mkv": Kind(replace(CONTAINERS["mkv"], times=UNEVEN)),
    "uneven gif": Kind(replace(CONTAINERS["gif"], times=DELAYED, frames=10)),
    "uneven webp": Kind(replace(CONTAINERS["webp"], times=DELAYED, frames=10)),
    "uneven apng": Kind(replace(CONTAINERS["apng"], times=DELAYED, frames=10)),
}

# Kinds that are wrong today -> what is wrong
PENDING: dict[str, str] = {}
