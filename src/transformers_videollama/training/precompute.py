"""`videollama precompute`: computes a feature cache, in one process or several."""

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException
from tqdm import tqdm
from transformers import AutoConfig, AutoProcessor

from ..media.workers import opening_in_workers
from ..messages import MEDIA_INPUTS, SOURCE_KEYS
from ..modeling_video_llama import VideoLlamaModel
from .collator import VideoLlamaDataCollator
from .datasets import file_checksum, load_messages
from .feature_cache import Branch, FeatureCache, FeatureCacheError, feature_header


__all__ = ["precompute"]

# Items alone, so that no prompt style refuses a conversation, and an answer, which the collator wants
ITEMS_TEMPLATE = (
    "{% for message in messages %}{% for block in message['content'] if block['type'] != 'text' %}"
    "<{{ block['type'] }}>{% endfor %}{% endfor %}{% generation %}.{% endgeneration %}"
)


def precompute(
    data: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    model: str,
    format: str = "messages",
    media_dir: str | os.PathLike | None = None,
    branch: Branch = "video",
    load_audio_from_video: bool | None = None,
    batch_size: int = 64,
    shard_size: int = 256,
    processes: int = 1,
    device: str | None = None,
    dtype: str = "float32",
    max_unreadable: int = 100,
    max_unreadable_share: float = 0.05,
    media_workers: int = 1,
) -> FeatureCache:
    """
    Computes the frozen encoders' features of the items of a dataset, for `load_features`. Shards that are already in
    the folder are read and compared with their checksums, and are not computed again, so a run that was stopped goes
    on where it was. Frames are those of inference, without the random frames and crops of training.

    Args:
        data, format, media_dir: See `load_messages`.
        folder (`str` or `os.PathLike`): The folder for the cache.
        model (`str`): Folder of a converted checkpoint, or its id on the Hub.
        branch (`str`, defaults to "video"): The branch that is to be trained, "video" or "audio".
        load_audio_from_video (`bool`, *optional*): Whether the sound of videos is encoded, too; what the processor
            says by default. It never is for the audio branch, which frames stand in for sound for.
        batch_size (`int`, defaults to 64): Frames that are encoded at once.
        shard_size (`int`, defaults to 256): Rows of one file. 8 frames of the released size take 0.8 MB in float32.
        processes (`int`, defaults to 1): Each with a model of its own; on CUDA, process i uses GPU i.
        device (`str`, *optional*): By default CUDA if there is one.
        dtype (`str`, defaults to "float32"): "float32", "bfloat16" or "float16", of weights and features.
        max_unreadable (`int`, defaults to 100): Rows that may be left out because they cannot be read.
        max_unreadable_share (`float`, defaults to 0.05): The share of rows that may. While it computes, a run allows
            five more, since a few rows say little about a share.
        media_workers (`int`, defaults to 1): Processes that each process opens media in, so that a file over which a
            decoder crashes is one unreadable row; with 0 it opens them itself.

    Returns:
        [`FeatureCache`]

    Raises:
        FeatureCacheError (a `ValueError`): if the folder holds something else, features of something else or a
            damaged shard, and if a process ended.
        UnreadableDataError (a `ValueError`): for more unreadable rows than allowed, and if no row could be read. The
            shards that are complete stay.
        ValueError: for data that cannot be read.
    """
    for name, value in {"batch_size": batch_size, "shard_size": shard_size, "processes": processes}.items():
        if value < 1:
            raise ValueError(f"got {name}={value}, expected at least 1")
    rows = load_messages(data, format=format, media_dir=media_dir)
    encoders = _load_encoders(model, dtype)
    processor = AutoProcessor.from_pretrained(model)
    hear = processor.load_audio_from_video if load_audio_from_video is None else load_audio_from_video
    sound = hear and branch == "video" and processor.num_audio_tokens > 0
    path = os.path.abspath(data)
    source = {
        "path": path,
        "checksum": file_checksum(path),
        "format": format,
        "media_dir": os.path.dirname(path) if media_dir is None else os.path.abspath(media_dir),
    }
    header = feature_header(
        encoders,
        processor,
        source,
        branch=branch,
        sound=sound,
        dtype=dtype,
        shard_size=shard_size,
        num_rows=len(rows),
    )
    cache = FeatureCache.create(folder, header, rows)
    collator = VideoLlamaDataCollator(
        processor,
        chat_template=ITEMS_TEMPLATE,
        frames_as_sound=branch == "audio",
        load_audio_from_video=sound,
        max_unreadable=max_unreadable,
        max_unreadable_share=max_unreadable_share,
    )
    job = _Job(cache, cache.missing_shards(), collator, model, batch_size, device, media_workers)
    with tqdm(total=len(rows), unit="row", desc="features") as bar:
        cache.check_shards(bar.update)  # before the run builds on them
        collator.unreadable.go_on(bar.n, list(cache.unreadable().values()))
        if min(processes, len(job.shards)) <= 1:
            job.compute(0, 1, encoders, bar.update)
        else:
            del encoders
            _compute_in_processes(job, min(processes, len(job.shards)), bar)
    left_out = len(cache.unreadable())
    collator.unreadable.check(len(rows) - left_out, left_out, complete=True)
    return cache


