"""`videollama merge`: a checkpoint with what was trained in it, as a folder that appears complete or not at all."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ..convert import check_space, export_code
from ..files import appearing
from ..modeling_video_llama import VideoLlamaForConditionalGeneration
from ..processing_video_llama import VideoLlamaProcessor
from ..quantization import stored_bytes
from .checkpoints import load_checkpoint, processor_source
from .loading import load_trained
from .original import OriginalLanguageModel, write_original


__all__ = ["MergeOptions", "merge"]


@dataclass(frozen=True)
class MergeOptions:
    """
    Args:
        model (`str`): folder of the checkpoint that was trained, or its id on the Hub.
        output (`Path`): Folder to write, which must not exist, or be empty.
        adapter (`str`, *optional*), branches (`Sequence` of `str`): as in [`load_trained`].
        dtype (`str`, defaults to "auto"): of all weights; "auto" is the model's own.
        max_shard_size (`int`): Bytes that a file of weights has at most, unless one tensor is larger.
        hub_code (`bool`, defaults to `False`): Whether the code is put next to the weights, for `trust_remote_code`;
            it always is if the model has its code.
        original_llama (`str`, *optional*): folder of the language model that the checkpoint was converted from. With
            it, what is written has the original's layout.
    """

    model: str
    output: Path
    adapter: str | None = None
    branches: Sequence[str] = ()
    dtype: str = "auto"
    max_shard_size: int = 2 * 1000**3
    hub_code: bool = False
    original_llama: str | None = None


def merge(options: MergeOptions) -> str:
    """
    Writes a checkpoint with what was trained in it. The model is in memory once.

    Args:
        options ([`MergeOptions`])

    Returns:
        `str`: what was written, for people.

    Raises:
        ImportError, ValueError: as [`load_trained`], and if the output exists or nothing is to be merged; nothing is
            written.
        OSError: if the disk is full or the output cannot be written; nothing is left.
    """
    _check(options)
    original = None if options.original_llama is None else OriginalLanguageModel.read(Path(options.original_llama))
    source = processor_source(options.model, options.adapter, options.branches)
    processor = load_checkpoint(source, "AutoProcessor")
    model = load_checkpoint(options.model, "AutoModelForMultimodalLM", dtype=options.dtype)
    if original is not None:
        original.check(model.config)
    load_trained(model, options.adapter, options.branches)
    check_space(options.output, stored_bytes(model))
    try:
        with appearing(options.output) as folder:
            folder.mkdir()
            if original is None:
                _write_checkpoint(model, processor, folder, options)
            else:
                write_original(model, processor, original, folder, options.max_shard_size)
    except SafetensorError as error:  # safetensors reports a full disk in this way
        raise OSError(errno.EIO, f"cannot be written: {error}", str(options.output)) from error
    names = sorted(path.name for path in options.output.iterdir())
    return f"wrote {options.output}, with the processor of {source}: {', '.join(names)}"


def _check(options: MergeOptions) -> None:
    output = options.output
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ValueError(f"{output}: exists already; choose another output or remove it")
    if options.adapter is None and not options.branches and options.original_llama is None:
        raise ValueError("there is nothing to merge; give --adapter, --branch or both")
    if options.original_llama is not None and options.hub_code:
        raise ValueError("--hub-code and --to-original exclude each other")


def _write_checkpoint(
    model: VideoLlamaForConditionalGeneration, processor: VideoLlamaProcessor, folder: Path, options: MergeOptions
) -> None:
    model.save_pretrained(folder, max_shard_size=options.max_shard_size)
    processor.save_pretrained(folder)
    # The library writes all parts into processor_config.json, where vLLM does not look for the video processor's type.
    processor.video_processor.save_pretrained(folder)
    if options.hub_code or hasattr(model.config, "auto_map"):
        export_code(folder)
