"""Opens containers, for pictures and sound alike. Needs PyAV 17, which shows a container's index."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal

from .errors import MediaError, import_or_explain
from .formats import FORMATS
from .progress import progress_bar
from .sources import MediaFile


__all__ = [
    "NO_TIMES",
    "SLACK",
    "chosen_stream",
    "declared_seconds",
    "ffmpeg_errors",
    "is_cover_art",
    "open_container",
    "open_unguarded",
    "read_to_the_end",
    "rewind",
]

NO_TIMES = 0x80  # FFmpeg's flag of formats whose files have no times: raw streams
SLACK = 0.25  # seconds by which a container may be wrong about a time
# Languages of which ISO 639-2 has two codes: Matroska has the first, MP4 the second
_TWO_CODES = (
    ("alb", "sqi"), ("arm", "hye"), ("baq", "eus"), ("bur", "mya"), ("chi", "zho"), ("cze", "ces"), ("dut", "nld"),
    ("fre", "fra"), ("geo", "kat"), ("ger", "deu"), ("gre", "ell"), ("ice", "isl"), ("mac", "mkd"), ("mao", "mri"),
    ("may", "msa"), ("per", "fas"), ("rum", "ron"), ("slo", "slk"), ("tib", "bod"), ("wel", "cym"),
)  # fmt: skip


@contextlib.contextmanager
def open_container(file: MediaFile, *, must_be_whole: bool = True) -> Iterator[Any]:
    """
    Raises:
        MediaError: if the file cannot be opened or, also later, be read; and, if it must be whole, if it is cut.
    """
    with ffmpeg_errors(), open_unguarded(file) as container:
        if must_be_whole and "mp4" in container.format.name:
            _check_index(container)
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
        options = {"format_whitelist": ",".join(FORMATS), "max_pixels": str(file.access.max_frame_pixels)}
        container = av.open(file.open(), "r", metadata_errors="ignore", options=options)
    except av.ArgumentError as error:  # of the format alone: nothing else is given
        raise MediaError(
            "is a playlist or the like, which names other files, or of a format that is not opened; give a file that "
            "holds the video or the sound itself, for example MP4"
        ) from error
    return container


def _check_index(container: Any) -> None:
    """Whether an MP4 file has the bytes that its index names; FFmpeg would give those that are there."""
    size = container.size
    for stream in container.streams:
        last = stream.index_entries[-1] if len(stream.index_entries) else None
        if last is not None and last.pos + last.size > size:
            raise MediaError(f"is cut: it should have {last.pos + last.size} bytes and has {size}; fetch it again")


def read_to_the_end(file: MediaFile, container: Any, *streams: Any) -> Iterator[Any]:
    """
    All packets of some streams, which takes long in a long file: with a bar on a terminal.

    Raises:
        MediaError: after the seconds that `file.access` gives it.
    """
    deadline, position = file.access.deadline(), 0
    with progress_bar(f"reading {file.name}", file.size) as bar:
        for packet in container.demux(*streams):
            deadline.check()
            if packet.pos is not None and packet.pos > position:
                bar.update(packet.pos - position)
                position = packet.pos
            yield packet


def is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def chosen_stream(container: Any, kind: Literal["video", "audio"], choice: int | str | None = None) -> Any | None:
    """
    The stream of a kind, as FFmpeg's programs choose it, or by `choice`; `None` if there is none of this kind.

    Args:
        choice (`int` or `str`, *optional*): its index among all streams of the file, or its language, as the file
            says it or by the other code of ISO 639-2 ("ger", "deu"); the first that has it.

    Raises:
        MediaError: if the file has not what was chosen.
        ValueError: if the choice is neither.
    """
    if choice is None:
        stream = container.streams.best(kind)
        return None if stream is None or is_cover_art(stream) else stream
    if isinstance(choice, bool) or not isinstance(choice, (int, str)):
        raise ValueError(f"got {kind}_stream={choice!r}, expected an index among all streams or a language")
    names = {choice} if isinstance(choice, int) else _codes_of_language(choice)
    for stream in container.streams:
        if stream.type == kind and not is_cover_art(stream) and not names.isdisjoint({stream.index, stream.language}):
            return stream
    there = [f"{stream.index} {stream.type} {stream.language or ''}".strip() for stream in container.streams]
    raise MediaError(f"has no {'sound' if kind == 'audio' else kind} stream {choice!r}; its streams are {there}")


def _codes_of_language(code: str) -> set[str]:
    code = code.lower()
    return next((set(pair) for pair in _TWO_CODES if code in pair), {code})


def rewind(container: Any, stream: Any) -> None:
    """Go back to the beginning; raw streams have nothing to seek by but bytes."""
    if container.format.flags & NO_TIMES:
        container.seek(0, stream=stream, unsupported_byte_offset=True)
    else:
        container.seek(-(1 << 40), backward=False, stream=stream)


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
