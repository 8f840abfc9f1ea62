"""The table of kinds of files: how each is made, and what is in it. A new kind is a new line."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av

from . import changes
from .making import Recipe


__all__ = ["CODECS", "COLOURS", "KINDS", "SOUNDS", "Kind"]


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
        delay (`float`): Seconds of the encoder's own that play before the sound, where the container cannot say that
            they are none; less than 0 where the decoder takes them and more.
        heard (`tuple[float, float, float]`, *optional*): When the sound begins and ends, on the clock of the pictures,
            and its second at the beginning; by the recipe and `delay` by default.
        corners (`str`): The marks in the corners; without colours they are mistaken for others.
        error (`str`, *optional*): A pattern in the message of the `MediaError` that the file is refused with.
        options (`dict`): Of `load_video`.
    """

    recipe: Recipe
    shown: tuple[int, ...] | None = None
    times: tuple[float, ...] | None = None
    delay: float = 0.0
    heard: tuple[float, float, float] | None = None
    corners: str = "RGBW"
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

    @property
    def length(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return self.shown_at[-1] + 1 / float(self.recipe.rate)

    @property
    def plays(self) -> tuple[float, float, float] | None:
        """As `heard`; `None` for a file without sound."""
        recipe = self.recipe
        if self.heard is not None or not recipe.sound or not recipe.length_of_sound:
            return self.heard
        return (recipe.sound_at - self.delay, recipe.sound_at + recipe.length_of_sound, -self.delay)

    @property
    def whole_channels(self) -> list[bool]:
        """Which channels have the whole chirp; that of the bass has not."""
        return [channel.name != "LFE" for channel in av.AudioLayout(self.recipe.layout).channels]


H264 = {"g": "10", "bf": "2"}
H264_MP4 = Recipe("mp4", "libx264", "aac", video_options=H264)
FRAGMENTED = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
REALTIME = {"g": "10", "deadline": "realtime", "cpu-used": "8"}
MPEG2 = {"g": "10", "bf": "2"}
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=10"}
HEVC_OPEN = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=10:open-gop=1:bframes=3"}
AV1 = {"preset": "8", "crf": "20", "svtav1-params": "keyint=10"}

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
    "nut": Recipe("nut", "mpeg4", "libmp3lame"),
    "gif": Recipe("gif"),
    "webp": Recipe("webp", options={"lossless": True}),
    "apng": Recipe("apng"),
    "avif": Recipe("avif", "libsvtav1", video_options=AV1),
}
# Seconds of the encoder's own, which the container cannot tell from sound
AAC_DELAY, MP3_DELAY, AC3_DELAY = 1024 / 48_000, 1105 / 48_000, 256 / 48_000
DELAYS = {
    "flv": 1105 / 44_100,
    "mpg": 481 / 48_000,
    "vob": AC3_DELAY,
    "ts": AAC_DELAY,
    "m2ts": AC3_DELAY,
    "wmv": -2048 / 48_000,
    "nut": MP3_DELAY,
}


def usual(name: str, **fields: Any) -> Kind:
    """A container as it usually is, but for some fields of its recipe."""
    return Kind(replace(CONTAINERS[name], **fields), delay=DELAYS.get(name, 0.0))


def with_and_without_sound() -> dict[str, Kind]:
    with_sound = {f"{name}, sound": usual(name) for name, recipe in CONTAINERS.items() if recipe.sound}
    return with_sound | {f"{name}, silent": usual(name, sound=None) for name in CONTAINERS}


def offsets() -> dict[str, Kind]:
    """Sound that begins before or after the pictures, in the containers that can hold it."""
    kinds = {}
    for at in (-2.0, -0.3, 0.3, 3.0):
        for name in ("mkv", "webm", "recorder webm", "flv", "mpg", "vob", "ts", "m2ts", "wmv", "nut"):
            kinds[f"{name}, sound at {at}"] = usual(name, sound_at=at)
        # Ogg counts from 0
        kinds[f"ogv, sound at {at}"] = usual("ogv", sound_at=at, begins_at=max(-at, 0.0))
        for name in ("mp4", "mov", "fragmented mp4"):
            # The encoder's own samples are hidden by an edit list, which is there for sound that begins at 0
            delay = AAC_DELAY if CONTAINERS[name].sound == "aac" and at > 0 else 0.0
            kind = usual(name, sound_at=at, begins_at=max(-at, 0.0))
            kinds[f"{name}, sound at {at}"] = replace(kind, delay=delay)
    return kinds


