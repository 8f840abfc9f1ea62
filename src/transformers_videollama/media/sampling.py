"""The choice of frames of a video: pure functions of its length, without I/O."""

import math

import numpy as np

from .errors import MediaError
from .options import Sampling, check_options


__all__ = ["DEFAULT_NUM_FRAMES", "Sampling", "sample_indices", "span_within"]

DEFAULT_NUM_FRAMES = 8


def sample_indices(
    total_num_frames: int,
    num_frames: int | None = None,
    *,
    video_fps: float | None = None,
    fps: float | None = None,
    sampling: Sampling = "uniform",
    start: float | None = None,
    end: float | None = None,
    generator: np.random.Generator | int | None = None,
) -> list[int]:
    """Choose the frames of a video: a pure function of its length, without I/O.

    Args:
        total_num_frames (`int`): length of the video.
        num_frames (`int`, defaults to 8 if `fps` is not given): frames wanted; a shorter video gives all it has.
        video_fps (`float`, *optional*): frames per second of the video; `fps`, `start` and `end` need it.
        fps (`float`, *optional*): take a frame every `1 / fps` seconds instead of `num_frames` frames; above
            `video_fps`, every frame once.
        sampling (`"uniform"` or `"headtail"`): evenly spread from the first frame on, as the original does for
            inference, or drawn at random, half from each half of the video (the odd one from the second), as it does
            for training.
        start, end (`float` seconds, *optional*): only frames at `start <= time < end`; an `end` after the video's end
            is the video's end.
        generator (`np.random.Generator` or seed, *optional*): of "headtail". `None` is seed 0, the same frames on
            every call: training passes a generator.

    Returns:
        `list[int]`: ascending frame numbers, each once.

    Raises:
        ValueError: options that contradict each other.
        MediaError: a span without frames, or a frame rate is needed and unknown.
    """
    given = {"num_frames": num_frames, "fps": fps, "sampling": sampling, "start": start, "end": end}
    num_frames, fps, sampling, start, end, video_fps = check_options({**given, "video_fps": video_fps}).values()
    if fps is not None and (num_frames is not None or sampling != "uniform"):
        raise ValueError(f"got fps={fps} with num_frames={num_frames}, sampling={sampling!r}; fps stands alone")
    if sampling not in ("uniform", "headtail"):
        raise ValueError(f"got sampling={sampling!r}, expected 'uniform' or 'headtail'")
    first, stop = _frames_between(total_num_frames, video_fps, start, end)
    span = stop - first
    if fps is not None:
        if video_fps is None:
            raise MediaError(f"fps={fps} needs the frame rate of the video, which is unknown; pass video_fps")
        step = max(video_fps / fps, 1.0)
        count = math.ceil(span / step - 1e-9)
    else:
        count = min(DEFAULT_NUM_FRAMES if num_frames is None else num_frames, span)
        step = span / count
    if sampling == "uniform":
        # The float step of the original's floor(arange(0, total, total / n)), whose rounding an integer step misses;
        # not arange itself, which gives n + 1 entries for some n.
        return [first + int(i * step) for i in range(count)]
    rng = np.random.default_rng(0 if generator is None else generator)
    head, from_head = span // 2, count // 2
    picks = [*rng.choice(head, from_head, replace=False)]
    picks += [*(head + rng.choice(span - head, count - from_head, replace=False))]
    return sorted(first + int(pick) for pick in picks)


def _frames_between(total: int, fps: float | None, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames `[first, stop)` of a span in seconds."""
    if total < 1:
        raise MediaError(f"got a video of {total} frames, expected at least 1")
    if start is None and end is None:
        return 0, total
    if fps is None:
        raise MediaError("start and end need the frame rate of the video, which is unknown; pass video_fps")
    start, end = span_within(start, end, total / fps)
    first, stop = (min(math.ceil(seconds * fps - 1e-6), total) for seconds in (start, end))
    if first >= stop:
        raise MediaError(f"no frame lies between {start} and {end} s; frames are {1 / fps:.3f} s apart")
    return first, stop


def span_within(start: float | None, end: float | None, duration: float) -> tuple[float, float]:
    """The part of `[start, end)` that a medium of `duration` seconds has."""
    start, end = 0.0 if start is None else start, duration if end is None else end
    if not (0 <= start < duration and start < end):
        raise MediaError(f"got the span from {start} to {end} s, expected one within 0 to {duration:.3f} s")
    return start, min(end, duration)
