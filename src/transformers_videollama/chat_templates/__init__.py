"""The prompt styles of Video-LLaMA as chat templates."""

from importlib.resources import files
from typing import Literal, get_args


__all__ = ["PromptStyle", "TrainingStyle", "load_chat_template"]

PromptStyle = Literal["llama-2", "vicuna"]
TrainingStyle = Literal["caption", "vicuna-training"]


def load_chat_template(style: PromptStyle | TrainingStyle) -> str:
    """
    Returns the Jinja chat template of a prompt style: what is common to the styles, then the style's own part.

    Args:
        style (`str`): "llama-2" for the Video-LLaMA-2 checkpoints, "vicuna" for the older ones, "caption" for the text
            before a caption in pre-training, "vicuna-training" for the text of instruction tuning before
            Video-LLaMA-2 (Video-LLaMA-2 itself uses "llama-2" there, too).

    Raises:
        ValueError: for another style.
    """
    styles = (*get_args(PromptStyle), *get_args(TrainingStyle))
    if style not in styles:
        raise ValueError(f"style must be one of {styles}, got {style!r}")
    folder = files(__name__)
    return "".join((folder / f"{name}.jinja").read_text(encoding="utf-8") for name in ("media", style))
