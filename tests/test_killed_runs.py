"""What is left of a run that ends at any moment: which checkpoints count, and that they are those of this run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from killed_runs import KINDS, KilledRuns
from peft import get_peft_model
from safetensors.torch import load_file
from training_run import conversations, logged, make_trainer, tiny_model, train
from transformers.trainer_callback import TrainerControl, TrainerState

from transformers_videollama.training import STAGES, CheckpointCallback, last_checkpoint, prepare_for_stage


EVERY_STEP = {"save_strategy": "steps", "save_steps": 1, "rows": conversations(4, kinds=("text", "image"))}
EVERY_STEP |= {"per_device_train_batch_size": 1}


def train_branch(checkpoint: Path, folder: Path, resume: str | None = None, **options) -> None:
    train(checkpoint, folder, resume=resume, **{**EVERY_STEP, **options})


def train_adapters(checkpoint: Path, folder: Path, resume: str | None = None, **options) -> None:
    model = tiny_model(checkpoint)
    prepare_for_stage(model, STAGES["vl2"])
    model = get_peft_model(model, STAGES["vl2"].lora_config())
    callbacks = [*options.pop("callbacks", ()), CheckpointCallback()]
    trainer = make_trainer(checkpoint, folder, model=model, callbacks=callbacks, **{**EVERY_STEP, **options})
    trainer.train(resume_from_checkpoint=resume)


@pytest.fixture(params=(train_branch, train_adapters), ids=("branch", "adapters"))
def run(request) -> Callable:
    return request.param


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("checkpoint-*")}


@pytest.mark.slow
def test_a_run_that_begins_anew_does_not_go_on_with_what_another_has_left(run, checkpoint, tmp_path, caplog):
    run(checkpoint, tmp_path, max_steps=3, seed=1)
    run(checkpoint, tmp_path, max_steps=2)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2"}
    assert names(tmp_path / "earlier-1") == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert f"training begins at step 0, and {tmp_path} had checkpoints beyond it (3)" in caplog.text


@pytest.mark.slow
def test_a_run_that_is_gone_on_with_keeps_what_it_began_from(run, checkpoint, tmp_path):
    run(checkpoint, tmp_path, max_steps=3)
    losses = logged(tmp_path)
    run(checkpoint, tmp_path, resume=str(tmp_path / "checkpoint-1"), max_steps=3)
    assert logged(tmp_path)[3:] == losses[1:]
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert names(tmp_path / "earlier-1") == {"checkpoint-2", "checkpoint-3"}
    run(checkpoint, tmp_path, resume=last_checkpoint(tmp_path), max_steps=3)
    assert not (tmp_path / "earlier-2").exists()


@pytest.fixture(scope="module")
def saved(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    train_branch(checkpoint, folder, max_steps=2)
    return folder


@pytest.mark.parametrize("kept", (0, 100))
def test_a_checkpoint_does_not_count_without_the_random_state_of_each_process(saved, tmp_path, kept):
    folder = shutil.copytree(saved, tmp_path / "run")
    newest = folder / "checkpoint-2"
    state = (newest / "rng_state.pth").rename(newest / "rng_state_0.pth")
    (newest / "rng_state_1.pth").write_bytes(state.read_bytes())
    assert last_checkpoint(folder) == str(newest)
    (newest / "rng_state_1.pth").write_bytes(state.read_bytes()[:kept])
    assert last_checkpoint(folder) == str(folder / "checkpoint-1")


def test_a_checkpoint_of_the_model_alone_does_not_count(checkpoint, tmp_path):
    train_branch(checkpoint, tmp_path, max_steps=1, save_only_model=True)
    assert load_file(tmp_path / "checkpoint-1" / "branch.safetensors")
    assert last_checkpoint(tmp_path) is None


def test_the_older_checkpoint_stays_until_all_processes_have_written(saved, tmp_path):
    """The second of two processes, and the first, which is done earlier."""
    folder = shutil.copytree(saved, tmp_path / "run")
    shared = {"output_dir": str(folder), "world_size": 2, "save_only_model": False, "save_total_limit": 1}
    first = SimpleNamespace(**shared, process_index=0, should_save=True)
    second = SimpleNamespace(**shared, process_index=1, should_save=False)
    newest = folder / "checkpoint-2"
    written = {path.name: path.read_bytes() for path in newest.iterdir()}
    state, control, callbacks = TrainerState(global_step=2), TrainerControl(should_save=True), []
    for args in (first, second):
        callbacks.append(CheckpointCallback())
        callbacks[-1].on_step_end(args, state, control)
        assert args.save_total_limit is None  # so that the Trainer removes nothing
    (newest / "rng_state_0.pth").write_bytes(written["rng_state.pth"])
    (newest / "trainer_state.json").write_bytes(written["trainer_state.json"])
    assert last_checkpoint(folder) == str(folder / "checkpoint-1")
    (newest / "rng_state_1.pth").write_bytes(written["rng_state.pth"])
    assert last_checkpoint(folder) == str(newest)
    for args, callback in zip((second, first), callbacks[::-1], strict=True):
        assert names(folder) == {"checkpoint-1", "checkpoint-2"}
        callback.on_save(args, state, control)
        assert args.save_total_limit == 1
    assert names(folder) == {"checkpoint-2"}


@pytest.mark.slow
def test_runs_killed_at_random_moments(tmp_path, monkeypatch):
    """`python -m tests.killed_runs` does it more often."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    runs = KilledRuns(tmp_path)
    assert not list(runs.faults(len(KINDS) // 2))
    assert sum(runs.seen.values()) == len(KINDS) // 2
