"""The choice of frames of a video: pure functions of its length and times, without I/O."""

import bisect
import math
import sys
from collections.abc import Sequence

import numpy as np

from .errors import MediaError
from .options import Sampling, check_options


__all__ = ["DEFAULT_NUM_FRAMES", "Sampling", "sample_indices", "span_within"]

DEFAULT_NUM_FRAMES = 8
TICK = 6e-4  # seconds by which times are off: many containers count milliseconds, so that 2/3 s is 0.667 s


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
    times: Sequence[float] | None = None,
) -> list[int]:
    """Choose the frames of a video: a pure function of its length and times, without I/O.

    Args:
        total_num_frames (`int`): length of the video.
        num_frames (`int`, defaults to 8 if `fps` is not given): frames wanted; a shorter video gives all it has.
        video_fps (`float`, *optional*): frames per second of a video whose frames are evenly spaced; `fps`, `start`
            and `end` need it, or `times`.
        fps (`float`, *optional*): take the frame that is shown every `1 / fps` seconds instead of `num_frames` frames;
            a frame that is shown for longer is taken once, and above the video's rate every frame is.
        sampling (`"uniform"`, `"headtail"` or `"time"`): evenly spread over the frames from the first one on, as the
            original does for inference; or drawn at random, half from each half of the video (the odd one from the
            second), as it does for training; or the frames that are shown at `num_frames` moments that are evenly
            spread in time. The last differs from the first where the frame rate varies. A frame that is shown at
            several of these moments is taken once, so that there may be fewer.
        start, end (`float` seconds, *optional*): only frames at `start <= time < end`; an `end` after the video's end
            is the video's end. If `times` has no frame there, the one that is still shown at `start` is taken.
        generator (`np.random.Generator` or seed, *optional*): of "headtail". `None` is seed 0, the same frames on
            every call: training passes a generator.
        times (`Sequence[float]` of length `total_num_frames + 1`, *optional*): when each frame is shown, in seconds
            from the first, and when the last one ends, ascending. Only entries that are needed are looked up.

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
    if total_num_frames < 1:
        raise MediaError(f"got a video of {total_num_frames} frames, expected at least 1")
    wanted = DEFAULT_NUM_FRAMES if num_frames is None else num_frames
    if times is None:
        first, stop = _frames_between(total_num_frames, video_fps, start, end)
    else:
        first, stop = _frames_shown_between(times, total_num_frames, start, end)
    if sampling == "headtail":
        return _head_and_tail(first, stop, min(wanted, stop - first), generator)
    if times is not None and (fps is not None or sampling == "time"):
        begin, finish = max(times[first], start or 0.0), times[stop]
        if fps is not None:
            return _every(min(1 / fps, sys.float_info.max), times, first, stop, begin, finish)
        finish = finish if end is None else min(finish, end)
        return _every((finish - begin) / wanted, times, first, stop, begin, finish)
    count = min(wanted, stop - first)
    step = (stop - first) / count
    if fps is not None:
        if video_fps is None:
            raise MediaError(f"fps={fps} needs the frame rate of the video, which is unknown; pass video_fps")
        step = min(max(video_fps / fps, 1.0), float(stop - first))  # a lower rate gives the first frame, too
        count = math.ceil((stop - first) / step - 1e-9)
    # The float step of the original's floor(arange(0, total, total / n)), whose rounding an integer step misses;
    # not arange itself, which gives n + 1 entries for some n.
    return [first + int(i * step) for i in range(count)]


def _head_and_tail(first: int, stop: int, count: int, generator: np.random.Generator | int | None) -> list[int]:
    rng = np.random.default_rng(0 if generator is None else generator)
    head, from_head = (stop - first) // 2, count // 2
    picks = [*rng.choice(head, from_head, replace=False)]
    picks += [*(head + rng.choice(stop - first - head, count - from_head, replace=False))]
    return sorted(first + int(pick) for pick in picks)


def _every(period: float, times: Sequence[float], first: int, stop: int, begin: float, finish: float) -> list[int]:
    """Those of the frames `[first, stop)` that are shown every `period` seconds from `begin` to before `finish`."""
    picks = [first]
    while (pick := picks[-1]) + 1 < stop:
        # The first moment that does not show this frame again; there may be millions before it
        number = math.ceil((times[pick + 1] - TICK - begin) / period)
        moment = begin + number * period
        if moment >= finish - TICK:
            break
        picks.append(bisect.bisect_right(times, moment + TICK, pick + 2, stop) - 1)
    return picks


def _frames_between(total: int, fps: float | None, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames `[first, stop)` of a span in seconds, if they are evenly spaced."""
    if start is None and end is None:
        return 0, total
    if fps is None:
        raise MediaError("start and end need the frame rate of the video, which is unknown; pass video_fps")
    start, end = span_within(start, end, total / fps)
    first, stop = (min(math.ceil(seconds * fps - 1e-6), total) for seconds in (start, end))
    if first >= stop:
        raise MediaError(f"no frame lies between {start} and {end} s; frames are {1 / fps:.3f} s apart")
    return first, stop


def _frames_shown_between(
    times: Sequence[float], total: int, start: float | None, end: float | None
) -> tuple[int, int]:
    """The frames `[first, stop)` of a span in seconds; where none begins in it, the one that is shown all along."""
    if start is None and end is None:
        return 0, total
    start, end = span_within(start, end, times[total])
    first, stop = (bisect.bisect_left(times, seconds - TICK, 0, total) for seconds in (start, end))
    return (first, stop) if first < stop else (max(stop - 1, 0), max(stop, 1))


def span_within(start: float | None, end: float | None, duration: float) -> tuple[float, float]:
    """The part of `[start, end)` that a medium of `duration` seconds has."""
    start, end = 0.0 if start is None else start, duration if end is None else end
    if not (0 <= start < duration and start < end):
        raise MediaError(f"got the span from {start} to {end} s, expected one within 0 to {duration:.3f} s")
    return start, min(end, duration)
