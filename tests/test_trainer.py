"""The recipe in the standard `Trainer`: losses, schedules, checkpoints, and what a killed run leaves."""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import train as example
from render_clip import render_clip
from safetensors.torch import load_file
from training_run import assert_trained, conversations, logged, make_trainer, parameters, tiny_model, train
from transformers import AutoModelForMultimodalLM, AutoProcessor, TrainerCallback

from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration
from transformers_videollama.cli import main as videollama
from transformers_videollama.training import (
    STAGES,
    AugmentedDataset,
    AugmentedIterableDataset,
    BranchCheckpointCallback,
    last_checkpoint,
    prepare_for_stage,
)


REPOSITORY = Path(__file__).parents[1]
OF_THE_PROCESSOR = {"chat_template.jinja", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}


def is_branch(name: str) -> bool:
    return name.startswith("model.video_resampler.")


def mean_over_answers(model, collate, rows) -> float:
    """Row by row, without padding or the library's loss."""
    total, count = 0.0, 0
    for row in rows:
        batch = collate([row])
        labels = batch.pop("labels")[0, 1:]
        with torch.no_grad():
            predicted = model(**batch).logits[0, :-1].log_softmax(-1)
        answered = (labels != -100).nonzero()[:, 0]
        total -= float(predicted[answered, labels[answered]].sum())
        count += len(answered)
    return total / count


class Batches(TrainerCallback):
    """What the model was given: a number for the pixels of every step."""

    def __init__(self):
        self.seen = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def record(module, args, inputs):
            self.seen.append(float(inputs["pixel_values_videos"].double().abs().sum()))

        self.hook = model.register_forward_pre_hook(record, with_kwargs=True)

    def on_train_end(self, args, state, control, **kwargs):
        self.hook.remove()


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory):
    """A run of 5 steps with batches of 4 rows, and what it started from."""
    folder = tmp_path_factory.mktemp("plain")
    before = parameters(tiny_model(checkpoint))
    trainer = train(checkpoint, folder, save_strategy="steps", save_steps=3)
    return folder, before, trainer.model


@pytest.mark.parametrize("steps", (2, 4))
def test_accumulation_changes_neither_losses_nor_parameters(checkpoint, plain, tmp_path, steps):
    folder, _, model = plain
    expected = parameters(model)
    trainer = train(checkpoint, tmp_path, per_device_train_batch_size=4 // steps, gradient_accumulation_steps=steps)
    assert logged(tmp_path) == pytest.approx(logged(folder), rel=0, abs=1e-5)
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0, atol=1e-5, msg=name)


def test_loss_is_the_mean_over_the_answers_of_a_step(checkpoint, plain, tmp_path):
    folder, _, _ = plain
    trainer = make_trainer(checkpoint, tmp_path)
    rows = [trainer.train_dataset[i] for i in range(4)]
    assert logged(folder)[0] == pytest.approx(mean_over_answers(trainer.model, trainer.data_collator, rows), abs=1e-5)


def test_branch_trains_and_nothing_else(plain):
    _, before, model = plain
    assert_trained(before, model, is_branch)


def test_audio_branch_trains_on_frames_and_nothing_else(checkpoint, plain, tmp_path):
    trainer = train(checkpoint, tmp_path, stage="al2", max_steps=3)
    assert_trained(plain[1], trainer.model, lambda name: name.startswith("model.audio_resampler."))


