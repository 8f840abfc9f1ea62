"""What the files of a language model say of a tokenizer of SentencePiece's kind, in a folder or in a GGUF file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from .errors import ConversionError
from .gguf_checkpoint import GgufCheckpoint
from .language_model import read_json
from .sentence_pieces import SentencePieces


__all__ = ["SpecialTokens", "TokenizerSource", "read_tokenizer_source"]

FLAGS = ("single_word", "lstrip", "rstrip", "special")


@dataclass(frozen=True)
class SpecialTokens:
    """Texts of those that a model has."""

    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    pad: str | None = None

    def or_those_of(self, other: "SpecialTokens") -> "SpecialTokens":
        """Old files name empty texts; they mean none."""
        return SpecialTokens(
            self.bos or other.bos, self.eos or other.eos, self.unk or other.unk, self.pad or other.pad
        )


@dataclass(frozen=True)
class TokenizerSource:
    """
    Args:
        pieces ([`SentencePieces`])
        special ([`SpecialTokens`])
        added (`Mapping`): id -> token that stands behind the pieces.
        model_max_length (`int`, *optional*)
        others (`Mapping`): name -> model of `tokenizers` that the files hold as well, and that should be the same.
    """

    pieces: SentencePieces
    special: SpecialTokens
    added: Mapping[int, AddedToken] = field(default_factory=dict)
    model_max_length: int | None = None
    others: Mapping[str, models.Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {*self.pieces.ids, *(token.content for token in self.added.values())}
        for name in ("bos", "eos", "unk"):
            text = getattr(self.special, name)
            if text is not None and text not in known:
                raise ConversionError(
                    f"{self.pieces.path}: has no piece {text!r}, and no token was added with this text, "
                    f"which is {name}_token in tokenizer_config.json or special_tokens_map.json"
                )


def read_tokenizer_source(llama: Path) -> TokenizerSource | None:
    """
    Args:
        llama (`Path`): a folder with a language model, or a GGUF file.

    Returns:
        [`TokenizerSource`], *optional*: `None` where the tokenizer is not of SentencePiece's kind.

    Raises:
        ConversionError: where a file is damaged or contradicts another.
    """
    if llama.is_file():
        return _of_gguf(GgufCheckpoint(llama))
    model = llama / "tokenizer.model"
    return _of_folder(llama, SentencePieces.read(model)) if model.is_file() else None


def _of_gguf(file: GgufCheckpoint) -> TokenizerSource | None:
    pieces = file.sentence_pieces
    if pieces is None:
        return None
    named = SpecialTokens(*map(file.special_token, ("bos", "eos", "unknown", "padding")))
    others = {"its list of merges": pieces.model(file.merges)} if file.merges else {}
    return TokenizerSource(pieces, named.or_those_of(_special_pieces(pieces)), others=others)


def _of_folder(folder: Path, pieces: SentencePieces) -> TokenizerSource:
    config, named = read_json(folder / "tokenizer_config.json"), read_json(folder / "special_tokens_map.json")
    special = _named(config).or_those_of(_named(named)).or_those_of(_special_pieces(pieces))
    length = config.get("model_max_length")
    fast = folder / "tokenizer.json"
    return TokenizerSource(
        pieces,
        special,
        _behind(pieces, _added_tokens(folder, config, named)),
        None if length is None else int(length),
        {fast.name: _model_of(fast)} if fast.is_file() else {},
    )


def _named(entries: Mapping[str, Any]) -> SpecialTokens:
    return SpecialTokens(*(_text(entries.get(f"{name}_token")) for name in ("bos", "eos", "unk", "pad")))


def _special_pieces(pieces: SentencePieces) -> SpecialTokens:
    return SpecialTokens(pieces.special("bos"), pieces.special("eos"), pieces.special("unk"))


def _text(token: Any) -> str | None:
    """Of a token that is a string or the state of an `AddedToken`."""
    return token.get("content") if isinstance(token, dict) else token


def _added_tokens(folder: Path, config: Mapping[str, Any], named: Mapping[str, Any]) -> dict[int, AddedToken]:
    """All that the files list, pieces or not; what says more of a token goes before what says less."""
    special = {_text(token) for token in [*named.values(), *config.values()] if isinstance(token, (str, dict))}
    for entries in (config, named):
        special |= {_text(token) for token in entries.get("additional_special_tokens") or ()}
    found: dict[int, Mapping[str, Any]] = {
        number: {"content": text, "special": text in special}
        for text, number in read_json(folder / "added_tokens.json").items()
    }
    found |= {token["id"]: token for token in read_json(folder / "tokenizer.json").get("added_tokens", ())}
    found |= {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    # Not normalised: what the text is cut at stands in it as it is, and not behind a space
    return {
        number: AddedToken(token["content"], normalized=False, **{flag: token.get(flag, False) for flag in FLAGS})
        for number, token in found.items()
    }


def _behind(pieces: SentencePieces, tokens: Mapping[int, AddedToken]) -> dict[int, AddedToken]:
    behind = {}
    for number, token in tokens.items():
        piece = pieces.ids.get(token.content)
        if piece != (number if number < len(pieces.ids) else None):
            instead = "another piece has that id" if piece is None else f"it has the id {piece}"
            raise ConversionError(
                f"{pieces.path.parent}: {token.content!r} was added with the id {number}, but in {pieces.path.name} "
                f"{instead}"
            )
        if number >= len(pieces.ids):
            behind[number] = token
    return behind


def _model_of(path: Path) -> models.Model:
    try:
        return Tokenizer.from_file(str(path)).model
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ConversionError(f"{path}: is incomplete, damaged or no tokenizer: {error}") from error
