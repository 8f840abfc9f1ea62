"""The options of a conversion."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..chat_templates import PromptStyle


__all__ = ["DTYPES", "STYLES", "ConversionOptions"]

STYLES = ("llama-2", "vicuna")
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class ConversionOptions:
    """
    Args:
        source (`str`): Folder or Hub id in which the original's files are found by their names.
        output (`Path`): Folder to write, which must not exist.
        style (`str`, *optional*): Prompt style, "llama-2" or "vicuna". By default that of the video branch's era.
        dtype (`str`, defaults to "auto"): of all weights; "auto" is the language model's own.
        audio (`bool`, defaults to `True`): Whether the model gets the audio branch.
        with_imagebind_vision (`bool`, defaults to `False`): Whether it gets ImageBind's vision trunk, which the
            training of the audio branch needs.
        files (`Mapping`): "vision", "blip2", "video_branch", "imagebind", "audio_branch" or "llama" -> path or Hub id.
        vicuna_delta, base_llama (`str`, *optional*): Vicuna v0 as published, and the LLaMA that it is added to.
        overrides (`Mapping`): section of the configuration -> field -> value, for what shapes cannot tell.
        max_shard_size (`int`): Bytes that a file of weights has at most, unless one tensor is larger.
        hub_code (`bool`, defaults to `False`): Whether the code is put next to the weights, for `trust_remote_code`.
        push_to_hub (`str`, *optional*): Hub id to upload the finished folder to.
        dry_run (`bool`, defaults to `False`): Check names and shapes alone, write nothing.
    """

    source: str
    output: Path
    style: PromptStyle | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    audio: bool = True
    with_imagebind_vision: bool = False
    files: Mapping[str, str | None] = field(default_factory=dict)
    vicuna_delta: str | None = None
    base_llama: str | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_shard_size: int = 2 * 1000**3
    hub_code: bool = False
    push_to_hub: str | None = None
    dry_run: bool = False
