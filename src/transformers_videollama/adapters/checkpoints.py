"""Where the parts of a checkpoint and of what was trained lie, and loading them, with errors that name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError


__all__ = ["load_checkpoint", "processor_source"]

PROCESSOR_FILE = "processor_config.json"
RUN_CHECKPOINT = "checkpoint-"  # how the Trainer names the folders of a run


def load_checkpoint(model: str | Path, auto_class: str, **options: Any) -> Any:
    """
    Args:
        model (`str` or `Path`): folder of a checkpoint, or its id on the Hub.
        auto_class (`str`): "AutoProcessor", "AutoModelForMultimodalLM", ...
        options: for its `from_pretrained`.

    Raises:
        ValueError: if it cannot be loaded; the message names `model`, which the library's does not always do.
    """
    try:
        return getattr(transformers, auto_class).from_pretrained(model, **options)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ValueError(f"the model {model} cannot be loaded: {error}") from error


def processor_source(model: str | Path, adapter: str | Path | None, branches: Sequence[str | Path]) -> str | Path:
    """
    The folder whose processor belongs to what was trained, since training saves the settings that it used: that of
    the adapter, or of the first branch that has a processor next to it, otherwise the model's.

    Args:
        model, adapter, branches: as in [`load_trained`]; `model` is a folder or an id on the Hub.
    """
    for trained in (adapter, *branches):
        if trained is None:
            continue
        folder = Path(trained) if Path(trained).is_dir() else Path(trained).parent
        run = (folder.absolute().parent,) if folder.name.startswith(RUN_CHECKPOINT) else ()
        for place in (folder, *run):
            if (place / PROCESSOR_FILE).is_file():
                return place
    return model
