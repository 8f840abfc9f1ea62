"""A language model in a GGUF file as a source of the conversion. Files are written with llama.cpp's own package."""

import sys
from collections.abc import Sequence
from pathlib import Path

import gguf
import pytest
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from test_conversion import CHECKPOINTS, LLAMA, load, run, weights_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from transformers_videollama.convert import ConversionError
from transformers_videollama.convert.command import main
from transformers_videollama.convert.tokenizer import build_tokenizer


HALF_A_STEP = {Kind.F32: 0.0, Kind.F16: 2**-11, Kind.BF16: 2**-8, Kind.Q8_0: 0.5 / 127, Kind.Q4_0: 1 / 8}


@pytest.fixture(scope="module")
def llama():
    return LlamaForCausalLM.from_pretrained(LLAMA)


def write_tokenizer(path: Path, model: Path, merges: Sequence[str] = ()) -> Path:
    """A file without tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    add_sizes(writer, LlamaConfig(num_hidden_layers=1))
    add_tokenizer(writer, model)
    if merges:
        writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write(path: Path, model: LlamaForCausalLM, kind: Kind = Kind.F32, architecture: str = "llama") -> Path:
    """As llama.cpp's converter writes a LLaMA of the library."""
    writer = gguf.GGUFWriter(path, architecture)
    add_sizes(writer, model.config)
    add_tokenizer(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if model.config.tie_word_embeddings and key == "lm_head.weight":
            continue
        values = neighbours(key, tensor, model.config).float().numpy()
        stored = Kind.F32 if values.ndim == 1 else kind
        name = names.get_name(key.removesuffix(".weight")) + ".weight"
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_sizes(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter, model: Path = LLAMA / "tokenizer.model") -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = range(pieces.get_piece_size())
    kinds = {
        i: TokenType.UNKNOWN
        if pieces.is_unknown(i)
        else TokenType.CONTROL
        if pieces.is_control(i)
        else TokenType.BYTE
        if pieces.is_byte(i)
        else TokenType.NORMAL
        for i in ids
    }
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types([kinds[i] for i in ids])
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_bos_token(True)


def neighbours(key: str, tensor: torch.Tensor, config: LlamaConfig) -> torch.Tensor:
    """The rows of queries and keys in the order of GGUF files: a rotation turns neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(key.split(".")[-2])
    if heads is None:
        return tensor
    rows = torch.arange(len(tensor)).view(heads, 2, -1)
    return tensor[rows.permute(0, 2, 1).flatten()].contiguous()


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
