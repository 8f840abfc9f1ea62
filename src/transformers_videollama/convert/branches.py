"""One trained branch, from the original's `.pth` layout and back to it, by the tables of the conversion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from .checkpoints import FileCheckpoint
from .errors import ConversionError
from .key_tables import AUDIO_BRANCH, VIDEO_BRANCH, fill, match


__all__ = ["original_branch_state", "read_original_branch"]

TABLES = {"video": VIDEO_BRANCH, "audio": AUDIO_BRANCH}


def original_branch_state(
    model_state: Mapping[str, torch.Tensor], branch: Literal["video", "audio"]
) -> dict[str, dict[str, torch.Tensor]]:
    """
    Names a branch as the original does, so that `torch.save` of the result is a `VL_*.pth` or `AL_*.pth`.

    Args:
        model_state (`Mapping` from name to `torch.Tensor`): `VideoLlamaForConditionalGeneration.state_dict()`, or the
            part of it that was trained.
        branch (`str`): "video" or "audio".

    Returns:
        `{"model": {key: tensor}}`: the tensors themselves, not copies. The buffers that the original's files also
        hold are left out; its code loads a branch without them.

    Raises:
        ConversionError: if `model_state` holds nothing of the branch.
    """
    state = {}
    for name, tensor in model_state.items():
        for rule in TABLES[branch].rules:
            words = match(rule.target, name)
            if words is not None and isinstance(rule.sources, str):
                state[fill(rule.sources, words)] = tensor
    if not state:
        raise ConversionError(
            f"there is no {branch} branch among the {len(model_state)} names; expected names that start with "
            f"model.{branch}_resampler"
        )
    return {"model": state}


def read_original_branch(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Reads a `VL_*.pth` or `AL_*.pth` under the names of the model.

    Returns:
        `dict` from names of `VideoLlamaForConditionalGeneration.state_dict()` to tensors that are mapped from the file
        where it can be.

    Raises:
        ConversionError: for a file that cannot be read, or has keys that no branch has.
    """
    file = FileCheckpoint(Path(path))
    tables = TABLES.values()
    state, unknown = {}, []
    for key in file.shapes:
        found = [
            (rule.target, words)
            for table in tables
            for rule in table.rules
            if isinstance(rule.sources, str) and (words := match(rule.sources, key)) is not None
        ]
        if found:
            state[fill(*found[0])] = file.read(key)
        elif all(table.reason_to_ignore(key) is None for table in tables):
            unknown.append(key)
    if unknown:
        raise ConversionError(f"{path}: {len(unknown)} keys belong to no branch, such as {unknown[0]}")
    return state
