"""The original's layout: two files of branches, and the language model with its tokenizer."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import save_torch_state_dict

from ..configuration_video_llama import VideoLlamaConfig
from ..convert import TOKENIZER_FILES, original_branch_state, read_json
from ..modeling_video_llama import VideoLlamaForConditionalGeneration
from ..processing_video_llama import VideoLlamaProcessor


__all__ = ["OriginalLanguageModel", "write_original"]

BRANCHES: tuple[Literal["video", "audio"], ...] = ("video", "audio")
# As the released files are called; the converter tells the prompt style by them
FILES_OF_LLAMA_2 = {"video": "VL_LLaMA_2_{}B_Finetuned.pth", "audio": "AL_LLaMA_2_{}B_Finetuned.pth"}
FILES_OF_VICUNA = {"video": "finetune-vicuna{}b.pth", "audio": "finetune_vicuna{}b_audiobranch.pth"}
LANGUAGE_MODEL = "llama"  # the folder that `llama_model` of the original's settings names
TABLES = ("model.embed_tokens.weight", "lm_head.weight")  # which have rows for placeholders here
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class OriginalLanguageModel:
    """
    The folder of the language model that a checkpoint was converted from; only its weights are written anew.

    Args:
        folder (`Path`)
        config (`dict`): of its `config.json`.
    """

    folder: Path
    config: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "OriginalLanguageModel":
        """
        Raises:
            ValueError: if the folder does not hold what the original loads: a LLaMA with its `tokenizer.model`.
        """
        for name in ("config.json", "tokenizer.model"):
            if not (folder / name).is_file():
                raise ValueError(
                    f"{folder}: has no {name}; expected the folder of the language model that the checkpoint was "
                    "converted from, whose tokenizer the original needs"
                )
        config = read_json(folder / "config.json")
        if config.get("model_type") != "llama":
            raise ValueError(f"{folder}: holds a {config.get('model_type')}; the original loads LLaMA alone")
        return cls(folder, config)

    def check(self, config: VideoLlamaConfig) -> None:
        """
        Raises:
            ValueError: if the language model of `config` is another one.
        """
        text = config.get_text_config()
        wanted = {name: getattr(text, name, None) for name in SIZES} | {"vocab_size": config.output_vocab_size}
        for name, value in {"model_type": text.model_type, **wanted}.items():
            if self.config.get(name) != value:
                raise ValueError(
                    f"{self.folder}: {name} is {self.config.get(name)}, in the model {value}; expected the language "
                    "model that the checkpoint was converted from"
                )


def write_original(
    model: VideoLlamaForConditionalGeneration,
    processor: VideoLlamaProcessor,
    original: OriginalLanguageModel,
    folder: Path,
    max_shard_size: int,
) -> None:
    """
    Writes the branches of a model as the original's `VL_*.pth` and `AL_*.pth`, and its language model.

    Args:
        model ([`VideoLlamaForConditionalGeneration`])
        processor ([`VideoLlamaProcessor`])
        original ([`OriginalLanguageModel`]): one that was checked.
        folder (`Path`): exists.
        max_shard_size (`int`): Bytes of a file of the language model.
    """
    state = model.state_dict()
    names = FILES_OF_LLAMA_2 if processor.stop_string is None else FILES_OF_VICUNA
    billions = round(model.model.language_model.num_parameters() / 1e9)
    for branch in BRANCHES:
        if getattr(model.model, f"{branch}_resampler") is not None:
            (named,) = original_branch_state(state, branch).values()
            # A copy, since torch.save writes the whole memory that a tensor is a part of
            whole = {"model": {name: tensor.clone() for name, tensor in named.items()}}
            torch.save(whole, folder / names[branch].format(billions))
    llama = folder / LANGUAGE_MODEL
    llama.mkdir()
    dtype = str(model.dtype).removeprefix("torch.")
    config = {**{name: value for name, value in original.config.items() if name != "dtype"}, "torch_dtype": dtype}
    (llama / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (original.folder / name).is_file():
            shutil.copyfile(original.folder / name, llama / name)
    save_torch_state_dict(_language_state(state, original.config["vocab_size"]), llama, max_shard_size=max_shard_size)


def _language_state(state: Mapping[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """The language model's weights under its own names, without the rows that the conversion added."""
    start = "model.language_model."
    named = {f"model.{key.removeprefix(start)}": tensor for key, tensor in state.items() if key.startswith(start)}
    named["lm_head.weight"] = state["lm_head.weight"]
    return {name: tensor[:rows].clone() if name in TABLES else tensor for name, tensor in named.items()}
