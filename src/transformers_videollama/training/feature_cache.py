"""
The frozen encoders' features of the frames of a dataset, computed once instead of in every epoch.

A cache is a folder, which `videollama precompute` writes and [`load_features`] opens:

    features.json                        the origin of the features: weights, processor, data, options
    rows/                                the conversations, as `datasets` saves them
    features-00000-of-00042.safetensors  features of the items of `shard_size` rows, each under "row.message.block";
                                         of a video also its sound and the times of its frames, under that name with
                                         ".sound" and ".times"; in its metadata the rows that could not be read, and
                                         a checksum of each item

Every file appears whole or not at all.
"""

import functools
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers.utils import logging

from ..files import PARTIAL_SUFFIX, appearing
from ..messages import SOURCE_KEYS, EncodedMedia
from ..modeling_video_llama import VideoLlamaModel
from ..processing_video_llama import VideoLlamaProcessor
from .datasets import file_checksum, import_datasets
from .sharding import full, is_sharded, whole


if TYPE_CHECKING:
    from datasets import Dataset as ArrowDataset

__all__ = ["Branch", "FeatureCache", "FeatureCacheError", "FeatureDataset", "feature_header", "load_features"]

logger = logging.get_logger(__name__)

Branch = Literal["video", "audio"]

CACHE_VERSION = 2  # of the layout above
HEADER_NAME, ROWS_NAME = "features.json", "rows"
OPEN_SHARDS = 256  # that a process keeps mapped
# The parts of the model that are frozen in every stage of training, and that the features of a branch come from
FROZEN_PARTS = {
    "video": ("vision_tower", "query_tokens", "qformer", "audio_tower"),
    "audio": ("audio_vision_tower",),
}
COMPUTE_AGAIN = "delete it and run videollama precompute again with the same arguments, which computes what is missing"


class FeatureCacheError(ValueError):
    """A cache that cannot be used; the message names the folder or file, what is wrong with it, and what to do."""


def feature_header(
    model: torch.nn.Module,
    processor: VideoLlamaProcessor,
    data: Mapping[str, str],
    *,
    branch: Branch,
    sound: bool,
    dtype: str,
    shard_size: int,
    num_rows: int,
) -> dict[str, Any]:
    """
    The header of a cache: it says what the features are computed from.

    Args:
        model: A Video-LLaMA, as it is or wrapped.
        processor ([`VideoLlamaProcessor`])
        data (`Mapping`): `path` of the data file, its `checksum`, `format`, `media_dir`.
        branch (`str`): "video": images and videos go through the vision tower and the image Q-Former, sounds through
            ImageBind's audio trunk. "audio": images and videos go through ImageBind's vision trunk.
        sound (`bool`): Whether the sound of videos is in it.
        dtype (`str`): The dtype of weights and features.
        shard_size, num_rows (`int`): Rows of a shard, and of the data.

    Returns:
        `dict`, the content of `features.json`.

    Raises:
        FeatureCacheError (a `ValueError`): if the model lacks what the branch needs.
    """
    return {
        "version": CACHE_VERSION,
        "weights": _weights_checksums(model, branch),
        "processor": _processor_settings(processor),
        "data": dict(data),
        "options": {
            "branch": branch,
            "sound": sound,
            "dtype": dtype,
            "shard_size": shard_size,
            "num_rows": num_rows,
        },
    }


def video_llama_of(model: torch.nn.Module) -> VideoLlamaModel:
    """The Video-LLaMA in a model that has a head, adapters or the like around it."""
    for module in model.modules():
        if isinstance(module, VideoLlamaModel):
            return module
    raise ValueError(f"got a {type(model).__name__} without a VideoLlamaModel in it")


