"""What `test_exported_code.py` does in interpreters without the package: loads folders that carry their code."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from every_chat import ask_conversation, ask_every_chat, ask_pipeline, read_chats
from transformers.dynamic_module_utils import get_class_from_dynamic_module


__all__ = ["AUTO_CLASSES", "REPOSITORY", "load_and_save", "load_saved"]

AUTO_CLASSES = (
    "AutoConfig",
    "AutoFeatureExtractor",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoProcessor",
    "AutoVideoProcessor",
)
REPOSITORY = "org/tiny-1.0"


def load_and_save(chats_file: str, folder: str, other: str, revision: str, saved: str) -> None:
    """`other` is a folder with another version of the code; `saved` is for what is saved from `folder` and the Hub."""
    sys.modules["transformers_videollama"] = None  # type: ignore[assignment]  # from here on, importing it fails
    chats = read_chats(chats_file)
    few = {"video with sound": chats["video with sound"]}
    found: dict[str, Any] = {"untrusted": [_refusal(auto, folder) for auto in ("AutoConfig", "AutoModel")]}
    found["modules"] = sorted({type(_load(auto, folder)).__module__ for auto in AUTO_CLASSES})
    local = _model_and_processor(folder)
    found["answers"] = ask_every_chat(*local, chats)
    found["tokens"] = _load("AutoTokenizer", folder)("What?")["input_ids"]
    pipe = transformers.pipeline("any-to-any", model=folder, trust_remote_code=True)
    found["pipeline"] = ask_pipeline(pipe, {name: chat for name, chat in chats.items() if name != "batch"})
    conversation = get_class_from_dynamic_module("video_llama.VideoLlamaConversation", folder)
    found["conversation"] = ask_conversation(conversation(*local), chats)

    of_the_hub = _model_and_processor(REPOSITORY)
    found["modules of the Hub"] = _modules(*of_the_hub)
    found["answers of the Hub"] = ask_every_chat(*of_the_hub, chats)
    found["modules of the revision"] = _modules(*_model_and_processor(REPOSITORY, revision=revision))
    another = _model_and_processor(other)
    found["modules of the other"] = _modules(*another)
    found["few of the other"] = ask_every_chat(*another, few)
    for name, parts in {"folder": local, "Hub": of_the_hub}.items():
        for part in parts:
            part.save_pretrained(Path(saved) / name)

    del sys.modules["transformers_videollama"]
    import transformers_videollama  # noqa: F401

    of_the_package = _model_and_processor(folder)
    found["modules of the package"] = _modules(*of_the_package)
    found["few of the package"] = ask_every_chat(*of_the_package, few)
    found["few with the package"] = ask_every_chat(*local, few)
    print(json.dumps(found))


def load_saved(chats_file: str, saved: str) -> None:
    """What was saved there, each in a folder."""
    sys.modules["transformers_videollama"] = None  # type: ignore[assignment]
    chats, found = read_chats(chats_file), {}
    for name, asked in {"folder": chats, "Hub": {"batch": chats["batch"]}}.items():
        loaded = _model_and_processor(str(Path(saved) / name))
        found[name] = {"modules": _modules(*loaded), "answers": ask_every_chat(*loaded, asked)}
    print(json.dumps(found))


def _load(auto: str, source: str, **options: Any) -> Any:
    return getattr(transformers, auto).from_pretrained(source, trust_remote_code=True, **options)


def _model_and_processor(source: str, **options: Any) -> tuple[torch.nn.Module, Any]:
    return _load("AutoModelForMultimodalLM", source, **options).eval(), _load("AutoProcessor", source, **options)


def _modules(model: Any, processor: Any) -> list[str]:
    """The modules that the classes are of, each once."""
    parts = (processor.image_processor, processor.video_processor, processor.feature_extractor)
    return sorted({type(part).__module__ for part in (model.config, model, processor, *parts)})


def _refusal(auto: str, source: str) -> str:
    try:
        loaded = getattr(transformers, auto).from_pretrained(source, trust_remote_code=False)
    except ValueError as error:
        return str(error)
    return f"loaded {type(loaded)}"