def test_label_smoothing_is_over_shifted_labels_and_predicted_tokens(checkpoint, tmp_path):
    trainer = make_trainer(checkpoint, tmp_path, label_smoothing_factor=0.1)
    batch = trainer.data_collator(conversations(4))
    labels, inputs = batch["labels"][:, 1:], {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
        logits = trainer.model(**inputs).logits
    assert logits.shape[-1] == trainer.model.config.output_vocab_size == 1000
    losses = -logits[:, :-1][labels != -100].log_softmax(-1)
    picked = losses.gather(1, labels[labels != -100][:, None])
    torch.testing.assert_close(loss, 0.9 * picked.mean() + 0.1 * losses.mean(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STAGES)
def test_learning_rates_of_the_recipe(checkpoint, tmp_path, name):
    stage = STAGES[name]
    options = {"learning_rate": stage.learning_rate, "max_steps": stage.max_steps}
    trainer = make_trainer(checkpoint, tmp_path, stage=name, **options)
    trainer.create_optimizer()
    scheduler = trainer.create_scheduler(stage.max_steps)
    rates = [stage.learning_rate * scheduler.lr_lambdas[0](step) for step in range(stage.max_steps)]
    progress = np.arange(1, stage.max_steps - stage.warmup_steps + 1) / (stage.max_steps - stage.warmup_steps)
    low, high = stage.min_learning_rate, stage.learning_rate
    cosine = low + (high - low) * (np.cos(math.pi * progress) + 1) / 2
    np.testing.assert_allclose(rates, [*np.linspace(1e-6, high, stage.warmup_steps), *cosine], rtol=1e-9)
    assert rates[-1] == pytest.approx(low)


@pytest.mark.parametrize("name", ("vl2", "al2"))
def test_weight_decay_is_on_matrices_alone(checkpoint, tmp_path, name):
    trainer = make_trainer(checkpoint, tmp_path, stage=name)
    groups = trainer.create_optimizer().param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    trained = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {n: decays.pop(id(p)) for n, p in trained.items()} == {n: 0.05 * (p.ndim > 1) for n, p in trained.items()}
    assert not decays


@pytest.mark.parametrize(
    "arguments, tolerance",
    (
        ({"gradient_checkpointing": True}, 1e-6),
        pytest.param({"torch_compile": True, "torch_compile_backend": "aot_eager"}, 1e-5, marks=pytest.mark.slow),
    ),
)
def test_losses_are_the_same_with(checkpoint, tmp_path, arguments, tolerance):
    options = {"rows": conversations(4), "max_steps": 2}  # of one shape, which is compiled once
    train(checkpoint, tmp_path / "plain", **options)
    train(checkpoint, tmp_path / "other", **options, **arguments)
    assert logged(tmp_path / "other") == pytest.approx(logged(tmp_path / "plain"), rel=0, abs=tolerance)


def test_branch_stays_in_float32_under_autocast(checkpoint, plain, tmp_path):
    folder, before, _ = plain
    model = train(checkpoint, tmp_path, bf16=True, dtype="bfloat16").model
    assert logged(tmp_path) == pytest.approx(logged(folder), rel=0.02)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if is_branch(name) else torch.bfloat16), name
    assert_trained({n: p if is_branch(n) else p.bfloat16() for n, p in before.items()}, model, is_branch)


def test_evaluation(checkpoint, tmp_path):
    rows = conversations(8, seed=1)
    trainer = make_trainer(checkpoint, tmp_path, max_steps=2, eval_strategy="steps", eval_steps=2, eval_dataset=rows)
    trainer.train()
    (evaluated,) = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated["step"] == 2
    assert trainer.evaluate(rows[:4])["eval_loss"] == pytest.approx(
        mean_over_answers(trainer.model, trainer.data_collator, rows[:4]), abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("persistent", (False, True))
def test_workers_make_the_same_batches(checkpoint, tmp_path, persistent):
    """Over two epochs; workers that live on must learn of the second one."""
    seen = []
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": persistent}
    for options in ({}, workers):
        batches = Batches()
        rows = conversations(8, kinds=("video",))
        train(checkpoint, tmp_path / str(len(seen)), rows=rows, max_steps=4, callbacks=[batches], **options)
        seen.append(batches.seen)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 4


@pytest.mark.slow
def test_frames_differ_between_epochs_and_not_after_resuming(checkpoint, tmp_path):
    """Two steps an epoch, resumed in the middle of the second and at the end of it."""
    options = {"rows": conversations(8, kinds=("video",)), "max_steps": 6, "train_sampling_strategy": "random"}
    whole = Batches()
    train(checkpoint, tmp_path, callbacks=[whole], save_strategy="steps", save_steps=1, **options)
    assert len(set(whole.seen)) == 6
    for step in (3, 4):
        rest = Batches()
        resume = tmp_path / f"checkpoint-{step}"
        train(checkpoint, tmp_path / f"from-{step}", resume=resume, callbacks=[rest], **options)
        assert rest.seen == whole.seen[step:]


@pytest.mark.slow
@pytest.mark.parametrize("limit", (None, 1))
@pytest.mark.parametrize("kill", ({"event": "step", "step": 5}, {"event": "save", "step": 4}))
def test_killed_run_goes_on_as_if_nothing_had_happened(checkpoint, tmp_path, kill, limit):
    """With dropout and in random order, which the random state of the checkpoint must bring back."""
    options = {"dropout": True, "train_sampling_strategy": "random", "max_steps": 6}
    options |= {"save_strategy": "steps", "save_steps": 2, "save_total_limit": limit}
    train(checkpoint, tmp_path / "whole", **options)
    runs, killed = tmp_path / "runs.json", tmp_path / "killed"
    runs.write_text(json.dumps([{"output_dir": str(killed), "kill": kill, **options}]))
    command = [sys.executable, str(REPOSITORY / "tests" / "training_run.py"), str(checkpoint), str(runs)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (killed / "checkpoint-4").exists()
    assert last_checkpoint(killed) == str(killed / "checkpoint-4")
    train(checkpoint, tmp_path / "rest", resume=last_checkpoint(killed), **options)
    assert logged(tmp_path / "rest") == logged(tmp_path / "whole")[4:]
    assert logged(killed) == logged(tmp_path / "whole")[: kill["step"]]


class EndsWhileSaving(TrainerCallback):
    """When the Trainer has written step 4 and removed what was before, and before the weights get their name."""

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_that_ends_while_saving_is_never_without_a_complete_checkpoint(checkpoint, tmp_path):
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    train(checkpoint, tmp_path / "whole", **options)
    ended = tmp_path / "ended"
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint, ended, callbacks=[EndsWhileSaving()], **options)
    assert [folder.name for folder in ended.glob("checkpoint-*")] == ["checkpoint-4"]
    assert last_checkpoint(ended) == str(ended / "checkpoint-4")
    train(checkpoint, ended, resume=last_checkpoint(ended), **options)
    assert logged(ended) == logged(tmp_path / "whole")
    assert [folder.name for folder in ended.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_checkpoint_counts_when_its_state_is_whole(checkpoint, plain, tmp_path):
    for step in (3, 5):
        shutil.copytree(plain[0] / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-9").write_text("no folder")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    state = tmp_path / "checkpoint-5" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:-20])
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    assert last_checkpoint(tmp_path) is None


def test_a_checkpoint_that_is_written_over_does_not_count_until_it_is_whole(checkpoint, tmp_path):
    """By a run that begins anew in the folder of another, and ends in the middle."""
    options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = train(checkpoint, tmp_path, **options)
    assert last_checkpoint(tmp_path) is not None
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, BranchCheckpointCallback))
    trainer.control.should_save = True
    callback.on_step_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert last_checkpoint(tmp_path) is None


def test_example_says_that_there_is_nothing_to_resume_from(run_example, tmp_path):
    with pytest.raises(
        SystemExit, match=r"^train.py: .*run has no complete checkpoint to go on from; leave out --res"
    ):
        run_example("--max_steps", "1", "--resume")
    assert not (tmp_path / "run" / "branch.safetensors").exists()


def test_checkpoint_holds_the_branch_alone(plain, checkpoint):
    folder = plain[0] / "checkpoint-5"
    assert not list(folder.glob("model*.safetensors"))
    with torch.device("meta"):
        model = VideoLlamaForConditionalGeneration(VideoLlamaConfig(audio_config={})).bfloat16()
    whole = sum(parameter.nbytes for parameter in model.parameters())
    prepare_for_stage(model, STAGES["vl2"])
    assert sum(p.nbytes for p in model.parameters() if p.requires_grad) < 0.01 * whole
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoModelForMultimodalLM.from_pretrained(folder)


def test_best_checkpoint_is_loaded_at_the_end(checkpoint, tmp_path):
    options = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "max_steps": 3,
        "eval_dataset": conversations(4),
    }
    options |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    trainer = train(checkpoint, tmp_path / "steps", save_strategy="steps", **options)
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert max(losses) > losses[-1]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), abs=1e-6)
    with pytest.raises(ValueError, match="would save the whole model"):
        train(checkpoint, tmp_path / "best", save_strategy="best", **options)