class FeatureCache:
    """
    The files of a cache.

    Args:
        folder (`str` or `os.PathLike`)
        header (`dict`): See [`feature_header`].
    """

    def __init__(self, folder: str | os.PathLike, header: dict[str, Any]):
        self.folder, self.header = Path(folder), header
        self.branch: Branch = header["options"]["branch"]
        self.num_rows: int = header["options"]["num_rows"]
        self.shard_size: int = header["options"]["shard_size"]
        self.num_shards = math.ceil(self.num_rows / self.shard_size)
        text = json.dumps(header, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]  # ties a shard to its header

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "FeatureCache":
        path = Path(folder) / HEADER_NAME
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
            if header["version"] != CACHE_VERSION:
                raise FeatureCacheError(
                    f"{path} is of version {header['version']}, expected {CACHE_VERSION}; compute the features again "
                    "into another folder"
                )
            return cls(folder, header)
        except FileNotFoundError as error:
            raise FeatureCacheError(f"{folder} has no {HEADER_NAME}; videollama precompute writes one") from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise FeatureCacheError(f"{path} is no header of features: {error!r}; compute them again") from error

    @classmethod
    def create(cls, folder: str | os.PathLike, header: dict[str, Any], rows: "ArrowDataset") -> "FeatureCache":
        """
        Begins a cache, or goes on with one that has the same header.

        Raises:
            FeatureCacheError (a `ValueError`): if the folder holds something else, or features of something else;
                the message lists the differences.
        """
        folder = Path(folder)
        for leftover in folder.glob(f".*{PARTIAL_SUFFIX}"):  # of a run that was killed
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if (folder / HEADER_NAME).exists():
            cache = cls.open(folder)
            cache.check(header)
        elif folder.exists() and any(folder.iterdir()):
            raise FeatureCacheError(f"{folder} is not empty, and holds no {HEADER_NAME}; give another folder")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            cache = cls(folder, header)
            with appearing(folder / HEADER_NAME) as partial:
                partial.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        if not (folder / ROWS_NAME).exists():
            with appearing(folder / ROWS_NAME) as partial:
                rows.save_to_disk(partial)
        return cache

    def check(self, header: dict[str, Any]) -> None:
        """
        Raises:
            FeatureCacheError (a `ValueError`): if another header is expected; the message lists the differences.
        """
        cached, expected = _flat(self.header), _flat(header)
        differences = [
            f"{name} was {cached.get(name, 'absent')!r} and is {expected.get(name, 'absent')!r}"
            for name in {**cached, **expected}
            if cached.get(name) != expected.get(name) and name != "data.path"  # a file may be moved
        ]
        if differences:
            raise FeatureCacheError(
                f"the features in {self.folder} are of something else: {'; '.join(differences)}; use what they were "
                "computed with, or compute them again into another folder"
            )

    def rows(self) -> "ArrowDataset":
        """The conversations, memory-mapped."""
        folder = self.folder / ROWS_NAME
        try:
            rows = import_datasets().load_from_disk(os.fspath(folder))
        except (OSError, ValueError) as error:
            raise FeatureCacheError(f"{folder} cannot be read: {error}; {COMPUTE_AGAIN}") from error
        if len(rows) != self.num_rows:
            raise FeatureCacheError(f"{folder} has {len(rows)} rows, expected {self.num_rows}; {COMPUTE_AGAIN}")
        return rows

    def shard_path(self, shard: int) -> Path:
        return self.folder / f"features-{shard:05d}-of-{self.num_shards:05d}.safetensors"

    def shard_rows(self, shard: int) -> range:
        return range(self.num_rows)[shard * self.shard_size : (shard + 1) * self.shard_size]

    def missing_shards(self) -> list[int]:
        return sorted(set(range(self.num_shards)).difference(self.shards()))

    def shards(self) -> list[int]:
        """The shards that are there."""
        return [shard for shard in range(self.num_shards) if self.shard_path(shard).exists()]

    def check_shards(self, advance: Callable[[int], Any]) -> None:
        """
        Reads all that is there, and tells `advance` about the rows of each shard.

        Raises:
            FeatureCacheError (a `ValueError`): for a shard that is damaged or another's.
        """
        for number in self.shards():
            shard = FeatureShard(self, number)
            for name in shard.about["checksums"]:
                shard.read(name)
            advance(len(self.shard_rows(number)))

    def unreadable(self) -> dict[int, str]:
        """Rows that could not be read, and why, of the shards that are there."""
        reasons = [FeatureShard(self, shard).about["unreadable"] for shard in self.shards()]
        return {int(row): reason for part in reasons for row, reason in part.items()}

    def check_sound(self, processor: VideoLlamaProcessor) -> None:
        """
        Raises:
            FeatureCacheError (a `ValueError`): if the processor hears the sound of videos, which is not in the cache.
        """
        hears = self.branch == "video" and processor.load_audio_from_video and processor.num_audio_tokens > 0
        if hears and not self.header["options"]["sound"]:
            raise FeatureCacheError(
                f"the features in {self.folder} are without the sound of videos, which the processor hears; compute "
                "them again without --no-audio into another folder, or train without sound, as the paper did: with "
                "--recipe paper of examples/train.py, or load_audio_from_video=False of the processor"
            )

    def write_shard(self, shard: int, features: dict[str, torch.Tensor], unreadable: dict[int, str]) -> None:
        """
        Args:
            shard (`int`): Its number.
            features (`dict[str, torch.Tensor]`): The features of all items, under "row.message.block", with ".sound"
                and ".times" for the sound and the times (seconds, float64) of videos.
            unreadable (`dict[int, str]`): Row -> why it has no features.
        """
        about = {
            "cache": self.fingerprint,
            "shard": shard,
            "unreadable": unreadable,
            "checksums": {name: _checksum(feature) for name, feature in features.items()},
        }
        # One entry, because safetensors writes several in random order
        metadata = {"about": json.dumps(about, sort_keys=True)}
        with appearing(self.shard_path(shard)) as partial:
            save_file(features, partial, metadata)
            shutil.copymode(self.folder / HEADER_NAME, partial)  # safetensors lets nobody else read its files


