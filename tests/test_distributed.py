"""Two processes train as one does, with DDP, FSDP2 and ZeRO-3, and each goes on from what another has trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, is_deepspeed_available
from render_clip import render_clip
from safetensors.torch import load_file
from training_run import logged, train

from transformers_videollama.training import precompute


pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "examples" / "accelerate"
SEVERAL = ("ddp", "fsdp2", "zero3")
PAIRS = [(kind, other) for kind in ("single", *SEVERAL) for other in ("single", *SEVERAL) if kind != other]
# Two processes get two rows each in a step, the second one the latter two
CASES = {
    "ragged": {"kinds": ["video"]},
    "sound": {"kinds": ["video", "audio", "text", "text"]},
    "sound-alone": {"kinds": ["audio", "audio", "image", "video"]},
    "features": {"features": "features"},
    "adapters": {"lora": True},
}


def skip_without_deepspeed(kinds: tuple[str, ...]) -> None:
    if "zero3" in kinds:
        pytest.importorskip("deepspeed", reason="deepspeed is optional; ZeRO-3 is its own")


def launch(config: str, script: str, *arguments: str) -> None:
    """Runs a script in two processes, as the configuration says but on CPUs and in full precision."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += ["--config_file", str(CONFIGS / config), "--num_processes", "2", "--mixed_precision", "no"]
    command += ["--main_process_port", "0", str(REPOSITORY / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=900)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def runs(checkpoint, tmp_path_factory) -> Path:
    """
    A folder with the runs `{kind}` of 5 steps; `{kind}-resumed` from their third; `{kind}-from-{other}`, 2 steps from
    the branch of another; `{kind}-{case}`, 2 steps; and `fsdp2-bf16`. The second process gets texts alone in every
    step but in those of a case.
    """
    folder = tmp_path_factory.mktemp("runs")
    features = cache_features(folder, checkpoint)
    kinds = [kind for kind in SEVERAL if kind != "zero3" or is_deepspeed_available()]

    def own(kind: str) -> list[dict]:
        whole = {"output_dir": str(folder / kind), "save_strategy": "steps", "save_steps": 3}
        cases = [{"output_dir": str(folder / f"{kind}-{name}"), **CASES[name], "max_steps": 2} for name in CASES]
        return [whole, *({**case, "features": features} if "features" in case else case for case in cases)]

    def resumed(kind: str) -> dict:
        return {"output_dir": str(folder / f"{kind}-resumed"), "resume": str(folder / kind / "checkpoint-3")}

    def branched(kind: str, other: str) -> dict:
        branch = str(folder / other / "checkpoint-3")
        return {"output_dir": str(folder / f"{kind}-from-{other}"), "branch_from": branch, "max_steps": 2}

    def start(config: str, listed: list[tuple[str, dict]]) -> None:
        share = [{**run, "sharded": kind != "ddp", "per_device_train_batch_size": 2} for kind, run in listed]
        (folder / "runs.json").write_text(json.dumps(share))
        launch(config, "tests/training_run.py", str(checkpoint), str(folder / "runs.json"))

    for run in own("single"):
        train(checkpoint, **run)
    listed = [(kind, run) for kind in ("ddp", "fsdp2") for run in (*own(kind), resumed(kind))]
    listed += [(kind, branched(kind, other)) for kind, other in PAIRS if {kind, other} <= {"single", "ddp", "fsdp2"}]
    in_bf16 = {"output_dir": str(folder / "fsdp2-bf16"), "dtype": "bfloat16", "bf16": True}
    listed = [(kind, run) for kind, run in listed if "single-from" not in run["output_dir"]]
    start("fsdp2.yaml", [*listed, ("fsdp2", in_bf16)])
    if "zero3" in kinds:
        others = [branched("zero3", other) for other in ("single", "ddp", "fsdp2")]
        start("deepspeed_zero3.yaml", [("zero3", run) for run in (*own("zero3"), resumed("zero3"), *others)])
        start("fsdp2.yaml", [(kind, branched(kind, "zero3")) for kind in ("ddp", "fsdp2")])
    for other in kinds:
        train(checkpoint, **branched("single", other))
    return folder


def cache_features(folder: Path, checkpoint: Path) -> str:
    """Of 8 rows: a video, a sound, and two texts, again and again."""
    render_clip(folder / "clip.mp4", seconds=1, size=(64, 48))
    items = [[{"type": kind, "path": "clip.mp4"}] for kind in ("video", "audio")] + [[], []]
    rows = [
        [{"role": "user", "content": [*items[i % 4], {"type": "text", "text": "What?"}]}, {"role": "assistant"}]
        for i in range(8)
    ]
    for i, row in enumerate(rows):
        row[1]["content"] = " ".join(["a", "red", "ball", "swings"][: 1 + i % 4])
    (folder / "chats.json").write_text(json.dumps([{"messages": row} for row in rows]))
    precompute(folder / "chats.json", folder / "features", model=str(checkpoint))
    return str(folder / "features")


@pytest.mark.parametrize("kind", SEVERAL)
def test_two_processes_train_as_one(runs, kind):
    skip_without_deepspeed((kind,))
    for name in ("loss", "learning_rate", "grad_norm"):
        expected = logged(runs / "single", name)
        assert len(expected) == 5
        assert logged(runs / kind, name) == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", SEVERAL)
def test_two_processes_train_as_one_where_their_rows_differ_in_kind(runs, kind, case):
    skip_without_deepspeed((kind,))
    expected = logged(runs / f"single-{case}")
    assert len(expected) == 2
    assert logged(runs / f"{kind}-{case}") == pytest.approx(expected, rel=0, abs=1e-5)


def test_parameters_are_shared_out(runs):
    """So that the runs above are what they say."""
    assert (runs / "fsdp2" / "checkpoint-3" / "pytorch_model_fsdp_0").is_dir()
    assert not list((runs / "ddp" / "checkpoint-3").glob("pytorch_model_fsdp*"))


@pytest.mark.parametrize("kind", SEVERAL)
def test_resumed_run_goes_on_as_if_nothing_had_happened(runs, kind):
    skip_without_deepspeed((kind,))
    assert logged(runs / f"{kind}-resumed") == pytest.approx(logged(runs / kind)[3:], rel=0, abs=1e-6)


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("step", (3, 5))
def test_branch_is_the_same(runs, kind, step):
    skip_without_deepspeed((kind,))
    expected, branch = (load_file(runs / k / f"checkpoint-{step}" / "branch.safetensors") for k in ("single", kind))
    assert branch.keys() == expected.keys()
    for name, tensor in branch.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind, other", PAIRS)
def test_branch_goes_on_elsewhere(runs, kind, other):
    skip_without_deepspeed((kind, other))
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
