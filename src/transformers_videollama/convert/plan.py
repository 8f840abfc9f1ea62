"""The plan of a conversion: the fate of every key, decided from names and shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig

from ..configuration_video_llama import VideoLlamaConfig
from ..modeling_video_llama import VideoLlamaForConditionalGeneration
from .errors import ConversionError
from .headers import Headers
from .key_tables import (
    AUDIO_BRANCH,
    BLIP2,
    BLIP2_LIBRARY,
    VIDEO_BRANCH,
    KeyTable,
    Surgery,
    imagebind_table,
    vision_table,
)
from .language_model import LanguageModelNames, language_model_table
from .sizes import read_config
from .surgery import Vocabulary


__all__ = ["PARTS", "Entry", "Plan", "plan_conversion"]

# Parts of the model in the order in which they are written, by how the names of their tensors start.
PARTS = {
    "vision tower": ("model.vision_tower.",),
    "image Q-Former": ("model.qformer.", "model.query_tokens"),
    "video branch": ("model.video_resampler.",),
    "audio tower": ("model.audio_tower.",),
    "audio branch": ("model.audio_resampler.",),
    "audio vision tower": ("model.audio_vision_tower.",),
    "language model": ("model.language_model.", "lm_head."),
}

MAX_PROBLEMS = 5


@dataclass(frozen=True)
class Entry:
    """One tensor of the model, and what it is made of: `keys` of one kind of file, put through `surgery`."""

    target: str
    shape: tuple[int, ...]
    kind: str
    keys: tuple[str, ...]
    surgery: Surgery | None

    @property
    def part(self) -> str:
        return next(part for part, starts in PARTS.items() if self.target.startswith(starts))

    def make(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return tensors[0] if self.surgery is None else self.surgery(*tensors)


@dataclass(frozen=True)
class Plan:
    """
    Args:
        config ([`VideoLlamaConfig`]): of the converted model.
        entries (`tuple` of [`Entry`]): every tensor of the model, part by part.
        ignored (`dict`): reason -> (file, key) of what is left out.
    """

    config: VideoLlamaConfig
    entries: tuple[Entry, ...]
    ignored: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def plan_conversion(
    headers: Headers | Mapping[str, Mapping[str, Sequence[int]]],
    text_config: PreTrainedConfig,
    tokens: int,
    *,
    with_imagebind_vision: bool = False,
    blip2_config: PreTrainedConfig | None = None,
    logit_scale: float | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> Plan:
    """
    Accounts for every key and every tensor of the model, without reading any.

    Args:
        headers ([`Headers`] or `Mapping`): kind of file -> key -> shape. The kinds are "vision" (not with a
            `blip2_config`), "blip2", "video_branch", "llama" and, for a model with audio, "imagebind" and
            "audio_branch".
        text_config (`PreTrainedConfig`): The language model's.
        tokens (`int`): Ids that the language model's tokenizer uses.
        with_imagebind_vision (`bool`): whether ImageBind's vision trunk is converted, too.
        blip2_config (`Blip2Config`, *optional*): makes "blip2" a checkpoint in the library's format.
        logit_scale (`float`, *optional*): Norm of ImageBind's embeddings of sound.
        overrides (`Mapping`, *optional*): section of the configuration -> field -> value.

    Returns:
        [`Plan`]

    Raises:
        ConversionError: if keys are missing, unknown or of another shape than the model has; it names the first
            of them with its file.
    """
    if not isinstance(headers, Headers):
        headers = Headers(headers)
    names = LanguageModelNames.of(text_config)
    vocabulary = Vocabulary(rows=_embedding_rows(headers, names, text_config), tokens=tokens)
    config = read_config(
        headers,
        text_config,
        vocabulary,
        tied=names.stay_tied,
        with_imagebind_vision=with_imagebind_vision,
        blip2_config=blip2_config,
        logit_scale=logit_scale,
        overrides=overrides,
    )
    tables = {
        "vision": vision_table(config.to_dict()["vision_config"]["num_hidden_layers"]),
        "blip2": BLIP2 if blip2_config is None else BLIP2_LIBRARY,
        "video_branch": VIDEO_BRANCH,
        "imagebind": imagebind_table(with_imagebind_vision),
        "audio_branch": AUDIO_BRANCH,
        "llama": language_model_table(names, vocabulary),
    }
    entries, problems = _fill_targets(headers, tables, _target_shapes(config))
    ignored, unknown = _account_for_rest(headers, tables, entries)
    _raise_problems(problems + unknown)
    order = list(PARTS)
    return Plan(config, tuple(sorted(entries, key=lambda entry: order.index(entry.part))), ignored)


def _embedding_rows(headers: Headers, names: LanguageModelNames, text_config: PreTrainedConfig) -> int:
    rows = headers.size("llama", (names.embeddings, 0))
    if rows != text_config.vocab_size:
        shape = headers.shapes["llama"][names.embeddings]
        raise ConversionError(
            f"{headers.file_of('llama', names.embeddings)}: {names.embeddings!r} has shape {shape}, expected "
            f"{text_config.vocab_size} rows, which is vocab_size in config.json"
        )
    return rows


def _target_shapes(config: VideoLlamaConfig) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            model = VideoLlamaForConditionalGeneration(config)
    except ValueError as error:
        raise ConversionError(f"no model has the sizes of these files: {error}") from error
    tied = model.all_tied_weights_keys
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def _fill_targets(
    headers: Headers, tables: Mapping[str, KeyTable], targets: Mapping[str, tuple[int, ...]]
) -> tuple[list[Entry], list[str]]:
    entries, problems = [], []
    for target, shape in targets.items():
        entry = _entry_for(headers, tables, target, shape)
        if entry is None:
            raise RuntimeError(f"no rule of the key tables fills {target}")
        entries.append(entry)
        problems += _problems_of(headers, entry)
    return entries, problems


def _entry_for(headers: Headers, tables: Mapping[str, KeyTable], target: str, shape: tuple[int, ...]) -> Entry | None:
    for kind in headers.shapes:
        for rule in tables[kind].rules:
            keys = rule.keys_for(target)
            if keys is not None:
                return Entry(target, shape, kind, keys, rule.surgery)
    return None


def _problems_of(headers: Headers, entry: Entry) -> list[str]:
    shapes = headers.shapes[entry.kind]
    missing = [key for key in entry.keys if key not in shapes]
    if missing:
        wanted = f" of shape {entry.shape}" if entry.surgery is None else ""
        return [
            f"{headers.file_of(entry.kind, key)}: key {key!r}{wanted} is missing, which {entry.target} is made of"
            for key in missing
        ]
    place = f"{headers.file_of(entry.kind, entry.keys[0])}: {' and '.join(map(repr, entry.keys))}"
    got = " and ".join(str(shapes[key]) for key in entry.keys)
    try:
        made = tuple(entry.make([torch.empty(shapes[key], device="meta") for key in entry.keys]).shape)
    except ConversionError as error:
        return [f"{place} {error}"]
    except RuntimeError:  # torch's complaint about shapes, which does not know the key
        return [f"{place} has shape {got}, which cannot become {entry.target} of shape {entry.shape}"]
    if made == entry.shape:
        return []
    if entry.surgery is None:
        hint = " (as the language model is wide)" if "_resampler.projection." in entry.target else ""
        return [f"{place} has shape {got}, expected {entry.shape}{hint}"]
    return [f"{place} has shape {got}, which becomes {made}, expected {entry.shape} for {entry.target}"]


def _account_for_rest(
    headers: Headers, tables: Mapping[str, KeyTable], entries: Sequence[Entry]
) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    used = {(entry.kind, key) for entry in entries for key in entry.keys}
    ignored: dict[str, list[tuple[str, str]]] = {}
    unknown = []
    for kind, shapes in headers.shapes.items():
        for key, shape in shapes.items():
            if (kind, key) in used:
                continue
            file, reason = headers.file_of(kind, key), tables[kind].reason_to_ignore(key)
            if reason is None:
                unknown.append(f"{file}: unexpected key {key!r} of shape {shape}, expected no such key")
            else:
                ignored.setdefault(reason, []).append((file, key))
    return ignored, unknown


def _raise_problems(problems: Sequence[str]) -> None:
    if problems:
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise ConversionError("; ".join(problems[:MAX_PROBLEMS]) + more)
