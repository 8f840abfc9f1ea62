"""A language model in a GGUF file as a source of the conversion. Files are written with llama.cpp's own package."""

import sys

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf_files import write
from tiny_conversions import CHECKPOINTS, LLAMA, load, run, weights_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from transformers_videollama.convert import ConversionError
from transformers_videollama.convert.command import main
from transformers_videollama.convert.tokenizer import build_tokenizer


HALF_A_STEP = {Kind.F32: 0.0, Kind.F16: 2**-11, Kind.BF16: 2**-8, Kind.Q8_0: 0.5 / 127, Kind.Q4_0: 1 / 8}


@pytest.fixture(scope="module")
def llama():
    return LlamaForCausalLM.from_pretrained(LLAMA)


@pytest.mark.parametrize("kind", HALF_A_STEP)
def test_the_model_is_that_of_the_librarys_format(tmp_path, llama, kind):
    summary = run(tmp_path / "out", files={"llama": str(write(tmp_path / "a.gguf", llama, kind))})
    run(tmp_path / "expected")
    kept = {Kind.F32: torch.float32, Kind.BF16: torch.bfloat16}.get(kind, torch.float16)
    assert summary.dtype == kept
    found, expected = weights_of(tmp_path / "out"), weights_of(tmp_path / "expected")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        if "embed_tokens" in key or key.startswith("lm_head"):  # the rows behind the vocabulary's are drawn
            found[key], tensor = found[key][:1000], tensor[:1000]
        step = tensor.abs().max() * HALF_A_STEP[kind] if "language_model" in key or "lm_head" in key else 0
        rounding = 0 if kept == torch.float32 else tensor.abs().max() * torch.finfo(kept).eps
        assert (found[key].float() - tensor).abs().max() <= step + rounding, key
    assert load(tmp_path / "out").config.text_config.vocab_size == 1024


def test_grouped_heads_and_tied_embeddings(tmp_path):
    torch.manual_seed(0)
    sizes = {"num_key_value_heads": 2, "tie_word_embeddings": True, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA, **sizes)).eval()
    run(tmp_path / "out", files={"llama": str(write(tmp_path / "a.gguf", model))}, audio=False)
    ids = torch.arange(3, 20)[None]
    logits = load(tmp_path / "out")(input_ids=ids).logits
    torch.testing.assert_close(logits[..., :1000], model(input_ids=ids).logits, rtol=0, atol=1e-5)


def test_its_tokenizer_is_the_same(tmp_path, llama):
    path = write(tmp_path / "a.gguf", llama)
    built, expected = build_tokenizer(path, 1000), build_tokenizer(LLAMA, 1000)
    for text in ("Hello world", "  two  spaces\n\nné ☃", "<video> ab</s>c [INST] ###", "", " "):
        assert built.encode(text) == expected.encode(text)
        assert built.decode(built.encode(text)) == expected.decode(expected.encode(text))
    assert built.pad_token == AutoTokenizer.from_pretrained(LLAMA).unk_token


def test_it_is_found_beside_the_other_files(tmp_path, llama, capsys):
    for path in CHECKPOINTS.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    write(tmp_path / "llama-2-7b-chat.Q8_0.gguf", llama, Kind.Q8_0)
    heads = str(CHECKPOINTS.parents[1] / "tiny_heads.json")
    assert main([str(tmp_path), str(tmp_path / "out"), "--dry-run", "--config", heads]) == 0
    (tmp_path / "llama-hf").symlink_to(LLAMA)
    assert main([str(tmp_path), str(tmp_path / "out"), "--dry-run", "--config", heads]) == 2
    assert "llama-hf" in (said := capsys.readouterr().err)
    assert "llama-2-7b-chat.Q8_0.gguf; choose one with --llama" in said


def truncated(path, llama):
    write(path, llama)
    path.write_bytes(path.read_bytes()[:200_000])


def of_another_model(path, llama):
    write(path, llama, architecture="gemma2")


def with_another_tensor(path, llama):
    write(path, llama)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"blk.0.attn_norm.weight", b"blk.0.attn_skew.weight"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, r"a\.gguf: is incomplete, damaged or no GGUF file"),
        (lambda path, llama: path.write_bytes(b""), r"a\.gguf: is incomplete, damaged or no GGUF file"),
        (lambda path, llama: path.write_text("nonsense" * 99), r"a\.gguf: is incomplete, damaged or no GGUF file"),
        (of_another_model, r"a\.gguf: holds a model of type 'gemma2', expected 'llama'"),
        (with_another_tensor, r"a\.gguf: key 'model\.layers\.0\.input_layernorm\.weight' .*is missing, which"),
        (with_another_tensor, r"a\.gguf: unexpected key 'blk\.0\.attn_skew\.weight'"),
    ],
)
def test_bad_files_are_named(tmp_path, llama, make, message):
    make(tmp_path / "a.gguf", llama)
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", files={"llama": str(tmp_path / "a.gguf")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_without_its_package(tmp_path, llama, monkeypatch):
    path = write(tmp_path / "a.gguf", llama)
    monkeypatch.setitem(sys.modules, "gguf", None)
    advice = r"a\.gguf: needs the package gguf to be read: `pip install 'transformers-videollama\[convert\]'`"
    with pytest.raises(ConversionError, match=advice):
        run(tmp_path / "out", files={"llama": str(path)})
