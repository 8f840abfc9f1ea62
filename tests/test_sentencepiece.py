"""
Token ids are SentencePiece's own: of a vocabulary of LLaMA's size that has pieces of whitespace, as LLaMA's has, which
come last when pieces are merged by score, and first in the order of ids.
"""

import io
import itertools
import json
import random
import re
import sysconfig
from pathlib import Path

import pytest
import sentencepiece
from test_conversion_gguf import write_tokenizer
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from transformers_videollama.convert import ConversionError
from transformers_videollama.convert.sentence_pieces import SentencePieces
from transformers_videollama.convert.tokenizer import build_tokenizer
from transformers_videollama.convert.tokenizer_check import TEXTS, prompts


VOCABULARY = 32_000
WHITESPACE = ["▁" * length for length in range(2, 17)]
FIRST_WHITESPACE = 259  # ids of "▁▁", and with steps of 40 of the others
CORPUS = (
    "日本語のテキストです。中文文本，两个句子。한국어 문장입니다.",
    "这个视频里有什么？你能听到什么声音？研究生命的起源。",
    "Ünïcödé: é Å ½ Ω ж ש ع ไ 😀 👍 ☃",
)
SETTINGS = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LEGACY = {
    "true": SETTINGS | {"legacy": True},
    "false": SETTINGS | {"legacy": False},
    "absent": SETTINGS,
    "no file": None,
}
MARKS = re.compile("(<s>|</s>|<image>|<video>|<audio>)")


def train(lines, **options) -> bytes:
    """Trains a model of LLaMA's kind."""
    model = io.BytesIO()
    defaults = {
        "model_type": "bpe",
        "byte_fallback": True,
        "split_digits": True,
        "character_coverage": 1.0,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "num_threads": 2,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **(defaults | options))
    return model.getvalue()


def edit(content: bytes, change) -> bytes:
    parsed = SentencePieces(Path("a.model"), content).parsed
    change(parsed)
    return parsed.SerializeToString()


def library() -> list[str]:
    """Python's own modules: lines of code and of English."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [
        *sorted(folder.glob("*.py")),
        *sorted(folder.glob("encodings/*.py")),
        *sorted(folder.glob("asyncio/*.py")),
    ]
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def insert_whitespace(model) -> None:
    pieces = list(model.pieces)
    for number, whitespace in enumerate(WHITESPACE):
        pieces.insert(FIRST_WHITESPACE + 40 * number, type(pieces[0])(piece=whitespace, score=-1e9))
    del model.pieces[:]
    model.pieces.extend(pieces)


@pytest.fixture(scope="module")
def large() -> bytes:
    """32,000 pieces."""
    content = train([*CORPUS, *library()], vocab_size=VOCABULARY - len(WHITESPACE))
    return edit(content, insert_whitespace)


@pytest.fixture(scope="module")
def large_processor(large):
    return sentencepiece.SentencePieceProcessor(model_proto=large)


@pytest.fixture(scope="module")
def random_texts() -> list[str]:
    generator = random.Random(0)
    alphabet = sorted(set("".join(TEXTS))) + [" "] * 40
    words = [*"".join(TEXTS).split(), *(" " * length for length in range(1, 20))]
    texts = ["".join(generator.choices(alphabet, k=generator.randint(1, 60))) for _ in range(250)]
    return texts + ["".join(generator.choices(words, k=generator.randint(1, 12))) for _ in range(250)]


def folder_with(path: Path, model: bytes, **files) -> Path:
    path.mkdir(exist_ok=True)
    (path / "tokenizer.model").write_bytes(model)
    (path / "config.json").write_text('{"model_type": "llama"}')
    for name, content in files.items():
        if content is not None:
            (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def merges(pieces: list[tuple[str, float]], key) -> list[tuple[str, str]]:
    """All pairs that become a piece, in the order of `key` of (left, right, score, id)."""
    known = {piece: (score, number) for number, (piece, score) in enumerate(pieces)}
    found = [(piece[:i], piece[i:], *known[piece]) for piece in known for i in range(1, len(piece))]
    return [pair[:2] for pair in sorted((p for p in found if p[0] in known and p[1] in known), key=key)]


def by_score(pair):
    return -pair[2], -len(pair[0])


def by_id(pair):
    return pair[3]


def tokenizer_json(model: bytes, key) -> dict:
    """As the library writes it, with the pairs of pieces in that order."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    vocabulary = {piece: number for number, (piece, _) in enumerate(pieces)}
    pairs = merges(pieces[FIRST_WHITESPACE:], key)
    backend = Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return json.loads(backend.to_str())


