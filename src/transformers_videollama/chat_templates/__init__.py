"""The prompt styles of Video-LLaMA as chat templates."""

from importlib.resources import files
from typing import Literal


__all__ = ["PromptStyle", "load_chat_template"]

PromptStyle = Literal["llama-2", "vicuna"]


def load_chat_template(style: PromptStyle) -> str:
    """
    Returns the Jinja chat template of a prompt style: what is common to the styles, then the style's own part.

    Args:
        style (`str`): "llama-2" for the Video-LLaMA-2 checkpoints, "vicuna" for those before.

    Raises:
        ValueError: for another style.
    """
    if style not in ("llama-2", "vicuna"):
        raise ValueError(f'style must be "llama-2" or "vicuna", got {style!r}')
    folder = files(__name__)
    return "".join((folder / f"{name}.jinja").read_text(encoding="utf-8") for name in ("media", style))
