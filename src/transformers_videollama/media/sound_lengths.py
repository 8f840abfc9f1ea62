"""How long the sound of a file is: what its container declares, where that can be trusted; else the packets say."""

import math
from collections.abc import Mapping
from typing import Any

from .containers import SLACK, declared_seconds, open_container, read_to_the_end
from .sources import MediaFile


__all__ = ["Measured", "PacketTimes", "is_measured", "length_of"]

# Index of a stream -> when the first packet begins and the last one ends, in seconds; `None` if there is no packet
Measured = Mapping[int, tuple[float, float] | None]
_GUESSED = {"aac", "asf", "mp3", "mpeg"}  # what they declare is FFmpeg's guess, or the length of the whole file


def is_measured(container: Any, stream: Any) -> bool:
    """Whether the packets of a sound have to be read to know its length."""
    return container.format.name in _GUESSED or declared_seconds(container, stream) is None


def length_of(container: Any, file: MediaFile, stream: Any, measured: Measured) -> tuple[float, bool]:
    """
    The length of a sound stream. The container is left where it was.

    Args:
        measured (`Measured`): Of streams whose packets have been read already.

    Returns:
        seconds from the first sample to the last, 0 for a stream without a packet; and whether the container declares
        them. If it does not, and the stream is not among those measured, the file is read once.
    """
    length = None
    declared = None if is_measured(container, stream) else declared_seconds(container, stream)
    if declared and "mp4" in container.format.name and len(stream.index_entries):
        length = _length_in_mp4(stream, declared)
    elif declared and "matroska" in container.format.name:
        length = _length_in_matroska(container, file, stream, declared)
    elif declared:
        length = declared
    if length:
        return length, True
    packets = measured[stream.index] if stream.index in measured else _times_of_packets(file, stream)
    return (0.0 if packets is None else _length_of_packets(container, stream, packets)), False


def _length_in_mp4(stream: Any, declared: float) -> float:
    """By the header, without what an edit list or the encoder's delay hides.

    Packets of AAC are all of one length, so that their number is what decoding gives. What is declared counts the gaps
    between them, too, and does not count all of a last packet that an edit list cuts.
    """
    entries, tick = stream.index_entries, float(stream.time_base)
    begin = stream.start_time or 0
    if not stream.frames:  # a fragmented file counts from its first packet
        declared -= (begin - entries[0].timestamp) * tick
    packet = _packet_of_aac(stream)
    if packet is None:
        return declared
    first, last = 0, len(entries) - 1
    while first < last and entries[first].is_discard:
        first += 1
    while first < last and entries[last].is_discard:
        last -= 1
    if (entries[last].timestamp - begin) * tick + 2 * packet < declared:
        return declared  # of a fragmented file, FFmpeg has read the beginning
    return (last - first + 1) * packet - (begin - entries[first].timestamp) * tick


def _packet_of_aac(stream: Any) -> float | None:
    """Seconds of each packet of AAC, `None` for another codec."""
    context = stream.codec_context
    if context is None or context.name != "aac" or not context.frame_size:
        return None
    return float(context.frame_size / context.sample_rate)


def _length_in_matroska(container: Any, file: MediaFile, stream: Any, declared: float) -> float | None:
    """FFmpeg writes when the last packet ends, and counts from 0; mkvmerge counts from the first packet.

    FFmpeg's end is that of the encoder's delay, too, by which it moves the packets when it reads them.
    """
    packets = _times_of_packets(file, stream, until_first=True)
    if packets is None:
        return None
    begin, delay = _begin(stream, packets[0])
    if "Lavf" in container.metadata.get("ENCODER", ""):
        declared = declared - begin - delay
    elif begin > SLACK:
        return None
    packet = _packet_of_aac(stream)
    # The end counts only what was encoded of a last packet, to the millisecond
    return declared if packet is None else math.ceil((declared + delay - 0.001) / packet) * packet - delay


def _length_of_packets(container: Any, stream: Any, packets: tuple[float, float]) -> float:
    """To the end of the last packet; for MP3, FFmpeg's guess if it is near: that may know of the encoder's padding."""
    begin, _ = _begin(stream, packets[0])
    measured, guessed = packets[1] - begin, float((stream.duration or 0) * stream.time_base)
    return guessed if container.format.name == "mp3" and abs(guessed - measured) < SLACK else measured


def _begin(stream: Any, first: float) -> tuple[float, float]:
    """When the first sample plays, and the encoder's delay before it, which begins with the first packet."""
    start = first if stream.start_time is None else float(stream.start_time * stream.time_base)
    delay = start - first if 0 < start - first < SLACK else 0.0  # FFmpeg makes up the start of what starts late
    return first + delay, delay


def _times_of_packets(file: MediaFile, stream: Any, until_first: bool = False) -> tuple[float, float] | None:
    """When the first packet begins and the last one ends, in seconds; `None` if there is none."""
    times = PacketTimes()
    with open_container(file) as container:
        for packet in read_to_the_end(file, container, container.streams[stream.index]):
            times.notice(packet)
            if until_first and times.first is not None:
                break
    return times.seconds(stream)


class PacketTimes:
    """When the first of some packets begins and the last one ends."""

    def __init__(self):
        self.first: int | None = None
        self.end = 0

    def notice(self, packet: Any) -> None:
        if packet.pts is not None:
            self.first = packet.pts if self.first is None else self.first
            self.end = packet.pts + (packet.duration or 0)

    def seconds(self, stream: Any) -> tuple[float, float] | None:
        """`None` if there was none."""
        tick = stream.time_base
        return None if self.first is None else (float(self.first * tick), float(self.end * tick))