def ids_of(processor, text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """One id for the start; each text between media is tokenised on its own."""
    parts = [part for part in MARKS.split(text) if part]
    return [1] + [
        number
        for part in parts
        for number in ([tokenizer.convert_tokens_to_ids(part)] if MARKS.match(part) else processor.encode(part))
    ]


def assert_same_ids(tokenizer, processor, texts) -> None:
    for text in itertools.chain(TEXTS, prompts(tokenizer), texts):
        assert tokenizer.encode(text) == ids_of(processor, text, tokenizer), text


def test_the_vocabulary_shows_the_order(large, large_processor):
    """A space and a word become one piece before two spaces do, although those have a lower id."""
    assert len(large_processor) == VOCABULARY
    assert large_processor.piece_to_id("▁▁") == FIRST_WHITESPACE < large_processor.piece_to_id("▁What")
    assert large_processor.encode("</Image>  What", out_type=str)[-2:] == ["▁", "▁What"]
    assert large_processor.encode("a  1", out_type=str)[-2:] == ["▁▁", "1"]


@pytest.mark.parametrize("settings", LEGACY.values(), ids=LEGACY)
def test_ids_from_tokenizer_model_alone(tmp_path, large, large_processor, random_texts, settings):
    folder = folder_with(tmp_path / "llama", large, tokenizer_config=settings)
    build_tokenizer(folder, VOCABULARY).save_pretrained(tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert_same_ids(tokenizer, large_processor, random_texts)
    assert tokenizer.convert_tokens_to_ids(["<image>", "<video>", "<audio>"]) == [32_000, 32_001, 32_002]
    for text in random_texts:
        text = text.replace("▁", "").replace("\ufdd0", "")
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_ids_from_a_gguf_file(tmp_path, large, large_processor, random_texts):
    (tmp_path / "tokenizer.model").write_bytes(large)
    path = write_tokenizer(tmp_path / "a.gguf", tmp_path / "tokenizer.model")
    assert_same_ids(build_tokenizer(path, VOCABULARY), large_processor, random_texts)


def test_the_right_tokenizer_json_is_compared(tmp_path, large, large_processor, random_texts):
    fast = tokenizer_json(large, by_score)
    folder = folder_with(tmp_path, large, tokenizer_config=LEGACY["false"], tokenizer=fast)
    assert_same_ids(build_tokenizer(folder, VOCABULARY), large_processor, random_texts)


def test_a_wrong_tokenizer_json_stops(tmp_path, large, large_processor):
    """As the library makes it of `tokenizer.model`: the message has the text and both lists of ids."""
    fast = tokenizer_json(large, by_id)
    folder = folder_with(tmp_path, large, tokenizer_config=LEGACY["false"], tokenizer=fast)
    with pytest.raises(ConversionError, match=r"by tokenizer\.json; keep the one that the model") as caught:
        build_tokenizer(folder, VOCABULARY)
    found = re.search(
        r"the text '(.*)' has the token ids (\[.*\]) by SentencePiece and (\[.*\]) by", str(caught.value)
    )
    assert json.loads(found[2]) == large_processor.encode(found[1])
    assert json.loads(found[3]) != json.loads(found[2])
    assert str(folder / "tokenizer.model") in str(caught.value)
