"""The tokenizer of a converted checkpoint: the ids that SentencePiece gives, and the placeholders."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..processing_video_llama import PLACEHOLDER_TOKENS
from .errors import ConversionError
from .language_model import library_arguments
from .sentence_pieces import SPACE
from .tokenizer_check import check_tokenizer
from .tokenizer_sources import SpecialTokens, TokenizerSource, read_tokenizer_source


__all__ = ["build_tokenizer"]

PLACEHOLDERS = tuple(PLACEHOLDER_TOKENS.values())
# The chat templates break typed tokens up with this noncharacter, so that they stay text.
BREAK = "\ufdd0"


def build_tokenizer(llama: Path, first_placeholder_id: int) -> PreTrainedTokenizerFast:
    """
    Makes the tokenizer of a converted checkpoint from that of its language model. Where that is one of SentencePiece,
    whatever else the files say, it is made of the pieces and scores alone, and [`check_tokenizer`] compares.

    Args:
        llama (`Path`): a folder that has `tokenizer.model` or `tokenizer.json`, or a GGUF file.
        first_placeholder_id (`int`): id of `<image>`; `<video>` and `<audio>` follow.

    Returns:
        `PreTrainedTokenizerFast`: pads on the left with `<unk>` if the source names no padding token.

    Raises:
        ConversionError: where the placeholders cannot get these ids, a file is damaged, or a text gets other ids than
            SentencePiece gives it.
        OSError, ValueError: where the library cannot read a tokenizer of another kind.
    """
    source = read_tokenizer_source(llama)
    if source is None:
        backend, special, settings = _of_library(llama)
    else:
        backend, special, settings = _of_pieces(source)
    _add_placeholders(backend, llama, first_placeholder_id)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special.bos,
        eos_token=special.eos,
        unk_token=special.unk,
        pad_token=special.pad or special.unk or special.eos,
        additional_special_tokens=list(PLACEHOLDERS),
        add_bos_token=special.bos is not None,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **settings,
    )
    if source is not None:
        check_tokenizer(tokenizer, source)
    return tokenizer


def _of_pieces(source: TokenizerSource) -> tuple[Tokenizer, SpecialTokens, dict[str, Any]]:
    pieces, special = source.pieces, source.special
    backend = Tokenizer(pieces.model())
    backend.normalizer = normalizers.Sequence([normalizers.Replace(BREAK, ""), *pieces.normalizers()])
    backend.decoder = pieces.decoder()
    named = [token for token in (special.unk, special.bos, special.eos, *pieces.control) if token is not None]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in named])
    # Normalised, as SentencePiece looks for them; a space before the text would become one before the token
    normalized = not pieces.puts_a_space_before
    backend.add_tokens([AddedToken(token, normalized=normalized) for token in pieces.user_defined])
    for number, token in sorted(source.added.items()):
        _fill_up(backend, number)
        backend.add_tokens([token])
    known = backend.token_to_id(special.pad or "") is not None
    special = special if known else SpecialTokens(special.bos, special.eos, special.unk)
    length = source.model_max_length
    return backend, special, {} if length is None else {"model_max_length": length}


def _of_library(llama: Path) -> tuple[Tokenizer, SpecialTokens, dict[str, Any]]:
    source = AutoTokenizer.from_pretrained(**library_arguments(llama))
    if not isinstance(source, PreTrainedTokenizerFast):
        raise ConversionError(f"{llama}: the tokenizer is a {type(source).__name__}, expected one of `tokenizers`")
    backend = Tokenizer.from_str(source.backend_tokenizer.to_str())
    _set_original_spaces(backend)
    special = SpecialTokens(source.bos_token, source.eos_token, source.unk_token, source.pad_token)
    return backend, special, {"model_max_length": source.model_max_length}


def _add_placeholders(backend: Tokenizer, llama: Path, first_id: int) -> None:
    num_tokens = backend.get_vocab_size()
    _fill_up(backend, first_id)
    backend.add_special_tokens([AddedToken(token, special=True) for token in PLACEHOLDERS])
    ids = [backend.token_to_id(token) for token in PLACEHOLDERS]
    if ids != list(range(first_id, first_id + len(PLACEHOLDERS))):
        raise ConversionError(
            f"{llama}: the placeholders {PLACEHOLDERS} got the token ids {ids}, expected them to start at "
            f"{first_id}; the tokenizer has {num_tokens} tokens and holds some of them already"
        )


def _fill_up(backend: Tokenizer, size: int) -> None:
    """Rows of the embedding table that no token of the source has, so that ids are those of the table."""
    missing = range(backend.get_vocab_size(), size)
    backend.add_special_tokens([AddedToken(f"<unused_{number}>", special=True) for number in missing])


def _set_original_spaces(backend: Tokenizer) -> None:
    """
    Every piece of text between media gets SentencePiece's leading space, as in the original, whatever the source's
    `legacy` says: `Metaspace` would leave it out where a piece starts with a space already. A tokenizer that is not
    LLaMA's, or puts no space before a text, keeps its own way.
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace(BREAK, "")]
    if getattr(backend.model, "byte_fallback", False) and _puts_a_space_before(backend):
        backend.pre_tokenizer = None
        steps += [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        backend.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
        )
        _find_as_written(backend)
    elif backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)


def _find_as_written(backend: Tokenizer) -> None:
    """Added tokens that are looked for in normalised text would only be found with a space before them."""
    for token in backend.get_added_tokens_decoder().values():
        flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip")}
        same = AddedToken(token.content, normalized=False, special=token.special, **flags)
        (backend.add_special_tokens if token.special else backend.add_tokens)([same])


def _puts_a_space_before(backend: Tokenizer) -> bool:
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        return backend.pre_tokenizer.prepend_scheme != "never"
    return "Prepend" in repr(backend.normalizer)
