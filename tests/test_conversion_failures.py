"""What can go wrong with a conversion: one line that says so, and nothing left behind."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny_conversions import CHECKPOINTS, HEADS, LLAMA, copy_llama, run
from transformers import LlamaConfig, LlamaForCausalLM

from transformers_videollama.convert import ConversionError, weights
from transformers_videollama.convert.command import main
from transformers_videollama.convert.sources import FILES


VIDEO_BRANCH = CHECKPOINTS / "VL_LLaMA_2_7B_Finetuned.pth"


class Command:
    """Would make a file, were it called while a checkpoint is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def content():
    return torch.load(VIDEO_BRANCH, weights_only=True)


def truncated(path):
    path.write_bytes(VIDEO_BRANCH.read_bytes()[:60_000])


def empty(path):
    path.write_bytes(b"")


def truncated_legacy(path):
    torch.save(content(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:60_000])


def truncated_safetensors(path):
    save_file(content()["model"], path)
    path.write_bytes(path.read_bytes()[:60_000])


def with_command(path):
    torch.save(content() | {"scaler": Command(path.parent / "executed")}, path)


def legacy_with_command(path):
    file = content() | {"scaler": Command(path.parent / "executed")}
    torch.save(file, path, _use_new_zipfile_serialization=False)


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Command(path.parent / "executed"), protocol=2))


def git_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def with_unknown_entry(path):
    torch.save(content() | {"ema": {}}, path)


def with_a_number(path):
    torch.save({"model": content()["model"] | {"step": 3}}, path)


def a_list(path):
    torch.save([torch.zeros(1)], path)


def quantised(path):
    state = content()["model"]
    torch.save({"model": state | {"llama_proj.weight": state["llama_proj.weight"].to(torch.int8)}}, path)


def not_a_number(path):
    state = content()["model"]
    state["llama_proj.weight"][3, 3] = torch.nan
    torch.save({"model": state}, path)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (truncated, "a.pth", r"a\.pth: is incomplete, damaged or no checkpoint \(60,000 bytes\)"),
        (empty, "a.pth", r"a\.pth: is incomplete, damaged or no checkpoint \(0 bytes\)"),
        (truncated_legacy, "a.pth", r"a\.pth: is incomplete, damaged or no checkpoint"),
        (truncated_safetensors, "a.safetensors", r"a\.safetensors: is incomplete, .*file not fully covered"),
        (with_command, "a.pth", r"a\.pth: holds Python objects \(posix\.system\), which could run code"),
        (legacy_with_command, "a.pth", r"a\.pth: holds Python objects \(posix\.system\), which could run code"),
        (bare_pickle, "a.pth", r"a\.pth: holds Python objects \(posix\.system\), which could run code"),
        (git_lfs_pointer, "a.pth", r"a\.pth: is a pointer of Git LFS, .*git lfs pull"),
        (with_unknown_entry, "a.pth", r"unexpected entry 'ema' next to 'model', expected optimizer, scaler"),
        (with_a_number, "a.pth", r"key 'step' is a int, expected a name and a tensor"),
        (a_list, "a.pth", r"a\.pth: holds a list, expected names and tensors"),
        (quantised, "a.pth", r"'llama_proj\.weight' holds torch\.int8, expected floating point"),
        (not_a_number, "a.pth", r"a\.pth: 'llama_proj\.weight' has NaN or infinite values"),
    ],
)
def test_bad_file_is_named_and_nothing_is_written(tmp_path, make, name, message):
    make(tmp_path / name)
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "new" / "out", files={"video_branch": str(tmp_path / name)}, audio=False)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_values_beyond_the_dtype_are_named(tmp_path):
    file = content()
    file["model"]["llama_proj.bias"][0] = 1e6
    torch.save(file, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match=r"'llama_proj\.bias' does not fit torch\.float16; choose another"):
        run(tmp_path / "out", files={"video_branch": str(tmp_path / "a.pth")}, dtype="float16")


