"""Adapters and branches, put into a model in memory: all of each or nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from ..modeling_video_llama import VideoLlamaForConditionalGeneration


if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["load_trained"]

ADAPTER_FILE = "adapter_config.json"
PREFIX = "base_model.model."  # before the names of a model in the files of PEFT
NAMES_SHOWN = 3


def load_trained(
    model: VideoLlamaForConditionalGeneration,
    adapter: str | Path | None = None,
    branches: Sequence[str | Path] = (),
) -> None:
    """
    Puts what was trained into a model: first the adapter, with the branch that was trained together with it, then the
    branches, which so go before the adapter's own. The weights of LoRA are added to those of the language model. In a
    quantised model they stay next to them, since the sum would have to be quantised once more.

    Args:
        model ([`VideoLlamaForConditionalGeneration`]): changed in place; the dtypes of its weights stay as they are,
            and with an adapter none of them trains.
        adapter (`str` or `Path`, *optional*): folder of an adapter of PEFT, as `examples/train.py --lora` writes it.
        branches (`Sequence` of `str` or `Path`): each as [`~transformers_videollama.training.load_branch`] takes it:
            a `branch.safetensors`, a checkpoint of training, or a `VL_*.pth` or `AL_*.pth` of the original.

    Raises:
        ImportError: if there is an adapter and PEFT is not installed.
        ValueError: for what cannot be read, does not fit the model, or is given twice; the message names it.
    """
    if adapter is not None:
        _load_adapter(model, Path(adapter))
    if branches:
        from ..training import load_branch  # heavy, which answers without branches need not wait for
    origins: dict[str, str | Path] = {}
    for branch in branches:
        names = load_branch(model, branch)
        for name in names:
            if name in origins:
                raise ValueError(f"{origins[name]} and {branch} hold the same branch; give one of them")
        origins |= dict.fromkeys(names, branch)


def _load_adapter(model: VideoLlamaForConditionalGeneration, folder: Path) -> None:
    try:
        from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    except ImportError as error:
        raise ImportError("adapters need peft: pip install 'transformers-videollama[train]'") from error
    config, state = _read_adapter(folder)
    parameters = dict(model.named_parameters())
    # Parts that were trained as a whole have the names of the model; PEFT would keep them next to those of the model
    whole = {key: parameters[name] for key in state if (name := key.removeprefix(PREFIX)) in parameters}
    added = {key: tensor for key, tensor in state.items() if key not in whole}
    _check_shapes(folder, state, whole)
    config.modules_to_save = None
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"{folder}: the adapter does not fit the model: {error}") from error
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    try:
        _check_names(folder, added.keys() - expected.keys(), expected.keys() - state.keys())
        _check_shapes(folder, state, {key: expected[key] for key in added})
    except ValueError:
        adapted.unload()
        raise
    set_peft_model_state_dict(adapted, added)
    with torch.no_grad():
        for key, old in whole.items():
            old.copy_(state[key])
    if getattr(model, "hf_quantizer", None) is None:
        adapted.merge_and_unload(safe_merge=True)
    model.requires_grad_(False)


def _read_adapter(folder: Path) -> tuple["LoraConfig", dict[str, torch.Tensor]]:
    from peft import LoraConfig, PeftConfig, load_peft_weights

    if not (folder / ADAPTER_FILE).is_file():
        raise ValueError(
            f"{folder}: has no {ADAPTER_FILE}, so it is no adapter; expected the folder that training with --lora has "
            "written. A trained branch is given with --branch"
        )
    path = str(folder.absolute())  # which is no id on the Hub, where PEFT looks for files that are not in a folder
    try:
        config, state = PeftConfig.from_pretrained(path), load_peft_weights(path, device="cpu")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be read as an adapter of PEFT: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder}: holds an adapter of the kind {config.peft_type}, expected LoRA")
    return config, state


def _check_names(folder: Path, unknown: set[str], missing: set[str]) -> None:
    other = f"{folder}: the adapter was trained for another model"
    if unknown:
        raise ValueError(f"{other}: this one has no place for {_some(unknown)}")
    if missing:
        raise ValueError(f"{other}: it has nothing for {_some(missing)}")


def _check_shapes(folder: Path, given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    for key, wanted in expected.items():
        if given[key].shape != wanted.shape:
            raise ValueError(
                f"{folder}: the adapter was trained for a model of another size: {key.removeprefix(PREFIX)} has shape "
                f"{tuple(given[key].shape)}, expected {tuple(wanted.shape)}"
            )


def _some(keys: set[str]) -> str:
    shown = ", ".join(key.removeprefix(PREFIX) for key in sorted(keys)[:NAMES_SHOWN])
    return f"{shown} ({len(keys)} names in all)"