def colours() -> dict[str, Kind]:
    """Matrices, ranges, depths and layouts of pixels, and the codecs that have them."""
    kinds = {
        f"{matrix} {range_}": usual("mp4", sound=None, frames=10, colours=(matrix, range_))
        for matrix in ("itu601", "itu709", "bt2020")
        for range_ in ("mpeg", "jpeg")
    }
    for name, recipe in {
        "h264 4:4:4": Recipe("mp4", "libx264", pixels="yuv444p"),
        "h264 4:2:2, 10 bit": Recipe("mkv", "libx264", pixels="yuv422p10le"),
        "hevc": Recipe("mp4", "libx265", video_options=HEVC),
        "hevc 10 bit": Recipe("mp4", "libx265", pixels="yuv420p10le", video_options=HEVC, colours=("bt2020", "mpeg")),
        "av1": Recipe("mp4", "libsvtav1", video_options=AV1),
        "av1 10 bit": Recipe("mkv", "libsvtav1", pixels="yuv420p10le", video_options=AV1),
        "vp9 4:4:4": Recipe("webm", "libvpx-vp9", pixels="yuv444p", video_options=REALTIME),
        "prores": Recipe("mov", "prores_ks", pixels="yuv422p10le", colours=("itu709", "mpeg")),
        "ffv1": Recipe("mkv", "ffv1", pixels="yuv420p", colours=("itu709", "mpeg")),
        "ffv1 16 bit": Recipe("mkv", "ffv1", pixels="yuv444p16le"),
        "mjpeg": Recipe("mov", "mjpeg", pixels="yuvj420p"),
        "huffyuv": Recipe("avi", "huffyuv", pixels="yuv422p"),
        "h264 rgb": Recipe("mp4", "libx264rgb", pixels="rgb24"),
        "png": Recipe("mov", "png", pixels="rgb24"),
        "raw rgb": Recipe("avi", "rawvideo", pixels="bgr24"),
    }.items():
        kinds[name] = Kind(replace(recipe, frames=10))
    kinds["grey"] = Kind(Recipe("mkv", "ffv1", pixels="gray", frames=10), corners="RWRW")
    return kinds


def orientations() -> dict[str, Kind]:
    return {
        f"mp4, {name}": usual("mp4", sound=None, frames=10, lies=lies, change=changes.turned(name))
        for name, (lies, _) in changes.ORIENTATIONS.items()
    }


