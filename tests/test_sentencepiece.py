"""
Token ids are SentencePiece's own: of a vocabulary of LLaMA's size that has pieces of whitespace, as LLaMA's has, which
come last when pieces are merged by score, and first in the order of ids.
"""

import io
import itertools
import json
import random
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
import sentencepiece
from gguf_files import write_tokenizer
from tiny_conversions import CHECKPOINTS, HEADS, LLAMA
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from transformers_videollama.convert import ConversionError
from transformers_videollama.convert.command import main
from transformers_videollama.convert.language_model import tokenizer_size
from transformers_videollama.convert.sentence_pieces import SentencePieces
from transformers_videollama.convert.tokenizer import build_tokenizer
from transformers_videollama.convert.tokenizer_check import TEXTS, prompts


VOCABULARY, SMALL = 32_000, 2_000
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
def lines() -> list[str]:
    return [*CORPUS, *library()]


@pytest.fixture(scope="module")
def large(lines) -> bytes:
    """32,000 pieces."""
    return edit(train(lines, vocab_size=VOCABULARY - len(WHITESPACE)), insert_whitespace)


@pytest.fixture(scope="module")
def small(lines) -> bytes:
    """Another of the same kind, for what does not depend on the size."""
    return edit(train(lines[:8000], vocab_size=SMALL - len(WHITESPACE)), insert_whitespace)


@pytest.fixture(scope="module")
def small_processor(small):
    return sentencepiece.SentencePieceProcessor(model_proto=small)


@pytest.fixture(scope="module")
def random_texts() -> list[str]:
    generator = random.Random(0)
    alphabet = sorted(set("".join(TEXTS))) + [" "] * 40
    words = [*"".join(TEXTS).split(), *(" " * length for length in range(1, 20))]
    texts = ["".join(generator.choices(alphabet, k=generator.randint(1, 60))) for _ in range(250)]
    return texts + ["".join(generator.choices(words, k=generator.randint(1, 12))) for _ in range(250)]


def folder_with(path: Path, model: bytes, **files) -> Path:
    """A folder of a language model, without its weights; `files` are those that end in .json."""
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


@pytest.mark.parametrize("settings", LEGACY.values(), ids=LEGACY)
def test_ids_from_tokenizer_model_alone(tmp_path, large, random_texts, settings):
    folder = folder_with(tmp_path / "llama", large, tokenizer_config=settings)
    build_tokenizer(folder, VOCABULARY).save_pretrained(tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    assert_same_ids(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=large), random_texts)
    assert tokenizer.convert_tokens_to_ids(["<image>", "<video>", "<audio>"]) == [32_000, 32_001, 32_002]
    for text in random_texts:
        text = text.replace("▁", "").replace("\ufdd0", "")
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_vocabularies_show_the_order(large, small):
    """A space and a word become one piece before two spaces do, although those have a lower id."""
    for model, size in ((large, VOCABULARY), (small, SMALL)):
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        assert len(processor) == size
        assert processor.piece_to_id("▁▁") == FIRST_WHITESPACE < processor.piece_to_id("▁is")
        assert processor.encode("</Image>  is", out_type=str)[-2:] == ["▁", "▁is"]
        assert processor.encode("a  1", out_type=str)[-2:] == ["▁▁", "1"]


@pytest.mark.parametrize("listed", [None, "by_score"])
def test_ids_from_a_gguf_file(tmp_path, small, small_processor, random_texts, listed):
    (tmp_path / "tokenizer.model").write_bytes(small)
    pairs = () if listed is None else tokenizer_json(small, by_score)["model"]["merges"]
    path = write_tokenizer(tmp_path / "a.gguf", tmp_path / "tokenizer.model", [" ".join(pair) for pair in pairs])
    assert_same_ids(build_tokenizer(path, SMALL), small_processor, random_texts)


def test_other_merges_in_a_gguf_file_stop(tmp_path, small):
    (tmp_path / "tokenizer.model").write_bytes(small)
    pairs = tokenizer_json(small, by_id)["model"]["merges"]
    path = write_tokenizer(tmp_path / "a.gguf", tmp_path / "tokenizer.model", [" ".join(pair) for pair in pairs])
    with pytest.raises(ConversionError, match=r"a\.gguf: the text .* by its list of merges; keep the one"):
        build_tokenizer(path, SMALL)


def test_the_right_tokenizer_json_is_compared(tmp_path, small, small_processor, random_texts):
    fast = tokenizer_json(small, by_score)
    folder = folder_with(tmp_path, small, tokenizer_config=LEGACY["false"], tokenizer=fast)
    assert_same_ids(build_tokenizer(folder, SMALL), small_processor, random_texts)