@dataclass(frozen=True)
class _Job:
    """The instructions for one process."""

    cache: FeatureCache
    shards: list[int]
    collator: VideoLlamaDataCollator
    model: str
    batch_size: int
    device: str | None
    media_workers: int

    def compute(self, rank: int, world: int, encoders: torch.nn.Module, advance: Callable[[int], Any]) -> None:
        """Computes every `world`-th shard, and tells `advance` about each row."""
        encoders = encoders.to(_device(self.device, rank)).eval()
        with opening_in_workers(self.media_workers):
            for shard in self.shards[rank::world]:
                self._compute_shard(shard, _Batches(encoders, self.batch_size), advance)

    def _compute_shard(self, shard: int, batches: "_Batches", advance: Callable[[int], Any]) -> None:
        rows, unreadable = self.cache.rows(), {}
        for row in self.cache.shard_rows(shard):
            try:
                opened = self.collator.open_media(rows[row])
                batches.add(_row_items(row, opened, self.collator), _times(row, opened))
            except ValueError as error:  # MediaError is one
                self.collator.unreadable.leave_out(error)
                unreadable[row] = str(error)
            else:
                self.collator.unreadable.read()
            advance(1)
        self.cache.write_shard(shard, batches.finish(), unreadable)


class _Batches:
    """
    Encodes items in batches of `batch_size` frames or clips. Begun anew for every shard, so that a shard's numbers do
    not depend on which shards were there before.
    """

    def __init__(self, model: Any, batch_size: int):
        self.encoders: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "pixel_values": model.get_frame_features,
            "pixel_values_videos": model.get_frame_features,
            "input_features": lambda clips: model.audio_tower(clips).pooler_output,
            "audio_pixel_values": lambda frames: model.audio_vision_tower(frames).pooler_output,
        }
        self.to = {"device": model.device, "dtype": model.dtype}
        self.batch_size = batch_size
        self.waiting: dict[str, tuple[str, torch.Tensor]] = {}
        self.features: dict[str, torch.Tensor] = {}

    def add(self, items: dict[str, tuple[str, torch.Tensor]], times: dict[str, torch.Tensor]) -> None:
        """Takes items: name -> (argument of the model, its frames or clips `(T, ...)`), and times as they are."""
        self.waiting |= items
        self.features |= times
        if sum(len(steps) for _, steps in self.waiting.values()) >= self.batch_size:
            self._encode_waiting()

    def finish(self) -> dict[str, torch.Tensor]:
        """Features (T, Q, D) or (T, D) of all items."""
        self._encode_waiting()
        return self.features

    @torch.no_grad()
    def _encode_waiting(self) -> None:
        for argument, encode in self.encoders.items():
            steps = {name: steps for name, (of, steps) in self.waiting.items() if of == argument}
            if steps:
                batches = torch.cat(list(steps.values())).split(self.batch_size)
                encoded = torch.cat([encode(batch.to(**self.to)).cpu() for batch in batches])
                parts = encoded.split([len(item) for item in steps.values()])
                self.features |= {name: part.clone() for name, part in zip(steps, parts, strict=True)}
        self.waiting = {}


