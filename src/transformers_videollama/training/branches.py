"""The parameters that a stage has trained, as one small file: saved, loaded, and in the original's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..files import appearing
from ..modeling_video_llama import VideoLlamaForConditionalGeneration
from .sharding import full, whole


__all__ = ["BRANCH_FILE", "load_branch", "save_branch", "trained_state"]

BRANCH_FILE = "branch.safetensors"
BRANCH_MODULES = ("video_resampler", "audio_resampler")


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """
    The parameters that train, gathered where they are sharded over processes (then every process must call this).

    Returns:
        `dict` from names to `torch.Tensor`s on the CPU, copies.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {}
    with whole(trained.values()):
        for name, parameter in trained.items():
            state[name] = full(parameter).to("cpu", copy=True).contiguous()
    return state


def save_branch(model: VideoLlamaForConditionalGeneration, path: str | Path) -> None:
    """
    Saves the parameters that train. The file appears complete or not at all. If several processes train, all of them
    must call this, and the first one writes.

    Args:
        model ([`VideoLlamaForConditionalGeneration`])
        path (`str` or `Path`): `*.safetensors` in this package's names, or `*.pth` in the original's layout (a
            `VL_*.pth` or `AL_*.pth`), which holds one branch.

    Raises:
        ValueError: for another suffix, if nothing trains, or for a `.pth` if more than one branch trains.
    """
    state = trained_state(model)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0:
        write_branch(state, path)


def write_branch(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Writes what [`trained_state`] returned; see [`save_branch`]."""
    path = Path(path)
    if not state:
        raise ValueError("no parameter of the model trains, so there is no branch to save; call prepare_for_stage")
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"{path}: expected a name that ends with .safetensors or, for the original's layout, .pth")
    with appearing(path) as partial:
        if path.suffix == ".pth":
            torch.save(_original_state(state), partial)
        else:
            save_file(dict(state), partial, metadata={"format": "pt"})


def load_branch(model: VideoLlamaForConditionalGeneration, path: str | Path) -> list[str]:
    """
    Loads a trained branch into a model, all of it or nothing.

    Args:
        model ([`VideoLlamaForConditionalGeneration`]): changed in place; its other parts stay as they are.
        path (`str` or `Path`): a file that [`save_branch`] wrote, a folder with a `branch.safetensors` (a checkpoint
            of training), or a `VL_*.pth` or `AL_*.pth` of the original.

    Returns:
        `list[str]`: names of the parameters that were loaded.

    Raises:
        ValueError: for a file that cannot be read, holds no complete branch, or does not fit the model.
    """
    path = Path(path)
    path = path / BRANCH_FILE if path.is_dir() else path
    state = _read(path)
    parameters = dict(model.named_parameters())
    if unknown := state.keys() - parameters.keys():
        raise ValueError(f"{path}: the model has no {sorted(unknown)[:3]} ({len(unknown)} names in all)")
    for name, tensor in state.items():
        shape = getattr(parameters[name], "ds_shape", parameters[name].shape)
        if tensor.shape != shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, in the model {tuple(shape)}; it was trained for a "
                "model of another size"
            )
    for module in BRANCH_MODULES:
        names = {name for name in parameters if name.startswith(f"model.{module}.")}
        if names & state.keys() and (missing := names - state.keys()):
            raise ValueError(f"{path}: holds a part of {module} only; {sorted(missing)[:3]} are missing")
    with torch.no_grad(), whole([parameters[name] for name in state], changed=True):
        for name, tensor in state.items():
            parameters[name].copy_(tensor)
    return sorted(state)


def _read(path: Path) -> dict[str, torch.Tensor]:
    from ..convert import read_original_branch

    try:
        state = read_original_branch(path) if path.suffix == ".pth" else load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read as a trained branch: {error}") from error
    if not state:
        raise ValueError(f"{path}: holds no parameters")
    return state


def _original_state(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    from ..convert import original_branch_state

    branches = [module for module in BRANCH_MODULES if any(name.startswith(f"model.{module}.") for name in state)]
    others = [name for name in state if not name.startswith(tuple(f"model.{module}." for module in BRANCH_MODULES))]
    if len(branches) != 1 or others:
        raise ValueError(
            f"a .pth of the original holds one branch, but {branches} and {len(others)} other parameters train; save "
            "them as .safetensors"
        )
    return original_branch_state(state, "video" if branches == ["video_resampler"] else "audio")