def sound_codecs() -> dict[str, Kind]:
    """Codecs of sound and numbers of channels, next to few pictures."""
    few = {"frames": 20, "video_options": {"g": "10"}}
    kinds = {
        f"{codec} in {suffix}": Kind(Recipe(suffix, "libx264", codec, **few, **more), delay=delay)
        for suffix, codec, delay, more in (
            ("mkv", "aac", 0.0, {}),
            ("mkv", "libopus", 0.0, {}),
            ("mkv", "vorbis", 0.0, {"layout": "stereo", "sound_options": {"strict": "-2"}}),
            ("mkv", "flac", 0.0, {}),
            ("mkv", "libmp3lame", 0.0, {}),
            ("mkv", "ac3", 0.0, {}),
            ("mkv", "eac3", 0.0, {}),
            ("mkv", "mp2", 0.0, {}),
            ("mkv", "pcm_s24le", 0.0, {}),
            ("mkv", "pcm_f32le", 0.0, {}),
            ("mkv", "tta", 0.0, {}),
            ("mov", "alac", 0.0, {}),
            ("mov", "pcm_s16be", 0.0, {}),
            ("mov", "pcm_mulaw", 0.0, {"sampling_rate": 8000}),
            ("mp4", "libmp3lame", 0.0, {}),
            ("mp4", "ac3", 0.0, {}),
            ("mp4", "libopus", 0.0, {}),
            ("mp4", "flac", 0.0, {}),
        )
    }
    for codec, delay in (("pcm_u8", 0.0), ("libmp3lame", MP3_DELAY), ("ac3", AC3_DELAY)):
        # AVI has no times: what the encoder puts before the sound delays it
        recipe = Recipe("avi", "mpeg4", codec, frames=20)
        kinds[f"{codec} in avi"] = Kind(recipe, heard=(0.0, 2.0 + delay, -delay))
    # An empty chunk follows the first frame, because the sound's coder begins before it
    times = (0.0, *(number / 10 for number in range(2, 21)))
    kinds["libmp3lame in avi"] = replace(kinds["libmp3lame in avi"], times=times)
    for suffix, codec, layout in (
        ("mp4", "aac", "stereo"),
        ("mp4", "aac", "5.1"),
        ("mp4", "aac", "7.1"),
        ("mp4", "aac", "hexadecagonal"),
        ("mkv", "libopus", "5.1"),
        ("webm", "libopus", "7.1"),
        ("mkv", "flac", "5.1"),
        ("mkv", "flac", "7.1"),
        ("ts", "ac3", "5.1"),
        ("mov", "pcm_s16le", "7.1"),
        ("mov", "pcm_s16le", "hexadecagonal"),
        ("wmv", "wmav2", "stereo"),
        ("flv", "libmp3lame", "stereo"),
        ("mpg", "mp2", "stereo"),
    ):
        video = {"webm": "libvpx-vp9", "wmv": "wmv2", "flv": "flv", "mpg": "mpeg2video"}.get(suffix, "libx264")
        options = REALTIME if suffix == "webm" else {"g": "10"}
        more = {"rate": 25, "frames": 50} if suffix == "mpg" else {"frames": 20}
        more |= {"sampling_rate": 44_100} if suffix == "flv" else {}
        recipe = Recipe(suffix, video, codec, layout=layout, video_options=options, **more)
        kinds[f"{codec} {layout} in {suffix}"] = Kind(
            recipe, delay=AC3_DELAY if codec == "ac3" else DELAYS.get(suffix, 0.0)
        )
    return kinds


UNEVEN = (0.0, 2.0, *(4 + number / 30 for number in range(38)))  # as of a phone, or of what a screen shows
DELAYED = (0.0, 0.1, 1.5, 1.6, 1.7, 3.0, 3.2, 3.4, 3.6, 3.8)
TENTHS = tuple(number / 10 for number in range(40))
INTRA = {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}
OPEN_GROUPS = {"g": "10", "bf": "3", "x264-params": "open-gop=1"}
WRAP = 2**33 / 90_000  # seconds that an MPEG stream can count

