"""Every command of conversion/README.md finds the files that it names, in stand-ins of the repositories it names."""

import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from pages import ROOT, Page
from tiny_conversions import CHECKPOINTS, HEADS, LLAMA, copy_llama
from transformers import Blip2Config, Blip2ForConditionalGeneration, LlamaConfig, LlamaForCausalLM

from transformers_videollama.convert.command import main


PAGE = Page("conversion/README.md")
COMMANDS = [shlex.split(line) for block in PAGE.code("bash") for line in block.replace("\\\n", " ").splitlines()]
SERIES = "DAMO-NLP-SG/Video-LLaMA-Series"
VIDEO_LLAMA_2 = {
    f"DAMO-NLP-SG/Video-LLaMA-2-{size}-{stage}" for size in ("7B", "13B") for stage in ("Pretrained", "Finetuned")
}
VICUNA_ERA = {
    "pretrain_vicuna7b-v2.pth",
    "pretrain-vicuna13b.pth",
    "finetune-vicuna7b-v2.pth",
    "finetune-vicuna13b-v2.pth",
    *(f"{stage}-{model}-zh.pth" for stage in ("pretrain", "finetune") for model in ("ziya13b", "billa7b")),
}
AUDIO_BRANCHES = {"pretrain_vicuna7b_audiobranch.pth", "finetune_vicuna7b_audiobranch.pth"}


def link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


def save_blip2(folder: Path) -> None:
    """In the library's format, of the sizes of the tiny checkpoints."""
    vision = {"hidden_size": 48, "intermediate_size": 209, "num_hidden_layers": 2, "num_attention_heads": 4}
    qformer = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    text = {"model_type": "opt", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "ffn_dim": 8}
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer | {"encoder_hidden_size": 48},
        text_config=text | {"num_attention_heads": 2, "word_embed_proj_dim": 8},
        num_query_tokens=6,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)


def save_delta(folder: Path) -> None:
    """Vicuna v0 has a token more than LLaMA."""
    copy_llama(folder)
    LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA, vocab_size=1001)).save_pretrained(folder)
    (folder / "added_tokens.json").write_text('{"[PAD]": 1000}')


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working directory in which the Hub's ids are folders."""
    folder = tmp_path_factory.mktemp("recipes")
    torch.manual_seed(0)
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth"):
        link(CHECKPOINTS / name, folder / "lavis" / name)
    video, audio = (CHECKPOINTS / f"{branch}_LLaMA_2_7B_Finetuned.pth" for branch in ("VL", "AL"))
    for repository in VIDEO_LLAMA_2:
        size, stage = repository.split("-")[-2:]
        link(video, folder / repository / f"VL_LLaMA_2_{size}_{stage}.pth")
        link(audio, folder / repository / f"AL_LLaMA_2_{size}_{stage}.pth")
        link(CHECKPOINTS / "imagebind_huge.pth", folder / repository / "imagebind_huge.pth")
        link(LLAMA, folder / repository / f"llama-2-{size.lower()}-chat-hf")
    for name in VICUNA_ERA:
        link(video, folder / SERIES / name)
    for name in AUDIO_BRANCHES:
        link(audio, folder / SERIES / name)
    for size in ("7b", "13b"):
        save_delta(folder / "lmsys" / f"vicuna-{size}-delta-v0")
    for name in ("llama-7b-hf", "llama-13b-hf", "Ziya-LLaMA-13B-v1", "BiLLa-7B-SFT"):
        link(LLAMA, folder / name)
    save_blip2(folder / "Salesforce" / "blip2-flan-t5-xxl")
    shutil.copytree(CHECKPOINTS, folder / "original")
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[3])
def test_command_finds_its_files(folder, monkeypatch, capsys, command):
    assert command[:2] == ["videollama", "convert"]
    monkeypatch.chdir(folder)
    assert main([*command[2:], "--dry-run", "--config", str(HEADS)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert f"prompt style {'vicuna' if SERIES in command else 'llama-2'}" in printed
    assert ("audio branch" in printed) == ("--no-audio" not in command)


def test_every_released_checkpoint_has_a_command():
    named = {argument for command in COMMANDS for argument in command}
    assert named >= VIDEO_LLAMA_2
    assert {f"{SERIES}/{name}" for name in VICUNA_ERA} <= named


def test_outputs_have_different_names():
    """But for the two other ways to the first checkpoint."""
    outputs = [command[3] for command in COMMANDS]
    assert len(set(outputs)) == len(outputs) - 2


@pytest.mark.parametrize("script", ["convert_video_llama_to_hf.py", "__main__.py"])
def test_scripts_of_a_checkout_are_the_same(folder, monkeypatch, capsys, script):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [script, "original", "out", "--dry-run", "--config", str(HEADS)])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(ROOT / "conversion" / script), run_name="__main__")
    assert "dry run: all names and shapes fit; out was not written" in capsys.readouterr().out
