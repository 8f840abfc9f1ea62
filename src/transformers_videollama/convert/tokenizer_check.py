"""
Whether a tokenizer gives the ids that SentencePiece gives: a battery of texts, every prompt of both styles, every
piece of the vocabulary among others, and texts that several pieces of the same score could be merged from.
"""

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from ..chat_templates import PromptStyle, load_chat_template
from .errors import ConversionError
from .sentence_pieces import SPACE, SentencePieces
from .tokenizer_sources import TokenizerSource


__all__ = ["TEXTS", "check_tokenizer", "prompts"]

TEXTS = (
    "",
    " ",
    "Hello world",
    "What is the dog doing?",
    "two  spaces, three   spaces, four    spaces",
    "  leading and trailing  ",
    *(" " * count for count in range(2, 40)),
    *("a" + " " * count + "b" for count in range(2, 40)),
    "\n",
    "a line\nanother\n\nand a third\n\n\nand\r\na fifth\n",
    "a\ttab, \t\ttwo tabs,\n\tand one at the start of a line",
    "emoji 😀👍🏽👩‍👩‍👧 and ☃️, 🎬🎧",
    "日本語のテキストです。中文文本，两个句子。한국어 문장입니다.",
    "这个视频里有什么？你能听到什么声音？中国人民，生命起源，研究生命的起源。",
    "Ünïcödé: é ﬁ Å ½ Ω ж ש ع ไ ＡＢＣ e\u0301",
    "▁ is how pieces spell a space, ▁▁ two",
    "0 1 12 123 1234 12345 3.14159 1,000,000 0x7F 1e-9 2026-11-27",
    "at 0.0, 1.2, 2.5, 3.8, 5.0, 6.2, 7.5, 8.8 seconds",
    "def main(argv=None) -> int:\n    if argv:\n        return {'a': [1, 2]}['a'][0]  # why?\n\n\tpass\n",
    '<div class="a">&nbsp;</div> https://example.org/a?b=c&d=%20#e C:\\new\\table',
    "### Human: ###Assistant: [INST] <<SYS>> <</SYS>> [/INST] <Video></Video> <Image></Image>",
    "<0x0A> <0xE2><0x96><0x81>",
    "a\x00b\x07c\u00a0d\u200be\u3000f",
    "aaaaaaaaaaaaaaaa ababababab ============ ---------- ________ ........ !!!!!!!!",
    "ALL CAPITALS, camelCase, snake_case, kebab-case, don't, it's, we'll",
)
PIECES_A_TEXT = 6
MAX_EQUAL_CHOICES = 20_000
SEED = 2306
TIMES = [0.0, 1.2, 2.5, 3.8, 5.0, 6.2, 7.5, 8.8]
MEDIA: tuple[tuple[dict[str, Any], ...], ...] = (
    (),
    ({"type": "image"},),
    ({"type": "video", "timestamps": TIMES},),
    ({"type": "video"},),
    ({"type": "audio"},),
    ({"type": "audio"}, {"type": "video"}),
    ({"type": "image"}, {"type": "image"}, {"type": "video", "timestamps": TIMES[:3]}),
)


def check_tokenizer(tokenizer: PreTrainedTokenizerFast, source: TokenizerSource) -> None:
    """
    Args:
        tokenizer (`PreTrainedTokenizerFast`): made of the source, with the placeholders.
        source ([`TokenizerSource`])

    Raises:
        ConversionError: for the first text whose ids are not those that SentencePiece gives each part of it that
            stands between added tokens, behind one id for its start; or are others by a model of `source.others`.
    """
    encode = source.pieces.processor.encode
    equal = itertools.islice(dict.fromkeys(source.pieces.equal_choices()), MAX_EQUAL_CHOICES)
    texts = [*TEXTS, *prompts(tokenizer), *texts_of_pieces(source.pieces), *equal]
    start = [] if tokenizer.bos_token is None else [tokenizer.bos_token_id]
    for text, parts in zip(texts, _split(texts, tokenizer, source.pieces), strict=True):
        expected = start + [number for part in parts for number in (encode(part) if isinstance(part, str) else [part])]
        _compare(source, text, expected, tokenizer.backend_tokenizer.encode(text).ids)
    for name, model in source.others.items():
        other = Tokenizer(model)
        other.normalizer = tokenizer.backend_tokenizer.normalizer
        for parts in _split(texts, tokenizer, source.pieces):
            for part in parts:
                if isinstance(part, str):
                    _compare(source, part, encode(part), other.encode(part, add_special_tokens=False).ids, name)


def prompts(tokenizer: PreTrainedTokenizerFast) -> Iterator[str]:
    """Every prompt of both styles, of one turn and of two, with and without media; without the token of the start."""
    for style in get_args(PromptStyle):
        for blocks in MEDIA:
            question: dict[str, Any] = {
                "role": "user",
                "content": [*blocks, {"type": "text", "text": "What is the dog doing?"}],
            }
            answer = {"role": "assistant", "content": "It rides a skateboard."}
            again = {"role": "user", "content": "Which colour is it, and what can you hear?"}
            chats: Any = ([question], [question, answer, again])
            for chat in chats:
                text = tokenizer.apply_chat_template(
                    chat, chat_template=load_chat_template(style), tokenize=False, add_generation_prompt=True
                )
                yield text.removeprefix(tokenizer.bos_token or "")


def texts_of_pieces(pieces: SentencePieces) -> Iterator[str]:
    """All pieces, some in each text, in an order that is always the same."""
    known = [*pieces.scores, *pieces.user_defined]
    random.Random(SEED).shuffle(known)
    for start in range(0, len(known), PIECES_A_TEXT):
        yield "".join(known[start : start + PIECES_A_TEXT]).replace(SPACE, " ")


def _split(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, pieces: SentencePieces
) -> Iterator[list[str | int]]:
    """Each text as its parts between added tokens, and their ids. Such tokens of SentencePiece's own are text."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    for piece in pieces.user_defined:
        added.pop(piece, None)
    longest_first = sorted(added, key=len, reverse=True)
    tokens = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
    for text in texts:
        yield [added.get(part, part) for part in tokens.split(text) if part]


def _compare(
    source: TokenizerSource, text: str, expected: list[int], found: list[int], other: str | None = None
) -> None:
    if found == expected:
        return
    path = source.pieces.path
    if other is None:
        by = "the tokenizer made of its pieces"
        advice = "no order of merges comes to the same, and this vocabulary cannot be converted"
    else:
        by = other
        advice = "keep the one that the model was trained with, which of the released models is tokenizer.model"
    raise ConversionError(
        f"{path}: the text {text!r} has the token ids {expected} by SentencePiece and {found} by {by}; {advice}"
    )