COLOURS = colours()
CODECS = sound_codecs()
KINDS = {
    **with_and_without_sound(),
    **offsets(),
    **COLOURS,
    **orientations(),
    **CODECS,
    # Other containers
    "3gp": Kind(Recipe("3gp", "h263", "aac", size=(176, 144))),
    "f4v": Kind(Recipe("f4v", "libx264", "aac", video_options=H264), delay=AAC_DELAY),
    "nut": usual("nut"),
    "ivf": Kind(Recipe("ivf", "libvpx-vp9", video_options=REALTIME)),
    "y4m": Kind(Recipe("y4m", "wrapped_avframe", format="yuv4mpegpipe", frames=10)),
    "dv": Kind(Recipe("dv", "dvvideo", rate=25, frames=25, size=(720, 576), video_options={})),
    # Frames that are not evenly spread in time
    "uneven mp4": usual("mp4", times=UNEVEN, rate=30),
    "uneven mkv": usual("mkv", times=UNEVEN, rate=30),
    "uneven ts": usual("ts", times=UNEVEN, rate=30),
    "uneven gif": usual("gif", times=DELAYED, frames=10),
    "uneven webp": usual("webp", times=DELAYED, frames=10),
    "uneven apng": usual("apng", times=DELAYED, frames=10),
    "29.97 frames per second": usual("mp4", rate=Fraction(30_000, 1001), frames=90),
    # Written without going back to complete the header
    "piped avi": usual("avi", seekable=False),
    "piped fragmented mp4": usual("fragmented mp4", seekable=False),
    "piped flv": usual("flv", seekable=False),
    "piped mpg": usual("mpg", seekable=False),
    "piped wmv": usual("wmv", seekable=False),
    "piped ogv": usual("ogv", seekable=False),
    "piped nut": usual("nut", seekable=False),
    "piped webm": usual("webm", seekable=False),
    # Sizes and forms of frames
    "odd sizes in webm": Kind(Recipe("webm", "libvpx-vp9", size=(161, 121), video_options=REALTIME)),
    "odd sizes in mkv": Kind(Recipe("mkv", "ffv1", size=(161, 121), frames=10)),
    "wide pixels": usual("mp4", aspect=Fraction(16, 11)),
    "interlaced h264": usual("mp4", video_options={"g": "10", "flags": "+ildct+ilme", "x264-params": "tff=1"}),
    "interlaced mpeg2": usual(
        "ts", video="mpeg2video", rate=25, frames=100, video_options={"g": "10", "flags": "+ildct+ilme"}
    ),
    "references that are not shown": usual(
        "webm", video="libvpx", video_options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "g": "20"}
    ),
    "960 frames per second": usual("mkv", rate=960, frames=200, sound=None),
    "a frame every 4 s": usual("mkv", rate=Fraction(1, 4), frames=10, sound=None),
    # Order and beginning
    "no reordering": usual("mp4", video_options={"g": "10", "bf": "0"}),
    "open groups in mp4": usual("mp4", video_options=OPEN_GROUPS),
    "open groups in mkv": usual("mkv", video_options=OPEN_GROUPS),
    "open groups in ts": usual("ts", video_options=OPEN_GROUPS),
    "hevc open groups in mp4": Kind(Recipe("mp4", "libx265", video_options=HEVC_OPEN)),
    "intra refresh in mp4": usual("mp4", frames=60, video_options=INTRA),
    "intra refresh in mkv": usual("mkv", frames=60, video_options=INTRA),
    "intra refresh in ts": usual("ts", frames=60, video_options=INTRA),
    "h264 in avi": Kind(Recipe("avi", "libx264", video_options=H264)),
    "one key frame in mkv": usual("mkv", video_options={"g": "1000", "bf": "2"}),
    "edit list hides frames": Kind(
        replace(CONTAINERS["mp4"], begins_at=-0.5, sound_at=0.5, options={"avoid_negative_ts": "disabled"}),
        shown=tuple(range(5, 40)),
        heard=(0.0, 4.0, 0.0),
    ),
    "no edit list": Kind(
        replace(CONTAINERS["mp4"], options={"use_editlist": "0"}, video_options={"g": "10", "bf": "0"}),
        times=(0.0, *(number / 10 + AAC_DELAY for number in range(1, 40))),
        heard=(0.0, 4.0 + AAC_DELAY, -AAC_DELAY),
    ),
    "mp4 from 5 s on": replace(usual("mp4", begins_at=5.0), delay=AAC_DELAY),
    "mkv from 5 s on": usual("mkv", begins_at=5.0),
    "webm from 5 s on": usual("webm", begins_at=5.0),
    "piped mkv from 5 s on": usual("piped mkv", begins_at=5.0),
    "flv from 5 s on": usual("flv", begins_at=5.0),
    "ts from 5 s on": usual("ts", begins_at=5.0),
    "ts over the wrap": usual("ts", begins_at=round(WRAP - 3.0, 1)),
    # Sound of another length than the pictures
    "short sound in mp4": usual("mp4", sound_seconds=1.6),
    "short sound in mkv": usual("mkv", sound_seconds=1.6),
    "short sound in webm": usual("webm", sound_seconds=1.6),
    "short sound in ts": usual("ts", sound_seconds=1.6),
    "long sound in mp4": usual("mp4", sound_seconds=6.0),
    "long sound in mkv": usual("mkv", sound_seconds=6.0),
    "no sound in the track of mkv": usual("mkv", sound_seconds=0.0),
    "no sound in the track of mp4": usual("mp4", sound_seconds=0.0),
    # Several tracks
    "german track of mkv": replace(
        usual("mkv", languages=("eng", "ger")), options={"audio_stream": "ger"}, heard=(0.0, 4.0, 4.0)
    ),
    "german track of mp4": replace(
        usual("mp4", languages=("eng", "ger")), options={"audio_stream": "ger"}, heard=(0.0, 4.0, 4.0)
    ),
    "third stream of ts": replace(
        usual("ts", languages=("eng", "ger")),
        options={"audio_stream": 2},
        heard=(-AAC_DELAY, 4.0, 4 - AAC_DELAY),
    ),
    "second camera of mkv": replace(
        usual("mkv", cameras=2), options={"video_stream": 1}, shown=tuple(range(100, 140)), times=TENTHS
    ),
    "second camera of mp4": replace(
        usual("mp4", cameras=2), options={"video_stream": 1}, shown=tuple(range(100, 140)), times=TENTHS
    ),
    "second camera of ts": replace(
        usual("ts", cameras=2), options={"video_stream": 1}, shown=tuple(range(100, 140)), times=TENTHS
    ),
    # Streams without a container
    # Dropped, damaged, cut
    "dropped frames in avi": Kind(
        Recipe("avi", "mjpeg", "pcm_s16le", pixels="yuvj420p", change_packets=changes.drop(7, 20, 21)),
        shown=tuple(number for number in range(40) if number not in (7, 20, 21)),
    ),
    "mp4 cut": replace(usual("mp4", change=changes.cut(0.6)), error="cut"),
    "mp4 with the index first, cut": replace(
        usual("mp4", options={"movflags": "faststart"}, change=changes.cut(0.6)), error="is cut"
    ),
    "mkv cut": replace(usual("mkv", change=changes.cut(0.5)), error="is cut"),
    "webm cut": replace(usual("webm", change=changes.cut(0.5)), error="is cut"),
    "avi cut": replace(usual("avi", change=changes.cut(0.5)), error="is cut"),
    "wmv cut": replace(usual("wmv", change=changes.cut(0.5)), error="is cut"),
    "gif cut": replace(usual("gif", change=changes.cut(0.5)), error="cut"),
    "webp cut": replace(usual("webp", change=changes.cut(0.5)), error=""),  # Pillow does not say why
    "not a video": replace(usual("mp4", change=lambda data: bytes(1000)), error="no video"),
}