@pytest.mark.parametrize("name", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_tokenizer_json_alone(tmp_path, small, small_processor, random_texts, name):
    """Old ones say that special tokens are to be looked for in normalised text, in which a space is before them."""
    fast = tokenizer_json(small, by_score)
    fast["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}
    fast["normalizer"]["normalizers"].append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    for token in fast["added_tokens"]:
        token["normalized"] = True
    settings = SETTINGS | {"tokenizer_class": name}
    folder = folder_with(tmp_path, small, tokenizer_config=settings, tokenizer=fast)
    (folder / "tokenizer.model").unlink()
    assert_same_ids(build_tokenizer(folder, SMALL), small_processor, random_texts)


def test_a_wrong_tokenizer_json_stops(tmp_path, small, small_processor):
    """As the library makes it of `tokenizer.model`: the message has the text and both lists of ids."""
    fast = tokenizer_json(small, by_id)
    folder = folder_with(tmp_path, small, tokenizer_config=LEGACY["false"], tokenizer=fast)
    with pytest.raises(ConversionError, match=r"by tokenizer\.json; keep the one that the model") as caught:
        build_tokenizer(folder, SMALL)
    found = re.search(
        r"the text '(.*)' has the token ids (\[.*\]) by SentencePiece and (\[.*\]) by", str(caught.value)
    )
    assert json.loads(found[2]) == small_processor.encode(found[1])
    assert json.loads(found[3]) != json.loads(found[2])
    assert str(folder / "tokenizer.model") in str(caught.value)


def test_nothing_is_written_where_ids_differ(tmp_path, capsys):
    llama = tmp_path / "llama"
    shutil.copytree(LLAMA, llama)
    model = (LLAMA / "tokenizer.model").read_bytes()
    wrong = tokenizer_json(model, lambda pair: pair[2])
    (llama / "tokenizer.json").write_text(json.dumps(wrong), encoding="utf-8")
    arguments = [str(CHECKPOINTS), str(tmp_path / "out"), "--config", str(HEADS), "--llama", str(llama)]
    assert main(arguments) == 2
    assert "has the token ids" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def give_the_same_score(*pieces: str):
    def change(model) -> None:
        for number, piece in enumerate(model.pieces):
            if piece.piece in pieces:
                model.pieces[number].score = 1.0

    return change


def test_the_same_score_where_an_order_exists(tmp_path, small, random_texts):
    """Of "the" and "and", no end is the other's start, so that it does not matter which comes first."""
    model = edit(small, give_the_same_score("th", "an"))
    tokenizer = build_tokenizer(folder_with(tmp_path, model), SMALL)
    assert_same_ids(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=model), random_texts)


def test_the_same_score_where_none_exists_stops(tmp_path, small):
    """Of "nen", SentencePiece makes "ne" and "n", of "ene" "en" and "e": which pair comes first, the text says."""
    model = edit(small, give_the_same_score("en", "ne"))
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert processor.encode("1nen1ene", out_type=str) == ["▁", "1", "ne", "n", "1", "en", "e"]
    with pytest.raises(
        ConversionError, match=r"SentencePiece and \[.*\] by the tokenizer made of its pieces; no order"
    ):
        build_tokenizer(folder_with(tmp_path, model), SMALL)


@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("byte_fallback", [True, False])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_other_kinds_of_models(tmp_path, lines, random_texts, kind, byte_fallback, rule):
    options = {"byte_fallback": byte_fallback, "normalization_rule_name": rule}
    spaces = rule == "nmt_nfkc"
    model = train(lines[:3000], vocab_size=1000, model_type=kind, remove_extra_whitespaces=spaces, **options)
    tokenizer = build_tokenizer(folder_with(tmp_path, model), 1000)
    # With a map of characters, `tokenizers` maps some letters with accents behind them in another way
    texts = random_texts if rule == "identity" else ()
    assert_same_ids(tokenizer, sentencepiece.SentencePieceProcessor(model_proto=model), texts)
    assert tokenizer.encode("<\ufdd0/s> <0x41>") == tokenizer.encode("<\ufdd0/s> <\ufdd00x41>")


def test_a_model_of_words_is_refused(tmp_path, lines):
    model = train(lines[:3000], vocab_size=1000, model_type="word", byte_fallback=False)
    with pytest.raises(ConversionError, match=r"tokenizer\.model: holds a SentencePiece model of type 3, expected 1"):
        build_tokenizer(folder_with(tmp_path, model), 1000)


def test_added_tokens_keep_their_ids(tmp_path, small, small_processor):
    """They cut a text, and what stands between them is tokenised on its own."""
    folder = folder_with(
        tmp_path,
        small,
        tokenizer_config=SETTINGS,
        added_tokens={"<human>": SMALL, "[PAD]": SMALL + 2, "<s>": 1},
        special_tokens_map={"pad_token": "[PAD]", "eos_token": {"content": "</s>", "lstrip": False}},
    )
    assert tokenizer_size(folder) == SMALL + 3
    tokenizer = build_tokenizer(folder, SMALL + 64)
    first, second = small_processor.encode("Say"), small_processor.encode(" no  more")
    assert tokenizer.encode("Say<human> no  more") == [1, *first, SMALL, *second]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (SMALL + 2, 2)
    assert tokenizer.convert_tokens_to_ids("<image>") == SMALL + 64
    assert tokenizer.decode([1, *first, SMALL, SMALL + 2], skip_special_tokens=True) == "Say<human>"


def test_added_tokens_of_tokenizer_config(tmp_path, small):
    token = {"content": "<pad>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    settings = SETTINGS | {"added_tokens_decoder": {str(SMALL): token | {"special": True}}, "pad_token": "<pad>"}
    tokenizer = build_tokenizer(folder_with(tmp_path, small, tokenizer_config=settings), SMALL + 1)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", SMALL)
    assert tokenizer.encode("a <pad>")[-1] == SMALL


@pytest.mark.parametrize("name", ["LLaMATokenizer", "LlamaTokenizer"])
def test_settings_of_old_folders(tmp_path, small, small_processor, name):
    """Those of Vicuna's time name empty texts, which the library cannot load."""
    empty = {"bos_token": "", "eos_token": "", "unk_token": ""}
    settings = empty | {"tokenizer_class": name, "model_max_length": 1e30}
    folder = folder_with(tmp_path, small, tokenizer_config=settings, special_tokens_map=empty)
    tokenizer = build_tokenizer(folder, SMALL)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (
        1,
        2,
        0,
        0,
    )
    assert_same_ids(tokenizer, small_processor, ())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"added_tokens": {"<s>": SMALL}},
            r"'<s>' was added with the id 2000, but in .*tokenizer\.model it has the id 1",
        ),
        ({"added_tokens": {"[PAD]": 300}}, r"'\[PAD\]' was added with the id 300, but .* another piece has that id"),
        (
            {"tokenizer_config": {"bos_token": "<begin>"}},
            r"has no piece '<begin>', and no token was added .* bos_token in",
        ),
        ({"special_tokens_map": ["<s>"]}, r"special_tokens_map\.json: holds a list, expected a JSON object"),
        ({"tokenizer": {"model": 3}}, r"tokenizer\.json: is incomplete, damaged or no tokenizer"),
    ],
)
def test_files_that_contradict_stop(tmp_path, small, files, message):
    with pytest.raises(ConversionError, match=message):
        build_tokenizer(folder_with(tmp_path, small, **files), SMALL + 1)