def _opened_items(row: int, opened: list[dict]) -> list[tuple[str, str, Any]]:
    """Name, kind and source of each item, in their order; the sound of a video is an item before it."""
    items = []
    for i, message in enumerate(opened):
        for j, block in enumerate(message["content"]):
            kind, name = block["type"], f"{row}.{i}.{j}"
            if kind == "video" and block["video"].sound is not None:
                items.append((f"{name}.sound", "audio", block["video"].sound))
            if kind in SOURCE_KEYS:
                items.append((name, kind, block[kind]))
    return items


def _times(row: int, opened: list[dict]) -> dict[str, torch.Tensor]:
    """ "row.message.block.times" -> the seconds of the frames of a video (T,), float64"""
    return {
        f"{name}.times": torch.tensor(source.timestamps, dtype=torch.float64)
        for name, kind, source in _opened_items(row, opened)
        if kind == "video" and source.timestamps is not None
    }


def _row_items(row: int, opened: list[dict], collator: VideoLlamaDataCollator) -> dict[str, tuple[str, torch.Tensor]]:
    """Items as the collator prepares them for training: "row.message.block" -> (argument, frames or clips (T, ...))"""
    inputs = collator.encode({"messages": opened})
    hears = collator.load_audio_from_video
    blocks = [(name, kind) for name, kind, _ in _opened_items(row, opened) if hears or not name.endswith(".sound")]
    items: dict[str, tuple[str, torch.Tensor]] = {}
    for given in MEDIA_INPUTS:
        if given.name in inputs:
            steps = inputs[given.name].unsqueeze(1) if given.mask is None else inputs[given.name]
            real = torch.ones(steps.shape[:2], dtype=torch.bool) if given.mask is None else inputs[given.mask].bool()
            names = [name for name, kind in blocks if kind in given.kinds]
            items |= {name: (given.name, steps[i][real[i]]) for i, name in enumerate(names)}
    return items


def _compute_in_processes(job: _Job, world: int, bar: tqdm) -> None:
    spawned = multiprocessing.get_context("spawn")
    done, failures = spawned.Value("q", 0), spawned.SimpleQueue()
    start = bar.n
    processes = torch.multiprocessing.spawn(_work, (world, job, done, failures), nprocs=world, join=False)
    try:
        while not processes.join(timeout=0.2):  # if one fails, it ends the others
            bar.update(start + done.value - bar.n)
    except (ProcessRaisedException, ProcessExitedException) as error:
        if failures.empty() and isinstance(error, ProcessRaisedException):
            raise  # a fault of the program: its traceback says where
        reason = failures.get() if not failures.empty() else str(error)
        raise FeatureCacheError(f"a process stopped, and so did the others: {reason}") from error
    bar.update(start + done.value - bar.n)


def _work(rank: int, world: int, job: _Job, done: Synchronized, failures: Any) -> None:
    torch.set_num_threads(max(1, torch.get_num_threads() // world))

    def advance(count: int) -> None:
        with done.get_lock():
            done.value += count

    try:
        job.compute(rank, world, _load_encoders(job.model, job.cache.header["options"]["dtype"]), advance)
    except (OSError, ValueError) as error:
        failures.put(str(error))
        raise


def _device(device: str | None, rank: int) -> str:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return f"cuda:{rank % torch.cuda.device_count()}" if device == "cuda" else device


class _Encoders(VideoLlamaModel):
    """Video-LLaMA without the layers of its language model, which frames do not reach and which would fill a GPU."""

    _keys_to_ignore_on_load_unexpected = [r"language_model\.layers\.", r"lm_head"]


def _load_encoders(model: str, dtype: str) -> VideoLlamaModel:
    try:
        config = AutoConfig.from_pretrained(model)
        config.text_config.num_hidden_layers = 0
        return _Encoders.from_pretrained(model, config=config, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ValueError(f"the model {model} cannot be loaded: {error}") from error