def sound_alone(suffix: str, codec: str, delay: float = 0.0, **fields: Any) -> Kind:
    return Kind(Recipe(suffix, None, codec, **{"sound_seconds": 4.0, **fields}), delay=delay)


# Files of sound alone
SOUNDS = {
    "wav": sound_alone("wav", "pcm_s16le"),
    "wav, 24 bit": sound_alone("wav", "pcm_s24le", layout="stereo", sampling_rate=96_000),
    "wav, float": sound_alone("wav", "pcm_f32le"),
    "wav, telephone": sound_alone("wav", "pcm_mulaw", sampling_rate=8000),
    "w64": sound_alone("w64", "pcm_s16le"),
    "aiff": sound_alone("aiff", "pcm_s16be"),
    "au": sound_alone("au", "pcm_s16be"),
    "caf": sound_alone("caf", "alac"),
    "flac": sound_alone("flac", "flac"),
    "piped flac": sound_alone("flac", "flac", seekable=False),
    "mp3": sound_alone("mp3", "libmp3lame"),
    "piped mp3": sound_alone("mp3", "libmp3lame", seekable=False, options={"write_xing": "0"}, delay=MP3_DELAY),
    "mp2": sound_alone("mp2", "mp2", delay=481 / 48_000),
    "aac": sound_alone("aac", "aac", delay=AAC_DELAY, format="adts"),
    "m4a": sound_alone("m4a", "aac", format="ipod"),
    "ac3": sound_alone("ac3", "ac3", delay=AC3_DELAY),
    "ogg, opus": sound_alone("opus", "libopus"),
    "ogg, vorbis": sound_alone("ogg", "vorbis", layout="stereo", sound_options={"strict": "-2"}),
    "ogg, flac": sound_alone("ogg", "flac"),
    "wma": sound_alone("wma", "wmav2", delay=-2048 / 48_000, format="asf"),
    "mka": sound_alone("mka", "libopus", format="matroska"),
    "piped mka": sound_alone("mka", "flac", format="matroska", seekable=False),
    "weba of a recorder": sound_alone("weba", "libopus", format="webm", seekable=False, options={"live": "1"}),
    "wavpack": sound_alone("wv", "wavpack"),
    "tta": sound_alone("tta", "tta"),
    "wav cut": replace(sound_alone("wav", "pcm_s16le", change=changes.cut(0.5)), error="cut"),
    "m4a cut": replace(sound_alone("m4a", "aac", format="ipod", change=changes.cut(0.5)), error="cut"),
    "opus in mka cut": replace(sound_alone("mka", "libopus", format="matroska", change=changes.cut(0.5)), error="cut"),
}
