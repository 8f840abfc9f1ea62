"""The options of a medium: their values, checked in one place for calls, blocks of messages and the command."""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from .checks import Check, check_values, flag, number, one_of, several, whole


__all__ = ["OPTIONS", "Decoder", "Downmix", "OnDamage", "Sampling", "check_options"]

Sampling = Literal["uniform", "headtail", "time"]
OnDamage = Literal["raise", "skip"]
Downmix = Literal["mean", "first"]
Decoder = Literal["pyav", "decord", "torchcodec"]

STREAM = Check(
    "the index of a stream (0, 1, ...) or its language ('eng')",
    lambda value: whole(0).accepts(value) or (isinstance(value, str) and bool(value.strip())),
    lambda value: int(value) if not isinstance(value, str) or value.isdecimal() else value,
)
OPTIONS = {
    "num_frames": whole(1),
    "fps": number(above=0),
    "video_fps": number(above=0),
    "sampling": one_of(*get_args(Sampling)),
    "start": number(least=0),
    "end": number(above=0, most=math.inf),
    "do_sample_frames": flag,
    "video_metadata": Check(
        "a dict such as {'fps': 25}, or a list of one for each video",
        lambda value: isinstance(value, Mapping | list | tuple),
    ),
    "timestamps": several(number(least=0)),
    "on_damage": one_of(*get_args(OnDamage)),
    "decoder": one_of(*get_args(Decoder)),
    "video_stream": STREAM,
    "audio_stream": STREAM,
    "sampling_rate": whole(1),
    "downmix": one_of(*get_args(Downmix)),
    "num_clips": whole(1, 1024),
    "load_audio_from_video": flag,
    "add_timestamps": flag,
    "frames_as_sound": flag,
}


def check_options(options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """
    Args:
        options (`Mapping`): Names and values; `None` stands for the default, and names that are no options stay as
            they are.
        where (`str`, *optional*): What messages begin with.

    Returns:
        `dict`: the same, with the values in the types that are used: 8 for 8.0, Python's numbers for NumPy's.

    Raises:
        ValueError: for a value that the option cannot have; the message has name, value and what was expected.
    """
    return check_values(options, OPTIONS, where)
