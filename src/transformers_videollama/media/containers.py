"""Opens containers, for pictures and sound alike. Needs PyAV 17, which shows a container's index."""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from .errors import MediaError, import_or_explain
from .sources import MediaFile


__all__ = [
    "SLACK",
    "declared_seconds",
    "ffmpeg_errors",
    "is_cover_art",
    "open_container",
    "open_unguarded",
]

SLACK = 0.25  # seconds by which a container may be wrong about a time
_LEADING_ELSEWHERE = {"avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "vapoursynth", "vobsub"}
_LEADING_ELSEWHERE |= {"rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"}


@contextlib.contextmanager
def open_container(file: MediaFile) -> Iterator[Any]:
    with ffmpeg_errors(), open_unguarded(file) as container:
        yield container


@contextlib.contextmanager
def ffmpeg_errors() -> Iterator[None]:
    av = import_or_explain("av", "av")
    try:
        yield
    except av.FFmpegError as error:
        raise MediaError(f"is damaged, cut, or no video or sound: {error.strerror}") from error


def open_unguarded(file: MediaFile) -> Any:
    av = import_or_explain("av", "av")
    try:
        options = {"format_whitelist": _self_contained_formats()}
        container = av.open(file.path, metadata_errors="ignore", options=options)
    except av.ArgumentError as error:  # of the format alone: nothing else is given
        raise MediaError("is a playlist or the like, which names other files; give the file that it names") from error
    if "mp4" in container.format.name:
        _check_index(container, os.path.getsize(file.path))
    return container


@functools.cache
def _self_contained_formats() -> str:
    """FFmpeg's formats, without those whose files lead to other files or addresses, which nobody has checked."""
    av = import_or_explain("av", "av")
    formats = set()
    for name in av.formats_available:
        with contextlib.suppress(ValueError):  # one that FFmpeg only writes
            formats.add(av.ContainerFormat(name, "r").name)
    return ",".join(sorted(name for name in formats if _LEADING_ELSEWHERE.isdisjoint(name.split(","))))


def _check_index(container: Any, size: int) -> None:
    """Whether an MP4 file has the bytes that its index names; FFmpeg would give those that are there."""
    for stream in container.streams:
        last = stream.index_entries[-1] if len(stream.index_entries) else None
        if last is not None and last.pos + last.size > size:
            raise MediaError(f"is cut: it should have {last.pos + last.size} bytes and has {size}; fetch it again")


def is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def declared_seconds(container: Any, stream: Any) -> float | None:
    """How long a stream is by the container; for MP3 and raw AAC that is only FFmpeg's guess from the bit rate."""
    if container.format.name in ("mp3", "aac"):
        return None
    # Matroska's, before what FFmpeg makes up for it if it finds no packet near the beginning
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None
