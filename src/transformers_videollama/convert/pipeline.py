"""The conversion as a whole."""

from dataclasses import replace
from pathlib import Path

import httpx
import torch
from huggingface_hub import HfApi
from transformers import PreTrainedConfig

from ..chat_templates import PromptStyle
from ..configuration_video_llama import VideoLlamaConfig
from ..files import appearing
from .checkpoints import Checkpoint, DeltaCheckpoint, FileCheckpoint, FolderCheckpoint
from .errors import ConversionError
from .gguf_checkpoint import GgufCheckpoint
from .headers import Headers
from .hub_code import export_code
from .key_tables import LOGIT_SCALE
from .language_model import read_library_config, tokenizer_size
from .options import ConversionOptions
from .plan import Plan, plan_conversion
from .processor_files import build_generation_config, build_processor
from .sources import BLIP2_PARTS, Sources, find_sources, is_vicuna_era
from .summary import Summary
from .tokenizer import build_tokenizer
from .weights import check_space, write_weights


__all__ = ["convert"]

MAX_LOGIT_SCALE = 100.0  # where ImageBind clips


def convert(options: ConversionOptions) -> Summary:
    """
    Converts original checkpoints into a folder that `from_pretrained` loads.

    Args:
        options ([`ConversionOptions`])

    Returns:
        [`Summary`]

    Raises:
        ConversionError: if the files are not what they should be, or the output exists; nothing is written.
        OSError: if the disk is full or the output cannot be written; nothing is left.
    """
    if options.output.exists():
        raise ConversionError(f"{options.output}: exists already; choose another output or remove it")
    if options.push_to_hub is not None:
        _check_login()
    sources = find_sources(
        options.source,
        options.files,
        audio=options.audio,
        vicuna_delta=options.vicuna_delta,
        base_llama=options.base_llama,
    )
    checkpoints = _open(sources)
    text_config = read_library_config(sources.llama)
    plan = _plan(options, sources, checkpoints, text_config)
    dtype = _dtype(options, plan, text_config, checkpoints["llama"])
    style: PromptStyle = options.style or ("vicuna" if _speaks_vicuna(options, sources) else "llama-2")
    summary = Summary(
        plan=plan,
        output=options.output,
        style=style,
        dtype=dtype,
        training_state=_training_state(checkpoints),
    )
    if options.dry_run:
        return summary
    check_space(options.output, summary.num_bytes)
    with appearing(options.output) as folder:
        folder.mkdir()
        _write_all_but_weights(folder, plan.config, dtype, sources.llama, style, options.hub_code)
        files = write_weights(plan, checkpoints, dtype, folder, options.max_shard_size)
    if options.push_to_hub is not None:
        _push(options.output, options.push_to_hub)
    return replace(summary, weight_files=files)


def _open(sources: Sources) -> dict[str, Checkpoint]:
    checkpoints: dict[str, Checkpoint] = {}
    for kind, path in sources.files.items():
        if path.is_dir():
            checkpoints[kind] = FolderCheckpoint(path, wanted=lambda key: key.startswith(BLIP2_PARTS))
        else:
            checkpoints[kind] = FileCheckpoint(path)
    path, base = sources.llama, sources.base_llama
    llama = FolderCheckpoint(path) if path.is_dir() else GgufCheckpoint(path)
    checkpoints["llama"] = llama if base is None else DeltaCheckpoint(FolderCheckpoint(base), llama)
    return checkpoints


def _plan(
    options: ConversionOptions, sources: Sources, checkpoints: dict[str, Checkpoint], text_config: PreTrainedConfig
) -> Plan:
    headers = Headers(
        {kind: checkpoint.shapes for kind, checkpoint in checkpoints.items()},
        lambda kind, key: checkpoints[kind].file_of(key),
    )
    blip2, llama = sources.files["blip2"], checkpoints["llama"]
    return plan_conversion(
        headers,
        text_config,
        llama.num_tokens if isinstance(llama, GgufCheckpoint) else tokenizer_size(sources.llama),
        with_imagebind_vision=options.with_imagebind_vision,
        blip2_config=_blip2_config(blip2) if blip2.is_dir() else None,
        logit_scale=_logit_scale(checkpoints["imagebind"]) if options.audio else None,
        overrides=options.overrides,
    )


def _blip2_config(folder: Path) -> PreTrainedConfig:
    config = read_library_config(folder)
    if config.model_type != "blip-2":
        raise ConversionError(f"--blip2: {folder} holds a model of type {config.model_type!r}, expected 'blip-2'")
    return config


def _logit_scale(imagebind: Checkpoint) -> float:
    if LOGIT_SCALE not in imagebind.shapes:
        raise ConversionError(f"{imagebind.file_of(LOGIT_SCALE)}: key {LOGIT_SCALE!r} is missing")
    # In float32, as the original computes it
    return imagebind.read(LOGIT_SCALE).float().exp().clamp(max=MAX_LOGIT_SCALE).item()


def _dtype(options: ConversionOptions, plan: Plan, text_config: PreTrainedConfig, llama: Checkpoint) -> torch.dtype:
    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    if isinstance(text_config.dtype, torch.dtype):
        return text_config.dtype
    first = next(entry for entry in plan.entries if entry.kind == "llama")
    return llama.dtype(first.keys[0])


def _speaks_vicuna(options: ConversionOptions, sources: Sources) -> bool:
    return options.vicuna_delta is not None or is_vicuna_era(sources.files["video_branch"])


def _training_state(checkpoints: dict[str, Checkpoint]) -> dict[str, tuple[str, ...]]:
    found = {checkpoint.file_of(""): checkpoint.training_state for checkpoint in checkpoints.values()}
    return {file: entries for file, entries in found.items() if entries}


def _write_all_but_weights(
    folder: Path, config: VideoLlamaConfig, dtype: torch.dtype, llama: Path, style: PromptStyle, hub_code: bool
) -> None:
    try:
        tokenizer = build_tokenizer(llama, config.image_token_id)
        processor = build_processor(tokenizer, config, style)
    except ConversionError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise ConversionError(f"{llama}: no tokenizer can be made of it: {error}") from error
    config.architectures = ["VideoLlamaForConditionalGeneration"]
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if part is not None:
            part.dtype = dtype
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    # The library writes all parts into processor_config.json, where vLLM does not look for the video processor's type.
    processor.video_processor.save_pretrained(folder)
    build_generation_config(config, tokenizer, style).save_pretrained(folder)
    if hub_code:
        export_code(folder)


def _check_login() -> None:
    """Before any work, rather than after an hour."""
    try:
        HfApi().whoami()
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConversionError(f"--push-to-hub: no valid login, see `hf auth login`: {error}") from error


def _push(folder: Path, repository: str) -> None:
    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConversionError(
            f"{folder} is complete, but could not be uploaded to {repository}: {error}; "
            f"`hf upload {repository} {folder}` tries again"
        ) from error
