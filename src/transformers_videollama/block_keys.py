"""The keys that blocks of messages may have, by their kind, and what to say about any other key."""

import difflib
import re
from collections.abc import Iterable, Mapping


__all__ = [
    "BLOCK_OPTIONS",
    "SOURCE_KEYS",
    "check_block_keys",
    "check_foreign_names",
    "check_source_keys",
]

# The keys under which a block holds its medium, in the order of preference: the library's own names, and OpenAI's.
SOURCE_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path", "video_url"),
    "audio": ("audio", "url", "path", "audio_url", "input_audio"),
}
# The keys that say how it is opened
BLOCK_OPTIONS = {
    "image": (),
    "video": (
        *("num_frames", "fps", "sampling", "start", "end", "do_sample_frames", "video_metadata"),
        *("on_damage", "decoder", "video_stream", "audio_stream", "downmix"),
    ),
    "audio": ("start", "end", "sampling_rate", "audio_stream", "downmix"),
}
# Keys that clients and datasets put into blocks, and that change no answer: marks for caches of a prompt (Anthropic,
# proxies of OpenAI) and of media (vLLM), the number of an image in its row (datasets of TRL), what a client notes.
CARRIED = ("cache_control", "uuid", "index", "id")
KNOWN = {
    "text": ("text", "annotations", "citations", *CARRIED),
    "image": (*SOURCE_KEYS["image"], "detail", "mime_type", *CARRIED),
    # A bare placeholder says the times of its frames
    "video": (*SOURCE_KEYS["video"], *BLOCK_OPTIONS["video"], "timestamps", "detail", "mime_type", *CARRIED),
    "audio": (*SOURCE_KEYS["audio"], *BLOCK_OPTIONS["audio"], "mime_type", *CARRIED),
}
# The keys of a dict that is a source: OpenAI's addresses and samples, and the cells of `datasets`
OF_SOURCES = ("url", "detail", "data", "format", "bytes", "path", "array", "sampling_rate")

_LOWER_BOUND = "there is no least number of frames; num_frames says how many, and a shorter video gives all it has"
_PIXELS = "every image and frame is scaled to the one size of the model; leave it out"
_OF_THE_CALL = "that is said for all items, with load_audio_from_video and add_timestamps of apply_chat_template"
# Names of other libraries -> ours
FOREIGN_NAMES = {
    **dict.fromkeys(
        ("nframes", "n_frames", "max_frames", "max_num_frames", "max_frames_num", "num_segments", "frames_upbound"),
        "num_frames",
    ),
    **dict.fromkeys(("nframe", "num_video_frames", "video_num_frames", "total_frames"), "num_frames"),
    **dict.fromkeys(("fps_max", "max_fps", "target_fps", "sample_fps", "video_sample_fps", "frame_rate"), "fps"),
    **dict.fromkeys(("video_start", "start_time", "video_start_time", "start_sec", "start_s"), "start"),
    **dict.fromkeys(("video_end", "end_time", "video_end_time", "end_sec", "end_s"), "end"),
    **dict.fromkeys(("video_fps", "raw_fps"), "video_metadata"),
    **dict.fromkeys(("frame_sampling", "sampling_strategy", "sample_method", "sampling_method"), "sampling"),
    **dict.fromkeys(("audio_track", "audio_language", "audio_index"), "audio_stream"),
    **dict.fromkeys(("video_track", "video_index"), "video_stream"),
    **dict.fromkeys(("sample_rate", "audio_sampling_rate"), "sampling_rate"),
    **dict.fromkeys(("video_backend", "video_load_backend", "video_reader", "video_reader_backend"), "decoder"),
}
# Names of other libraries that have no counterpart -> why
NO_COUNTERPART = {
    **dict.fromkeys(("min_frames", "min_num_frames", "fps_min", "min_fps"), _LOWER_BOUND),
    **dict.fromkeys(("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"), _PIXELS),
    "use_audio_in_video": _OF_THE_CALL,
}
# In blocks alone: common words, which can be variables of a chat template, and what a call can say
WORDS = {"begin": "start", "stop": "end", "stream": "video_stream", "sr": "sampling_rate"}
OF_CALLS = {
    **dict.fromkeys(("load_audio_from_video", "add_timestamps"), _OF_THE_CALL),
    **dict.fromkeys(("size", "height", "width", "do_resize"), _PIXELS),
}


def check_block_keys(kind: str, keys: Iterable[str], where: str) -> None:
    """
    Sees to it that a block has no key that would be ignored. Blocks of kinds that are not in `KNOWN` are left to the
    chat template.

    Args:
        kind (`str`): "text", "image", "video", "audio", ...
        keys (`Iterable[str]`): The keys that hold something, without "type".
        where (`str`): The block's name in errors.

    Raises:
        ValueError: for a key that the kind does not know; the message has our name for it, the reason why there is
            none, or the nearest name that the kind knows.
    """
    known = KNOWN.get(kind, ())
    for key in keys:
        if known and key not in known:
            raise ValueError(
                f"{where}: got the key {key!r}, which a block of {kind} does not have; {_advice(key, known)}"
            )


def check_source_keys(kind: str, name: str, keys: Iterable[str], where: str) -> None:
    """
    As [`check_block_keys`], for a dict that holds a source under the key `name` of a block, as `{"url": ...}` does.
    """
    options = BLOCK_OPTIONS[kind]
    for key in keys:
        if key in (*OF_SOURCES, *CARRIED):
            continue
        moved = key in options
        advice = f"put it into the block, next to {name!r}" if moved else _advice(key, (*OF_SOURCES, *options))
        raise ValueError(f"{where}: got the key {key!r} in {name!r}, which it does not have; {advice}")


def check_foreign_names(options: Mapping[str, object]) -> None:
    """
    Sees to it that a call has no option under a name of another library, which nothing would read.

    Raises:
        ValueError: as [`check_block_keys`].
    """
    known = (*BLOCK_OPTIONS["video"], *BLOCK_OPTIONS["audio"])
    for name, value in options.items():
        if value is not None and name in (FOREIGN_NAMES | NO_COUNTERPART):
            raise ValueError(f"got the option {name!r}, which is not known; {_advice(name, known)}")


def _advice(key: object, known: tuple[str, ...]) -> str:
    """Our name for a key, the reason why there is none, or the nearest that is known."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(key)).lower().replace("-", "_")  # maxFrames, max-frames
    if reason := (NO_COUNTERPART | OF_CALLS).get(plain):
        return reason
    if (ours := (FOREIGN_NAMES | WORDS).get(plain)) in known:
        return f"its name here is {ours!r}"
    (nearest,) = difflib.get_close_matches(plain, known, n=1, cutoff=0.0)
    return f"the nearest of its keys is {nearest!r}, of {', '.join(known)}"
