"""
From a file to the inputs of the model: 8 frames of 224x224 and 8 clips of sound, of 720p with a key frame every two
seconds; against decord, which the original uses, on the same frames, and against reading the whole sound track. Files
without an index, MKV and TS, against reading them once.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from transformers_videollama import VideoLlamaFeatureExtractor, VideoLlamaVideoProcessor, load_sound

from .clips import long_clip
from .measure import Options, memory_of, seconds_of


__all__ = ["run"]

MINUTES = {"tiny": (0.1, 0.2)}  # for tests; what is measured does not depend on the model
FULL_MINUTES = (1, 10, 60)
WITHOUT_INDEX, FULL_MINUTES_WITHOUT_INDEX = (".mkv", ".ts"), 120  # twice the longest of the others
NUM_FRAMES, SIDE, BATCH = 8, 224, 8
PREPARED = "frames and sound prepared"
FOUR_K = (3840, 2160)


def run(options: Options) -> dict[str, Any]:
    """Rows: prepared files of each length, the same by other means, a batch, and the memory that a 4K file takes."""
    lengths = MINUTES.get(options.size, FULL_MINUTES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {minutes: long_clip(folder / f"{minutes}.mp4", minutes) for minutes in lengths}
        rows = [
            row for minutes, file in files.items() for row in rows_of_file(f"{minutes} min", file, options.repeats)
        ]
        shortest = rows[0]["seconds"].median_s
        for row in rows:
            if row["what"].endswith(PREPARED):  # with an index, these take the same time
                row["of the shortest"] = row["seconds"].median_s / shortest
        minutes = FULL_MINUTES_WITHOUT_INDEX if lengths is FULL_MINUTES else lengths[-1]
        for suffix in WITHOUT_INDEX:
            file = long_clip(folder / f"long{suffix}", minutes)
            rows += rows_without_index(f"{minutes} min{suffix}", file, options.repeats)
            file.unlink()
        rows.append(row_of_batch(files[lengths[0]], options.repeats))
        path = long_clip(folder / "4k.mp4", lengths[0], FOUR_K)
        memory = memory_of("from benchmarks.media import prepare", f"prepare({str(path)!r})")
    return {"rows": rows, "memory at 4K, MiB": memory.more_mib}


def prepare(*files: Path) -> None:
    """What the processor does with videos and their sound."""
    processor = VideoLlamaVideoProcessor()
    videos = processor.open_videos(list(files), num_frames=NUM_FRAMES)
    processor(videos, return_tensors="pt")
    VideoLlamaFeatureExtractor()([video.sound for video in videos])


def rows_of_file(name: str, file: Path, repeats: int) -> list[dict[str, Any]]:
    processor, extractor = VideoLlamaVideoProcessor(), VideoLlamaFeatureExtractor()
    (video,) = processor.open_videos([file], num_frames=NUM_FRAMES)
    timings = {
        PREPARED: seconds_of(lambda: prepare(file), repeats),
        "frames alone": seconds_of(lambda: processor.open_videos([file], num_frames=NUM_FRAMES), repeats),
        "decord, frames alone": seconds_of(lambda: frames_of_decord(file, video.indices), repeats),
        "clips of sound": seconds_of(lambda: extractor([load_sound(file)]), repeats),
        "whole sound track": seconds_of(lambda: video.sound.read(0, video.sound.duration, 16_000), repeats),
    }
    rows = {what: {"what": f"{name}: {what}", "seconds": timing} for what, timing in timings.items()}
    for what in (PREPARED, "frames alone"):
        rows[what]["of decord"] = timings[what].median_s / timings["decord, frames alone"].median_s
    rows["whole sound track"]["of the clips"] = (
        timings["whole sound track"].median_s / timings["clips of sound"].median_s
    )
    rows["decord, frames alone"]["same frames"] = bool((frames_of_decord(file, video.indices) == video.frames).all())
    return list(rows.values())


def rows_without_index(name: str, file: Path, repeats: int) -> list[dict[str, Any]]:
    reading, timing = seconds_of(lambda: read_once(file), repeats), seconds_of(lambda: prepare(file), repeats)
    share = timing.median_s / reading.median_s
    return [
        {"what": f"{name}: every packet read once", "seconds": reading, "MiB": file.stat().st_size / 2**20},
        {"what": f"{name}: {PREPARED}", "seconds": timing, "of reading": share},
    ]


def read_once(file: Path) -> None:
    with av.open(str(file)) as container:
        for _packet in container.demux():
            pass


def frames_of_decord(file: Path, indices: Sequence[int]) -> np.ndarray:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(file), width=SIDE, height=SIDE)
    frames: np.ndarray = reader.get_batch(list(indices)).asnumpy()
    return frames


def row_of_batch(file: Path, repeats: int) -> dict[str, Any]:
    timing = seconds_of(lambda: prepare(*[file] * BATCH), repeats)
    busy = timing.core_s / timing.median_s / (os.cpu_count() or 1)
    return {"what": f"{BATCH} files at once", "seconds": timing, "share of the cores": busy}
