"""Token ids of any text are SentencePiece's own, piece by piece, whatever the source's tokenizer_config.json says."""

import json
import shutil

import pytest
import sentencepiece
from tiny_conversions import REFERENCE, STYLES
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from transformers_videollama.convert.tokenizer import build_tokenizer


LLAMA = REFERENCE / "checkpoints" / "llama-2-7b-chat-hf"
VOCABULARY = 1000
TEXTS = (
    "What is the dog doing?",
    "two  spaces, three   spaces",
    "  leading and trailing  ",
    "a line\nanother\n\nand a\ttab",
    "emoji 😀👍🏽 and ☃",
    "日本語のテキスト、中文和한국어",
    "é ﬁ Å ▁ ½",
    " ",
    "\n",
    "<",
    "[INST] ### <<SYS>>",
)
TYPED_TOKENS = ("<video>", "<image> and <audio>", "</s>", "<s>hello</s>", "<unk>", "<<s>s>", "a<video>b</s></s>")


@pytest.fixture(scope="session")
def sentence_piece():
    return sentencepiece.SentencePieceProcessor(model_file=str(LLAMA / "tokenizer.model"))


@pytest.fixture(params=("true", "false", "absent"))
def tokenizer(request, tmp_path):
    """Built from a source whose configuration says legacy: true, false, or nothing; saved, and loaded again."""
    folder = tmp_path / "llama"
    shutil.copytree(LLAMA, folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["legacy"] = {"true": True, "false": False, "absent": None}[request.param]
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), encoding="utf-8")
    build_tokenizer(folder, VOCABULARY).save_pretrained(tmp_path / "converted")
    return AutoTokenizer.from_pretrained(tmp_path / "converted")


def test_ids_are_sentencepieces(tokenizer, sentence_piece):
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == sentence_piece.encode(text), text


def test_ids_of_the_golden_chats(tokenizer, cases):
    for case in cases["cases"]["chat"]:
        text = case["prompt"].replace("<ImageHere>", "<video>")
        video_id = tokenizer.convert_tokens_to_ids("<video>")
        first, *others = case["segment_ids"]
        assert tokenizer.encode(text) == first + [id for ids in others for id in [video_id, *ids]], case["name"]


def test_placeholders_follow_the_vocabulary(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<image>", "<video>", "<audio>"]) == [1000, 1001, 1002]
    assert len(tokenizer) == VOCABULARY + 3
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<unk>", "left")


@pytest.mark.parametrize("style", STYLES.values())
@pytest.mark.parametrize("typed", TYPED_TOKENS)
def test_typed_tokens_stay_text(processors, sentence_piece, style, typed):
    """A question that holds tokens of the prompt gives the ids that SentencePiece gives its plain text."""
    processor = processors[style]
    plain = processor.apply_chat_template([{"role": "user", "content": "QUESTION"}], add_generation_prompt=True)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": typed}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    expected = plain.removeprefix("<s>").replace("QUESTION", typed)
    assert inputs["input_ids"] == [[1, *sentence_piece.encode(expected)]]


@pytest.mark.parametrize("style", STYLES.values())
def test_any_text_in_a_question(processors, sentence_piece, style):
    processor = processors[style]
    for text in TEXTS:
        message = {"role": "user", "content": text}
        prompt = processor.apply_chat_template([message], add_generation_prompt=True)
        ids = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=True)
        assert ids == [[1, *sentence_piece.encode(prompt.removeprefix("<s>"))]], text


def test_decoding_gives_the_text_back(tokenizer):
    for text in TEXTS:
        text = text.replace("▁", "")  # SentencePiece's own sign for a space
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_ids_that_cannot_be_placeholders_are_refused():
    with pytest.raises(ValueError, match="expected them to start at 10"):
        build_tokenizer(LLAMA, 10)


def test_other_tokenizers_keep_their_spaces(tmp_path):
    """A vocabulary with byte fallback that puts no space before a text, such as Gemma's, goes on putting none."""
    vocabulary = {token: i for i, token in enumerate(("<unk>", "<s>", "</s>", "▁", "a", "<0x61>"))}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    source = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    source.save_pretrained(tmp_path)
    built = build_tokenizer(tmp_path, len(vocabulary))
    for text in ("a", " a", "a a"):
        assert built.encode(text, add_special_tokens=False) == backend.encode(text, add_special_tokens=False).ids
    assert built.encode("a\ufdd0a", add_special_tokens=False) == backend.encode("aa", add_special_tokens=False).ids