def test_step_without_a_readable_sample_decays_and_does_nothing_else(checkpoint, tmp_path):
    broken = {"role": "user", "content": [{"type": "video", "path": str(tmp_path / "missing.mp4")}]}
    rows = [{"messages": [broken, {"role": "assistant", "content": "a"}]}] * 2  # more would end the run
    options = {"max_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 2}
    trainer = make_trainer(checkpoint, tmp_path / "run", rows=rows, **options)
    before = parameters(trainer.model)
    trainer.train()
    assert logged(tmp_path / "run") == [0.0]
    rate = logged(tmp_path / "run", "learning_rate")[0]
    for name, parameter in trainer.model.named_parameters():
        decayed = before[name] * (1 - 0.05 * rate if parameter.requires_grad and parameter.ndim > 1 else 1)
        torch.testing.assert_close(parameter, decayed, rtol=1e-6, atol=0, msg=name)


@pytest.fixture
def run_example(checkpoint, tmp_path, monkeypatch):
    """Runs `examples/train.py` on two clips; returns what it wrote, and the steps that it took."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = []
    for i in range(2):
        clip = render_clip(tmp_path / f"{i}.mp4", seconds=0.5, sound=False, seed=i)
        shown = {"role": "user", "content": [{"type": "video", "path": clip.name}]}
        rows.append({"messages": [shown, {"role": "assistant", "content": f"Ball {i}."}]})
    data, output = tmp_path / "chats.json", tmp_path / "run"
    data.write_text(json.dumps(rows))

    def run(*options: str, source: tuple[str, ...] = ("--data", str(data))) -> tuple[set[str], list[int]]:
        common = "--stage vl2 --use_cpu --dataloader_num_workers 0 --report_to none --logging_steps 1 --disable_tqdm 1"
        example.main(["--model", str(checkpoint), *source, "--output_dir", str(output), *common.split(), *options])
        newest = Path(last_checkpoint(output))
        state = json.loads((newest / "trainer_state.json").read_text())
        names = {path.name for path in output.iterdir() if not path.name.startswith("checkpoint")}
        for folder in (output, newest):  # with the processor that asks as it was trained
            assert {path.name for path in folder.iterdir()} >= OF_THE_PROCESSOR
        return names - OF_THE_PROCESSOR, [entry["step"] for entry in state["log_history"] if "loss" in entry]

    return run


def test_example_trains_and_goes_on(run_example, checkpoint, tmp_path, capfd):
    assert run_example("--max_steps", "2") == ({"branch.safetensors"}, [1, 2])
    first = load_file(tmp_path / "run" / "branch.safetensors")
    capfd.readouterr()
    assert run_example("--max_steps", "4", "--resume") == ({"branch.safetensors"}, [1, 2, 3, 4])
    said = "".join(capfd.readouterr())
    assert "'loss'" in said
    assert "missing keys" not in said  # the frozen parameters, all of them by name
    second = load_file(tmp_path / "run" / "branch.safetensors")
    assert not torch.equal(first["model.video_resampler.query_tokens"], second["model.video_resampler.query_tokens"])
    branch = tmp_path / "run" / "branch.safetensors"
    branch.rename(tmp_path / "start.safetensors")
    run_example("--branch-from", str(tmp_path / "start.safetensors"), "--max_steps", "5", "--learning_rate", "0")
    third = load_file(branch)
    assert all(torch.equal(third[name], second[name]) for name in second)


def test_example_trains_adapters_in_4_bit(run_example):
    names, steps = run_example("--lora", "--load-in-4bit", "--max_steps", "1")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert steps == [1]
    assert run_example("--lora", "--max_steps", "2", "--resume")[1] == [1, 2]


def test_example_trains_from_features(run_example, checkpoint, tmp_path):
    folder = tmp_path / "features"
    command = ["precompute", str(tmp_path / "chats.json"), str(folder), "--model", str(checkpoint), "--device", "cpu"]
    assert videollama(command) == 0
    for clip in tmp_path.glob("*.mp4"):
        clip.unlink()
    assert run_example("--max_steps", "1", source=("--features", str(folder)))[1] == [1]


@pytest.mark.parametrize("recipe", (None, "paper"))
def test_example_saves_the_settings_that_it_trained_with(run_example, tmp_path, recipe):
    run_example("--max_steps", "1", *(() if recipe is None else ("--recipe", recipe)))
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-1"):
        processor = AutoProcessor.from_pretrained(folder)
        assert processor.load_audio_from_video is processor.add_timestamps is (recipe is None)


@pytest.mark.parametrize("count", (1, 30))
@pytest.mark.parametrize("workers", ("0", "2"))
def test_example_ends_where_no_row_can_be_read(run_example, tmp_path, count, workers):
    """Whether many rows say so at once or a single one in the end, with the reason, and without a branch."""
    shown = {"role": "user", "content": [{"type": "video", "path": "absent.mp4"}]}
    data = tmp_path / "absent.json"
    data.write_text(json.dumps([{"messages": [shown, {"role": "assistant", "content": "A ball."}]}] * count))
    options = ("--num_train_epochs", "3", "--dataloader_num_workers", workers, "--save_strategy", "no")
    samples = "all 1" if count == 1 else "[0-9] of [0-9]"
    expected = rf"^train.py: {samples} samples could not be used[^\n]*absent.mp4: does not"
    with pytest.raises(SystemExit, match=expected):
        run_example(*options, source=("--data", str(data)))
    assert not (tmp_path / "run" / "branch.safetensors").exists()


@pytest.mark.parametrize(("share", "ends"), (pytest.param("0.05", True, marks=pytest.mark.slow), ("0.5", False)))
def test_example_ends_after_an_epoch_with_too_large_a_share_of_unreadable_rows(run_example, tmp_path, share, ends):
    rows = json.loads((tmp_path / "chats.json").read_text())
    absent = {"role": "user", "content": [{"type": "video", "path": "absent.mp4"}]}
    (tmp_path / "chats.json").write_text(json.dumps([*rows, {"messages": [absent, rows[0]["messages"][1]]}]))
    options = ("--num_train_epochs", "1", "--max-unreadable-share", share)
    if ends:
        with pytest.raises(SystemExit, match=r"1 of 3 samples could not be used, more than max_unreadable_share=0.05"):
            run_example(*options)
    else:
        assert run_example(*options)[0] == {"branch.safetensors"}


@pytest.mark.parametrize(
    ("options", "source", "message"),
    (
        ((), ("--data", "absent.json"), r"No such file or directory: '.*absent\.json'"),
        ((), ("--features", "absent"), r"absent has no features\.json; videollama precompute writes one"),
        (("--model", "absent"), None, "absent"),
        (("--branch-from", "absent.safetensors"), None, r"absent\.safetensors"),
        (("--max-unreadable-share", "5"), None, "max_unreadable_share=5.0, expected a number of rows, and a share"),
    ),
)
def test_example_says_in_one_line_what_is_wrong(run_example, options, source, message):
    with pytest.raises(SystemExit, match=rf"^train.py: .*{message}") as caught:
        run_example("--max_steps", "1", *options, **({} if source is None else {"source": source}))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("step", (1, 2))
def test_example_goes_on_from_the_checkpoint_that_is_named(run_example, tmp_path, step):
    run_example("--max_steps", "2", "--save_strategy", "steps", "--save_steps", "1")
    shutil.copytree(tmp_path / "run" / f"checkpoint-{step}", tmp_path / "named")
    shutil.rmtree(tmp_path / "run")
    assert run_example("--max_steps", "3", "--resume_from_checkpoint", str(tmp_path / "named"))[1] == [1, 2, 3]


@pytest.mark.slow
def test_a_model_that_is_to_go_on_is_saved_whole(checkpoint, tmp_path):
    """Whatever the callback leaves out while the `Trainer` loads a checkpoint."""
    options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    folder = train(checkpoint, tmp_path / "first", **options).args.output_dir + "/checkpoint-1"
    trainer = train(checkpoint, tmp_path, resume=folder, resume_from_checkpoint=folder, **{**options, "max_steps": 2})
    trainer.save_model(str(tmp_path / "whole"))
    assert load_file(tmp_path / "whole" / "model.safetensors").keys() == trainer.model.state_dict().keys()


def test_bf16_with_weights_in_float16_is_refused_on_a_cpu(checkpoint, tmp_path):
    expected = r"got weights in torch\.float16 on a CPU under autocast in torch\.bfloat16, .*load the model with"
    with pytest.raises(ValueError, match=expected):
        train(checkpoint, tmp_path, dtype="float16", bf16=True, max_steps=1)


def stream(count: int):
    yield from conversations(count)


def streamed(count: int) -> AugmentedIterableDataset:
    return AugmentedIterableDataset(datasets.IterableDataset.from_generator(stream, gen_kwargs={"count": count}))


def test_rows_of_a_stream_train(checkpoint, tmp_path):
    """Two epochs of other frames and crops, and the same again."""
    for name in ("first", "second"):
        train(checkpoint, tmp_path / name, train_dataset=streamed(8), max_steps=4)
    losses = logged(tmp_path / "first")
    assert losses == logged(tmp_path / "second")
    assert len(set(losses)) == 4


def test_a_stream_in_augmented_dataset_is_refused():
    with pytest.raises(TypeError, match="got a generator, whose rows come one after another; wrap it in Augmented"):
        AugmentedDataset(stream(2))


def test_example_refuses_quantised_training_without_adapters(run_example, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_example("--load-in-4bit")
    assert "--load-in-4bit needs --lora" in capsys.readouterr().err
