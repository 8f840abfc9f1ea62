"""The way back: a trained branch of the model -> the original's `.pth` layout, from the same tables."""

from collections.abc import Mapping
from typing import Literal

import torch

from .errors import ConversionError
from .key_tables import AUDIO_BRANCH, VIDEO_BRANCH, fill, match


__all__ = ["original_branch_state"]

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
        ConversionError: where `model_state` holds nothing of the branch.
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
