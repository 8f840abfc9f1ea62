"""Two processes train as one does, data parallel and with FSDP2, and each goes on from what another has trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin
from render_clip import render_clip
from safetensors.torch import load_file
from training_run import logged, train


pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "examples" / "accelerate"
KINDS = ("single", "ddp", "fsdp2")
PAIRS = [(kind, other) for kind in KINDS for other in KINDS if kind != other]


def launch(config: str, script: str, *arguments: str) -> None:
    """Runs a script in two processes, as the configuration says but on CPUs and in full precision."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(CONFIGS / config), "--num_processes", "2", "--mixed_precision", "no"]
    command += ["--main_process_port", "0", str(REPOSITORY / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def runs(checkpoint, tmp_path_factory) -> Path:
    """
    A folder with the runs `{kind}` of 5 steps; `{kind}-resumed` from their third; `{kind}-from-{other}`, 2 steps from
    the branch of another; and `fsdp2-bf16`. The second process gets texts alone in every step.
    """
    folder = tmp_path_factory.mktemp("runs")

    def whole(kind: str) -> dict:
        return {"output_dir": str(folder / kind), "save_strategy": "steps", "save_steps": 3}

    def resumed(kind: str) -> dict:
        return {"output_dir": str(folder / f"{kind}-resumed"), "resume": str(folder / kind / "checkpoint-3")}

    def branched(kind: str, other: str) -> dict:
        branch = str(folder / other / "checkpoint-3")
        return {"output_dir": str(folder / f"{kind}-from-{other}"), "branch_from": branch, "max_steps": 2}

    def shared_out(kind: str, run: dict) -> dict:
        return {**run, "sharded": kind == "fsdp2", "per_device_train_batch_size": 2}

    train(checkpoint, **whole("single"))
    listed = [shared_out(kind, run(kind)) for kind in ("ddp", "fsdp2") for run in (whole, resumed)]
    listed += [shared_out(kind, branched(kind, other)) for kind, other in PAIRS if kind != "single"]
    in_bf16 = {"output_dir": str(folder / "fsdp2-bf16"), "dtype": "bfloat16", "bf16": True}
    listed.append(shared_out("fsdp2", in_bf16))
    (folder / "runs.json").write_text(json.dumps(listed))
    launch("fsdp2.yaml", "tests/training_run.py", str(checkpoint), str(folder / "runs.json"))
    for other in ("ddp", "fsdp2"):
        train(checkpoint, **branched("single", other))
    return folder


@pytest.mark.parametrize("kind", ("ddp", "fsdp2"))
def test_two_processes_train_as_one(runs, kind):
    for name in ("loss", "learning_rate", "grad_norm"):
        expected = logged(runs / "single", name)
        assert len(expected) == 5
        assert logged(runs / kind, name) == pytest.approx(expected, rel=0, abs=1e-5)


def test_parameters_are_shared_out(runs):
    """So that the runs above are what they say."""
    assert (runs / "fsdp2" / "checkpoint-3" / "pytorch_model_fsdp_0").is_dir()
    assert not list((runs / "ddp" / "checkpoint-3").glob("pytorch_model_fsdp*"))


@pytest.mark.parametrize("kind", ("ddp", "fsdp2"))
def test_resumed_run_goes_on_as_if_nothing_had_happened(runs, kind):
    assert logged(runs / f"{kind}-resumed") == pytest.approx(logged(runs / kind)[3:], rel=0, abs=1e-6)


@pytest.mark.parametrize("kind", ("ddp", "fsdp2"))
@pytest.mark.parametrize("step", (3, 5))
def test_branch_is_the_same(runs, kind, step):
    expected, branch = (load_file(runs / k / f"checkpoint-{step}" / "branch.safetensors") for k in ("single", kind))
    assert branch.keys() == expected.keys()
    for name, tensor in branch.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind, other", PAIRS)
def test_branch_goes_on_elsewhere(runs, kind, other):
    losses = logged(runs / f"{kind}-from-{other}")
    assert len(losses) == 2
    assert losses == pytest.approx(logged(runs / "ddp-from-single"), rel=0, abs=1e-5)


def test_sharded_branch_in_float32_beside_frozen_bfloat16(runs):
    assert logged(runs / "fsdp2-bf16") == pytest.approx(logged(runs / "single"), rel=0.02)
    folder = runs / "fsdp2-bf16"
    assert len(logged(folder)) == 5


def test_example_in_two_processes(checkpoint, tmp_path):
    render_clip(tmp_path / "clip.mp4", seconds=0.5, sound=False)
    shown = {"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]}
    rows = [{"messages": [shown, {"role": "assistant", "content": f"Ball {i}."}]} for i in range(4)]
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    arguments = ["--model", checkpoint, "--data", tmp_path / "chats.json", "--output_dir", tmp_path / "run"]
    options = "--stage vl2 --max_steps 2 --dataloader_num_workers 0 --per_device_train_batch_size 2 --report_to none"
    launch("ddp.yaml", "examples/train.py", *map(str, arguments), *options.split(), "--use_cpu")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"branch.safetensors", "checkpoint-2", "processor_config.json"} <= names
    assert "model.safetensors" not in names
    in_checkpoint = load_file(tmp_path / "run" / "checkpoint-2" / "branch.safetensors")
    written = load_file(tmp_path / "run" / "branch.safetensors")
    assert all(torch.equal(written[name], in_checkpoint[name]) for name in in_checkpoint)


def test_deepspeed_shares_parameters_out():
    plugin = DeepSpeedPlugin(hf_ds_config=str(CONFIGS / "deepspeed_zero3.json"))
    assert plugin.zero_stage == 3
    # without which the Trainer writes the sharded checkpoint twice
    assert plugin.hf_ds_config.get_value("zero_optimization.stage3_gather_16bit_weights_on_model_save") is True
    settings = yaml.safe_load((CONFIGS / "deepspeed_zero3.yaml").read_text(encoding="utf-8"))
    assert REPOSITORY / settings["deepspeed_config"]["deepspeed_config_file"] == CONFIGS / "deepspeed_zero3.json"


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_configurations_are_accelerates(config):
    """accelerate refuses keys that it does not know."""
    assert load_config_from_file(str(CONFIGS / config)).num_processes == 8
    settings = yaml.safe_load((CONFIGS / config).read_text(encoding="utf-8"))
    assert settings["num_machines"] == 1