class FeatureShard:
    """A memory-mapped shard."""

    def __init__(self, cache: FeatureCache, shard: int):
        self.path = cache.shard_path(shard)
        try:
            self.file = safe_open(self.path, framework="pt")
            self.about = json.loads((self.file.metadata() or {})["about"])
        except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise FeatureCacheError(f"{self.path} is damaged: {error!r}; {COMPUTE_AGAIN}") from error
        if (self.about["cache"], self.about["shard"]) != (cache.fingerprint, shard):
            raise FeatureCacheError(f"{self.path} belongs to another cache, or is another shard; {COMPUTE_AGAIN}")

    def media(self, name: str) -> EncodedMedia:
        """An item, with its sound and its times if it has them."""
        sound, times = (
            self.read(part) if part in self.about["checksums"] else None for part in (f"{name}.sound", f"{name}.times")
        )
        return EncodedMedia(self.read(name), None if times is None else tuple(times.tolist()), sound)

    def read(self, name: str) -> torch.Tensor:
        try:
            feature = self.file.get_tensor(name)
        except SafetensorError as error:
            raise FeatureCacheError(f"{self.path} has no item {name}: {error}; {COMPUTE_AGAIN}") from error
        if _checksum(feature) != self.about["checksums"][name]:
            raise FeatureCacheError(f"{self.path} is damaged at the item {name}; {COMPUTE_AGAIN}")
        return feature