def test_files_of_old_torch_can_be_read(tmp_path):
    torch.save(content(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    run(tmp_path / "old", files={"video_branch": str(tmp_path / "a.pth")})
    run(tmp_path / "new")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "old" / name).read_bytes() == (tmp_path / "new" / name).read_bytes()


def full_disk(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_of_safetensors(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def interrupt(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (full_disk, 1, "error: No space left on device; nothing was written"),
        (full_disk_of_safetensors, 1, "No space left on device (os error 28); nothing was written"),
        (interrupt, 130, "interrupted; nothing was written"),
    ],
)
@pytest.mark.parametrize("parent", ["", "new/folders"])
def test_fault_while_writing_leaves_nothing(tmp_path, monkeypatch, capsys, fault, status, message, parent):
    monkeypatch.setattr(weights, "save_file", fault)
    before = signal.getsignal(signal.SIGTERM)
    assert main([str(CHECKPOINTS), str(tmp_path / parent / "out"), "--config", str(HEADS)]) == status
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_termination_leaves_nothing(tmp_path):
    """A real process, killed while it writes a shard."""
    script = f"""
import sys, time
from transformers_videollama.convert import weights
from transformers_videollama.convert.command import main
from transformers_videollama.convert.sources import FILES

def save(tensors, path, metadata):
    print("writing", flush=True)
    time.sleep(60)

weights.save_file = save
sys.exit(main([{str(CHECKPOINTS)!r}, {str(tmp_path / "new" / "out")!r}, "--config", {str(HEADS)!r}]))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n", process.stderr.read()
        assert list(tmp_path.rglob("*.partial"))
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "terminated; nothing was written" in errors
    assert list(tmp_path.iterdir()) == []


def test_small_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"0\.0 GB are needed, 0\.0 GB are free") as error:
        run(tmp_path / "new" / "out")
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_existing_output_is_refused_before_any_work(tmp_path, dry_run):
    with pytest.raises(ConversionError, match=r"exists already; choose another output or remove it"):
        run(tmp_path, source="no/such/source/at-all", dry_run=dry_run)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("eva_vit_g.pth", r"no eva_vit_g\.pth; pass --vision \(download https://.*--blip2 a BLIP-2 folder"),
        ("blip2_pretrained_flant5xxl.pth", r"no blip2_pretrained_flant5xxl\.pth; pass --blip2"),
        ("VL_LLaMA_2_7B_Finetuned.pth", r"no VL_LLaMA_2_7B_Finetuned\.pth; pass --video-branch"),
        ("AL_LLaMA_2_7B_Finetuned.pth", r"pass --audio-branch .*--no-audio does without"),
        ("imagebind_huge.pth", r"pass --imagebind .*--no-audio does without"),
        ("llama-2-7b-chat-hf", r"no folder with the config\.json and weights of a language model.*pass --llama"),
    ],
)
def test_missing_file_is_named_with_its_option(tmp_path, left_out, message):
    for path in CHECKPOINTS.iterdir():
        if path.name != left_out:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", source=tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("VL_LLaMA_2_13B_Pretrained.pth", "video_branch"),
        ("pretrain_vicuna7b-v2.pth", "video_branch"),
        ("pretrain-vicuna13b.pth", "video_branch"),
        ("finetune-vicuna13b-v2.pth", "video_branch"),
        ("finetune-billa7b-zh.pth", "video_branch"),
        ("pretrain-ziya13b-zh.pth", "video_branch"),
        ("AL_LLaMA_2_13B_Finetuned.pth", "audio_branch"),
        ("finetune_vicuna7b_audiobranch.pth", "audio_branch"),
        ("pretrained_minigpt4_7b.pth", None),
    ],
)
def test_released_files_are_known_by_name(name, kind):
    assert [known for known, files in FILES.items() if files.matches(f"folder/{name}")] == ([kind] if kind else [])


def test_several_candidates_are_named_with_their_option(tmp_path):
    for path in CHECKPOINTS.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "VL_LLaMA_2_7B_Pretrained.pth").symlink_to(VIDEO_BRANCH)
    with pytest.raises(ConversionError, match=r"2 candidates: .*Finetuned\.pth, .*Pretrained\.pth; .*--video-branch"):
        run(tmp_path / "out", source=tmp_path)
    run(tmp_path / "out", source=tmp_path, files={"video_branch": str(VIDEO_BRANCH)}, dry_run=True)
    (tmp_path / "other-llama").symlink_to(LLAMA)
    with pytest.raises(ConversionError, match=r"2 candidates: .*llama-2-7b-chat-hf, .*other-llama; .*--llama"):
        run(tmp_path / "out", source=tmp_path, files={"video_branch": str(VIDEO_BRANCH)})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vision": "/no/such/file.pth"}, r"--vision: /no/such/file\.pth is no file; expected a path, or org/name/"),
        ({"vision": str(LLAMA)}, r"--vision: .* is no file"),
        ({"blip2": "nowhere"}, r"--blip2: nowhere is no folder; expected a path, or org/name on the Hub"),
        ({"blip2": str(LLAMA)}, r"--blip2: .* holds a model of type 'llama', expected 'blip-2'"),
        ({"blip2": str(LLAMA), "vision": "eva.pth"}, r"--blip2: a BLIP-2 folder has its own vision tower"),
        ({"llama": str(VIDEO_BRANCH)}, r"--llama: .* is no folder"),
        ({"llama": str(CHECKPOINTS)}, r"no weights; expected \*\.safetensors or pytorch_model\*\.bin"),
        ({"video_branch": str(CHECKPOINTS / "AL_LLaMA_2_7B_Finetuned.pth")}, r"key 'video_query_tokens' is missing"),
    ],
)
def test_wrong_file_is_named(tmp_path, files, message):
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", files=files)
    assert list(tmp_path.iterdir()) == []


def test_shard_that_the_index_names_must_be_there(tmp_path):
    folder = copy_llama(tmp_path / "llama")
    LlamaForCausalLM.from_pretrained(LLAMA).save_pretrained(folder, max_shard_size="100KB")
    next(folder.glob("model-00002-of-*.safetensors")).unlink()
    with pytest.raises(ConversionError, match=r"model-00002-of-\d+\.safetensors: no such file, though the index"):
        run(tmp_path / "out", files={"llama": str(folder)})


def test_language_model_needs_its_tokenizer(tmp_path):
    folder = copy_llama(tmp_path / "llama")
    (folder / "tokenizer.model").unlink()
    for name in ("config.json", "pytorch_model.bin"):
        (folder / name).symlink_to(LLAMA / name)
    with pytest.raises(ConversionError, match=r"no tokenizer\.model, tokenizer\.json or vocab\.json"):
        run(tmp_path / "out", files={"llama": str(folder)})
    (folder / "tokenizer.model").write_text("nonsense")
    with pytest.raises(ConversionError, match=r"tokenizer\.model: is incomplete, damaged or no SentencePiece model"):
        run(tmp_path / "out", files={"llama": str(folder)})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_hidden_layers": 1}, r"key 'model\.layers\.1\..*' is missing, which .*base.* has"),
        ({"intermediate_size": 64}, r"'model\.layers\.\d\.mlp\..*' has shape .*, expected .* as in .*base"),
        ({"vocab_size": 999}, r"has shape \(999, 64\), expected \(1000, 64\) as in .*base"),
    ],
)
def test_delta_must_fit_its_base(tmp_path, sizes, message):
    base, delta = copy_llama(tmp_path / "base"), copy_llama(tmp_path / "delta")
    LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA)).save_pretrained(base)
    LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA, **sizes)).save_pretrained(delta)
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", vicuna_delta=str(delta), base_llama=str(base), audio=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vicuna-delta", "x"], "--vicuna-delta and --base-llama need each other"),
        (
            ["--vicuna-delta", "x", "--base-llama", "y", "--llama", "z"],
            "--llama and --vicuna-delta exclude each other",
        ),
        (["--no-audio", "--with-imagebind-vision"], "--no-audio and --with-imagebind-vision exclude each other"),
        (["--dry-run", "--push-to-hub", "a/b"], "--dry-run and --push-to-hub exclude each other"),
        (["--max-shard-size", "2 parsecs"], "'2 parsecs' is no size; expected a number and KB, MB, GB or TB"),
        (["--max-shard-size", "0GB"], "'0GB' is no size"),
        (["--config", "/no/such.json"], "/no/such.json cannot be read"),
        (["--config", __file__], "cannot be read"),
        (["--style", "alpaca"], "invalid choice: 'alpaca'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_wrong_options_are_named(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        main([str(CHECKPOINTS), str(tmp_path / "out"), *arguments])
    assert error.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert main([str(CHECKPOINTS), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("videollama convert: error: vision_config: 48 is not a released width (1408)")
