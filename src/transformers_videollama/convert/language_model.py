"""The language model: any causal one of the library, in the library's format."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from .errors import ConversionError
from .key_tables import BUFFERS, Ignored, KeyTable, Rule
from .sentence_pieces import SentencePieces
from .surgery import Vocabulary, grow_embeddings, grow_head


__all__ = [
    "LanguageModelNames",
    "language_model_table",
    "library_arguments",
    "read_json",
    "read_library_config",
    "tokenizer_size",
]


@dataclass(frozen=True)
class LanguageModelNames:
    """
    Names in the checkpoint of a causal language model.

    Args:
        prefix (`str`): stands before all names but the head's, with its dot.
        embeddings, head (`str`): the two tables.
        tied (`bool`): whether the embeddings are the head, too.
        unread (`tuple` of `str`): regular expressions of buffers that checkpoints hold and the model does not read.
    """

    prefix: str
    embeddings: str
    head: str
    tied: bool
    unread: tuple[str, ...]

    @property
    def stay_tied(self) -> bool:
        """Our model ties a table of this name; one of another name is written twice, which computes the same."""
        return self.tied and self.embeddings == f"{self.prefix}embed_tokens.weight"

    @classmethod
    def of(cls, text_config: PreTrainedConfig) -> "LanguageModelNames":
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(text_config)
        names = {id(module): name for name, module in model.named_modules()}
        return cls(
            prefix=f"{model.base_model_prefix}.",
            embeddings=f"{names[id(model.get_input_embeddings())]}.weight",
            head=f"{names[id(model.get_output_embeddings())]}.weight",
            tied=text_config.tie_word_embeddings,
            unread=tuple(model._keys_to_ignore_on_load_unexpected or ()),
        )


def language_model_table(names: LanguageModelNames, vocabulary: Vocabulary) -> KeyTable:
    """The language model's keys. They stay as they are, except for the prefix and the grown tables."""
    new_prefix = "model.language_model."
    embeddings = new_prefix + names.embeddings.removeprefix(names.prefix)
    rules = [
        Rule(names.embeddings, embeddings, partial(grow_embeddings, vocabulary=vocabulary)),
        Rule(f"{names.prefix}**", f"{new_prefix}**"),
    ]
    ignored = list(BUFFERS)
    if names.tied:
        ignored.append(Ignored(names.head, "the language model's head, which is its embeddings"))
    if not names.stay_tied:
        head = names.embeddings if names.tied else names.head
        rules.append(Rule(head, "lm_head.weight", partial(grow_head, vocabulary=vocabulary)))
    return KeyTable(tuple(rules), tuple(ignored), names.unread)


def library_arguments(path: Path) -> dict[str, Any]:
    """The arguments with which `from_pretrained` reads a folder in the library's format, or a GGUF file."""
    if path.is_dir():
        return {"pretrained_model_name_or_path": path}
    return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}


def read_library_config(path: Path) -> PreTrainedConfig:
    """
    Reads the configuration of a model in the library's format or in a GGUF file; code next to it is never run.

    Raises:
        ConversionError: if there is none, or the library does not know the model.
    """
    try:
        return AutoConfig.from_pretrained(**library_arguments(path), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConversionError(f"{path}: no configuration of a model that the library knows: {error}") from error


def tokenizer_size(folder: Path) -> int:
    """
    Counts the ids of a folder's tokenizer, added tokens included, from its files. (`len` of a loaded one would be the
    same, but for old folders loading depends on their `tokenizer_class` and on packages that reading does not need.)

    Raises:
        ConversionError: if the folder has no tokenizer, or its files cannot be read.
    """
    try:
        ids = [number for numbers in _token_ids(folder) for number in numbers]
    except ConversionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{folder}: the tokenizer's files cannot be read: {error}") from error
    if not ids:
        raise ConversionError(f"{folder}: no tokenizer.model, tokenizer.json or vocab.json")
    return max(ids) + 1


def _token_ids(folder: Path) -> Iterator[list[int]]:
    model = folder / "tokenizer.model"
    tokenizer = read_json(folder / "tokenizer.json")
    if tokenizer:
        vocabulary = tokenizer["model"]["vocab"]
        yield list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        yield [token["id"] for token in tokenizer.get("added_tokens", ())]
    elif model.exists():
        yield [SentencePieces.read(model).processor.get_piece_size() - 1]
    else:
        yield list(read_json(folder / "vocab.json").values())
    yield list(read_json(folder / "added_tokens.json").values())
    added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    yield [int(number) for number in added]


def read_json(path: Path) -> dict[str, Any]:
    """
    Reads a JSON object; one without entries where there is no such file.

    Raises:
        ConversionError: where the file is none.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConversionError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content
