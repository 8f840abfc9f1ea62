"""Checks of what the network is given: shapes, masks, labels. An error says which item, what was got, what to do."""

from collections.abc import Collection

import torch

from .configuration_video_llama import VideoLlamaConfig
from .messages import ITEM_ARGUMENTS


__all__ = [
    "check_autocast",
    "check_labels",
    "check_no_placeholders",
    "check_pixels",
    "check_spectrograms",
    "check_step_mask",
    "check_steps",
]

NAMED_IDS = 5  # of wrong labels that a message lists


def check_autocast(weights: torch.Tensor) -> None:
    """
    torch's autocast of CPUs knows one 16-bit type at a time, and ends in the middle of a network of the other.

    Args:
        weights (`torch.Tensor`): One of the model, for its device and dtype.

    Raises:
        ValueError: for weights in bfloat16 or float16 on a CPU, where autocast uses the other.
    """
    if weights.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return
    used = torch.get_autocast_dtype("cpu")
    if {weights.dtype, used} == {torch.bfloat16, torch.float16}:
        raise ValueError(
            f"got weights in {weights.dtype} on a CPU under autocast in {used}, which torch cannot mix there; load "
            f"the model with from_pretrained(..., dtype={used}) or torch.float32, or leave bf16 and fp16 of the "
            "training arguments out"
        )


def check_pixels(pixels: torch.Tensor, image_size: int) -> None:
    """Frames of videos, (items, T, 3, image_size, image_size)"""
    if pixels.ndim != 5 or pixels.shape[2:] != (3, image_size, image_size):
        raise ValueError(
            f"pixels of videos must have shape (items, frames, 3, {image_size}, {image_size}), those of images "
            f"the same without the frames; got {tuple(pixels.shape)}"
        )


def check_spectrograms(features: torch.Tensor, num_mel_bins: int, num_mel_frames: int) -> None:
    """Clips of sounds, (items, T, num_mel_bins, num_mel_frames)"""
    if features.ndim != 4 or features.shape[2:] != (num_mel_bins, num_mel_frames):
        raise ValueError(
            f"input_features must have shape (sounds, clips, {num_mel_bins}, {num_mel_frames}), "
            f"got {tuple(features.shape)}"
        )


def check_steps(features: torch.Tensor, num_tokens: int, width: int) -> None:
    """Features of frames or clips that were computed before, (items, T, num_tokens, width)"""
    if features.ndim != 4 or features.shape[2:] != (num_tokens, width):
        raise ValueError(
            f"features must have shape (items, steps, {num_tokens}, {width}), got {tuple(features.shape)}; they were "
            "computed by another model"
        )


def check_step_mask(steps: torch.Tensor, mask: torch.Tensor | None, name: str, item: str, step: str) -> None:
    """
    Sees to it that every item has a real step, without which there is nothing to attend to. While compiling, where
    values cannot be looked at, only shapes are checked.

    Args:
        steps (`torch.Tensor` of shape `(items, T, ...)`): What the mask is of.
        mask (`torch.Tensor` of shape `(items, T)`, bool, *optional*): `True` for real steps.
        name (`str`): Of the mask, as the caller knows it.
        item, step (`str`): What items and steps are called, such as "video" and "frame".

    Raises:
        ValueError: where an item has no real step, or the mask another shape; the message names the items.
    """
    num_items, num_steps = steps.shape[:2]
    if mask is not None and mask.shape != (num_items, num_steps):
        raise ValueError(
            f"{name} must have shape ({item}s, {step}s), here {(num_items, num_steps)}, got {tuple(mask.shape)}"
        )
    if num_items > 0 and num_steps == 0:
        raise ValueError(f"each {item} must have at least one {step}, got a tensor of shape {tuple(steps.shape)}")
    if mask is None or torch.compiler.is_compiling():
        return
    real = mask.bool().any(dim=1)
    if not real.all():
        empty = (~real).nonzero().flatten().tolist()
        which = f"{item} {empty[0]} has" if len(empty) == 1 else f"{item}s {', '.join(map(str, empty))} have"
        raise ValueError(
            f"{which} no real {step} (of {num_items}, counted from 0): {name} must be True for at least one {step} of "
            f"each {item}; leave the {item} out, together with its placeholders"
        )


def check_labels(labels: torch.Tensor, config: VideoLlamaConfig, ignore_index: int = -100) -> None:
    """
    Sees to it that labels are tokens that can be predicted. It reads one flag back from the device, as the comparison
    of placeholders and features does; while compiling, nothing is read.

    Args:
        labels (`torch.LongTensor` of shape `(B, S)`)
        config ([`VideoLlamaConfig`])
        ignore_index (`int`, defaults to -100): What stands where there is no loss.

    Raises:
        ValueError: for placeholders and other ids that get no logits; the message has ids, rows and the first place.
    """
    if torch.compiler.is_compiling():
        return
    limit = config.output_vocab_size or config.text_config.vocab_size
    wrong = (labels != ignore_index) & ((labels < 0) | (labels >= limit))
    if not wrong.any():
        return
    kinds = {getattr(config, f"{kind}_token_id"): f" ({kind} placeholder)" for kind in ("image", "video", "audio")}
    ids, counts = (values.tolist() for values in labels[wrong].unique(return_counts=True))
    listed = [f"{id}{kinds.get(id, '')} {count} times" for id, count in zip(ids, counts, strict=True)]
    more = [f"{len(listed) - NAMED_IDS} ids more"] if len(listed) > NAMED_IDS else []
    places = wrong.nonzero()
    raise ValueError(
        f"labels must be {ignore_index} or ids that the model can predict, 0 to {limit - 1}; got "
        f"{', '.join(listed[:NAMED_IDS] + more)}, in the rows {places[:, 0].unique().tolist()}, first at "
        f"labels{places[0].tolist()}; set labels of placeholders and of padding to {ignore_index}"
    )


def check_no_placeholders(input_ids: torch.Tensor, encoded: Collection[str], config: VideoLlamaConfig) -> None:
    """
    Sees to it that no placeholder stands in the text for an item that was not given: the model would read the
    placeholder's own embedding, and neither an answer nor a gradient would have seen the item. It reads one flag back
    from the device.

    Args:
        input_ids (`torch.LongTensor` of shape `(B, S)`)
        encoded (`Collection[str]`): The modalities that there are items of.
        config ([`VideoLlamaConfig`])

    Raises:
        ValueError: for placeholders of another modality; the message has their number and rows, and the arguments.
    """
    ids = {getattr(config, f"{kind}_token_id"): kind for kind in ITEM_ARGUMENTS if kind not in encoded}
    if not ids:
        return
    found = torch.isin(input_ids, torch.tensor(list(ids), device=input_ids.device))
    if not found.any():
        return
    modality = ids[int(input_ids[found][0])]
    places = input_ids == getattr(config, f"{modality}_token_id")
    raise ValueError(
        f"{modality.capitalize()} features and {modality} tokens do not match, tokens: {int(places.sum())}, in the "
        f"rows {places.any(dim=1).nonzero().flatten().tolist()} of input_ids, features: 0; pass what the processor "
        f"returns with these tokens ({' or '.join(ITEM_ARGUMENTS[modality])}), or leave them out of the text"
    )