class FeatureDataset(Dataset):
    """
    Rows `{"messages": [...]}` whose items are [`EncodedMedia`], in the order of the data, for a
    [`VideoLlamaDataCollator`]. Rows that could not be read are left out. Every process opens the shards for itself,
    so that the dataset can be handed to workers. See [`load_features`].

    Args:
        cache ([`FeatureCache`])
        blank_features (`Mapping` from "image", "video", "audio" to `torch.Tensor`s, *optional*): Those of a blank
            item of one step, which the rows hand to the collator.

    Attributes:
        branch (`str`): "video" or "audio", the branch that the features are for.
        unreadable (`dict[int, str]`): Rows of the data, counted from 0, that are left out, and why.
    """

    def __init__(self, cache: FeatureCache, blank_features: Mapping[str, torch.Tensor] | None = None):
        if missing := cache.missing_shards():
            raise FeatureCacheError(
                f"{cache.folder} lacks {len(missing)} of {cache.num_shards} shards; run videollama precompute again "
                "with the same arguments, which computes them"
            )
        self.branch = cache.branch
        self.unreadable = cache.unreadable()
        self._blank_features = blank_features
        self._cache = cache
        self._rows = np.setdiff1d(np.arange(cache.num_rows), list(self.unreadable))
        self._conversations = cache.rows()
        self._shard = self._shard_opener()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self._rows[index])
        shard = self._shard(row // self._cache.shard_size)
        messages = []
        stored = self._conversations[row]
        for i, message in enumerate(stored["messages"]):
            content = []
            for j, block in enumerate(message["content"]):
                kind = block["type"]
                if kind in SOURCE_KEYS:
                    content.append({"type": kind, kind: shard.media(f"{row}.{i}.{j}")})
                else:
                    content.append({"type": kind, "text": block["text"]})
            messages.append({"role": message["role"], "content": content})
        blank = {} if self._blank_features is None else {"blank_features": self._blank_features}
        return {**stored, "messages": messages, **blank}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_shard"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shard = self._shard_opener()

    def _shard_opener(self) -> Callable[[int], FeatureShard]:
        return functools.lru_cache(maxsize=OPEN_SHARDS)(functools.partial(FeatureShard, self._cache))


def load_features(folder: str | os.PathLike, model: torch.nn.Module, processor: VideoLlamaProcessor) -> FeatureDataset:
    """
    Opens a cache that `videollama precompute` wrote, to train a model from it.

    Args:
        folder (`str` or `os.PathLike`)
        model: The Video-LLaMA that is to be trained. Its frozen encoders must be those of the cache; whether in
            float32 or bfloat16 makes no difference. If several processes train, all of them must call this: weights
            that they share out are gathered, one part after the other.
        processor ([`VideoLlamaProcessor`]): It must prepare items as it did for the cache. If it hears the sound of
            videos, the cache must have it; [`~VideoLlamaDataCollator.processor_as_trained`] hears what is trained.

    Returns:
        [`FeatureDataset`]

    Raises:
        FeatureCacheError (a `ValueError`): for a cache that is not complete, damaged, or computed with other weights
            or settings, or without sound that is to be heard, or whose data file has changed since; the message says
            what differs.
    """
    cache = FeatureCache.open(folder)
    data = dict(cache.header["data"])
    if os.path.exists(data["path"]):  # it need not be there: the conversations are in the cache
        data["checksum"] = file_checksum(data["path"])
    cache.check(feature_header(model, processor, data, **cache.header["options"]))
    cache.check_sound(processor)
    dataset = FeatureDataset(cache, _blank_features(model, cache))
    if dataset.unreadable:
        logger.warning(
            f"{folder}: {len(dataset.unreadable)} of {cache.num_rows} samples could not be read and are left out; the "
            "attribute `unreadable` of the dataset has the reasons"
        )
    return dataset


def _weights_checksums(model: torch.nn.Module, branch: Branch) -> dict[str, str]:
    video_llama = video_llama_of(model)
    if branch == "audio" and video_llama.audio_vision_tower is None:
        raise FeatureCacheError(
            "this checkpoint lacks ImageBind's vision trunk (config.audio_vision_config is None), which the audio "
            "branch is trained through; convert the original with --with-imagebind-vision"
        )
    parts = {name: getattr(video_llama, name) for name in FROZEN_PARTS[branch]}
    return _of_first_process(
        lambda: {name: _weights_checksum(part) for name, part in parts.items() if part is not None},
        together=is_sharded(model),
    )


def _of_first_process(compute: Callable[[], dict[str, str]], *, together: bool) -> dict[str, str]:
    """
    What the first process has computed, with the others if weights are shared out. Before they are, the others need
    not have them: with FSDP, one process a machine reads the checkpoint (`fsdp_cpu_ram_efficient_loading`).
    """
    if not (dist.is_available() and dist.is_initialized()):
        return compute()
    results = [compute() if together or dist.get_rank() == 0 else {}]
    dist.broadcast_object_list(results, src=0)
    return results[0]


def _weights_checksum(part: torch.nn.Module | torch.Tensor) -> str:
    """The checksum of the weights rounded to bfloat16, so that a model has the same in float32 and in bfloat16."""
    parameters: Any = [part] if isinstance(part, torch.Tensor) else part.parameters()
    checksum = hashlib.sha256()
    with whole(parameters):
        tensors = {"": part} if isinstance(part, torch.Tensor) else part.state_dict()
        for name, tensor in sorted(tensors.items()):
            checksum.update(name.encode())
            checksum.update(full(tensor).to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().data)
    return checksum.hexdigest()[:16]


def _blank_features(model: torch.nn.Module, cache: FeatureCache) -> dict[str, torch.Tensor]:
    """Features of a blank item of one step, of each kind that this model has."""
    config, dtype = video_llama_of(model).config, getattr(torch, cache.header["options"]["dtype"])
    if cache.branch == "audio":
        return {"audio": torch.zeros(1, config.audio_vision_config.projection_dim, dtype=dtype)}
    frame = torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size, dtype=dtype)
    sound = {} if config.audio_config is None else {"audio": torch.zeros(1, config.audio_config.projection_dim)}
    return {"image": frame, "video": frame, **{kind: clip.to(dtype) for kind, clip in sound.items()}}


def _processor_settings(processor: VideoLlamaProcessor) -> dict[str, Any]:
    """The settings that items are prepared with, as JSON has them."""
    parts = {name: getattr(processor, name) for name in ("image_processor", "video_processor", "feature_extractor")}
    settings = {name: part.to_dict() for name, part in parts.items() if part is not None}
    return json.loads(json.dumps(settings, default=str))


def _flat(header: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    if not isinstance(header, Mapping):
        return {prefix: header}
    return {
        name: value
        for key, part in header.items()
        for name, value in _flat(part, f"{prefix}.{key}" if prefix else key).items()
    }


def _checksum(feature: torch.Tensor) -> int:
    return zlib.crc32(feature.contiguous().view(torch.uint8).numpy().data)