def test_user_defined_pieces(tmp_path, lines):
    """A text is cut at them. Where texts begin with a space, what follows them would get one, too."""
    options = {"vocab_size": 1000, "user_defined_symbols": ["<|start|>", "▁▁", "\t"]}
    model = train(lines[:3000], add_dummy_prefix=False, **options)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = build_tokenizer(folder_with(tmp_path / "without", model), 1000)
    for text in (*TEXTS, "a<|start|>b", "<|start|>  \t a   b"):
        assert tokenizer.encode(text, add_special_tokens=False) == processor.encode(text), text
    with pytest.raises(ConversionError, match="by the tokenizer made of its pieces"):
        build_tokenizer(folder_with(tmp_path / "with", train(lines[:3000], **options)), 1000)


@pytest.mark.parametrize(("module", "package"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_without_its_packages(tmp_path, small, monkeypatch, module, package):
    folder = folder_with(tmp_path, small)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConversionError, match=rf"tokenizer\.model: needs the package {package} .*`pip install {package}`"
    ):
        build_tokenizer(folder, SMALL)


@pytest.mark.parametrize("content", [b"", b"nonsense", (LLAMA / "tokenizer.model").read_bytes()[:9000]])
def test_damaged_models_are_named(tmp_path, content):
    folder = folder_with(tmp_path, content)
    with pytest.raises(ConversionError, match=r"tokenizer\.model: is incomplete, damaged or no SentencePiece model"):
        tokenizer_size(folder)
    with pytest.raises(ConversionError, match=r"tokenizer\.model: is incomplete, damaged or no SentencePiece model"):
        build_tokenizer(folder, SMALL)
