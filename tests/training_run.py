"""
Trains the tiny model with the standard `Trainer` on conversations made up here. Tests call this, or start it as a
process of its own, to be killed, or as several, to share the work:

python tests/training_run.py CHECKPOINT RUNS.json

`RUNS.json` holds a list of runs, done one after the other: the keyword arguments of `train` for each, and `sharded`,
whether FSDP is used where the process was started with its settings. What a run logs is appended to `losses.jsonl` in
its `output_dir`, step by step.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is imported

import numpy as np
import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from peft import get_peft_model
from torch.utils.data import Dataset
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor, Trainer, TrainerCallback, set_seed

from transformers_videollama.training import (
    STAGES,
    AugmentedDataset,
    BranchCheckpointCallback,
    CheckpointCallback,
    EpochCallback,
    load_branch,
    load_features,
    prepare_for_stage,
)


WORDS = ("a", "red", "ball", "swings", "over", "the", "green", "ground", "while", "somebody", "strikes", "bells")
ARGUMENTS = {
    "learning_rate": 1e-2,  # large, so that a step that differs is seen in the losses
    "adam_epsilon": 1e-3,  # steps along gradients that are zero but for rounding stay small
    "max_steps": 5,
    "per_device_train_batch_size": 4,
    "train_sampling_strategy": "sequential",
    "dataloader_num_workers": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}


def conversations(count: int, kinds: Sequence[str] = ("video", "image", "text", "text"), seed: int = 0) -> list[dict]:
    """Rows about media of these kinds in turn, with answers of all lengths."""
    rng = np.random.default_rng(seed)

    def say() -> dict:
        return {"type": "text", "text": " ".join(rng.choice(WORDS, rng.integers(1, 9)))}

    rows = []
    for i in range(count):
        frames = rng.integers(256, size=(rng.integers(2, 12), 24, 32, 3), dtype=np.uint8)
        media = {
            "video": [{"type": "video", "video": frames}],
            "image": [{"type": "image", "image": frames[0]}],
            "audio": [{"type": "audio", "audio": np.sin(np.arange(4000 * (1 + i % 9)) / (1 + i)).astype(np.float32)}],
            "text": [],
        }
        question = {"role": "user", "content": [*media[kinds[i % len(kinds)]], say()]}
        rows.append({"messages": [question, {"role": "assistant", "content": [say()]}]})
    return rows


def tiny_model(checkpoint: str | Path, *, dropout: bool = False, **options):
    """The tiny model, unless asked otherwise without dropout, so that runs can be compared."""
    config = AutoConfig.from_pretrained(checkpoint)
    if not dropout:
        for part in (config.video_resampler_config, config.audio_resampler_config):
            part.hidden_dropout_prob = part.attention_probs_dropout_prob = 0.0
    return AutoModelForMultimodalLM.from_pretrained(checkpoint, config=config, **options)


def make_trainer(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    stage: str = "vl2",
    rows: Sequence[dict] | None = None,
    kinds: Sequence[str] = ("video", "image", "text", "text"),
    features: str | Path | None = None,
    lora: bool = False,
    model: torch.nn.Module | None = None,
    dropout: bool = False,
    dtype: str = "float32",
    branch_from: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    train_dataset: Dataset | None = None,
    eval_dataset: Sequence[dict] | None = None,
    **arguments,
) -> Trainer:
    """A `Trainer` of one stage; `arguments` are of `TrainingArguments`."""
    stage = STAGES[stage]
    arguments = stage.training_arguments(str(output_dir), **{**ARGUMENTS, **arguments})
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    if model is None:
        model = tiny_model(checkpoint, dropout=dropout, dtype=dtype)
        prepare_for_stage(model, stage)
    if branch_from is not None:
        load_branch(model, branch_from)
    processor = AutoProcessor.from_pretrained(checkpoint)
    if features is not None:
        rows = load_features(features, model, processor)
    if lora:
        set_seed(0)  # adapters begin at random
        model = get_peft_model(model, stage.lora_config(lora_dropout=0.0))
    return Trainer(
        model,
        arguments,
        data_collator=stage.collator(processor),
        train_dataset=train_dataset or AugmentedDataset(conversations(20, kinds) if rows is None else rows),
        eval_dataset=eval_dataset,
        callbacks=[EpochCallback(), LossFile(), *callbacks],
    )


def train(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    resume: str | Path | None = None,
    kill: dict | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    **options,
) -> Trainer:
    """Trains, from the checkpoint `resume` on if one is given, and saves only what trains."""
    saving = CheckpointCallback() if options.get("lora") else BranchCheckpointCallback()
    callbacks = [*callbacks, *([] if kill is None else [Killer(**kill)]), saving]
    trainer = make_trainer(checkpoint, output_dir, callbacks=callbacks, **options)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_trained(before: dict[str, torch.Tensor], model: torch.nn.Module, is_trained: Callable[[str], bool]) -> None:
    """That these parameters and no others have changed, bit for bit."""
    for name, parameter in model.named_parameters():
        if not is_trained(name):
            assert torch.equal(parameter, before[name]), f"{name} has changed"
        elif not name.endswith("key.bias"):  # it adds the same to all scores of a query, so that its gradient is zero
            assert not torch.equal(parameter, before[name]), f"{name} has not changed"


class LossFile(TrainerCallback):
    """Writes down at once what is logged, so that it outlives the process."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in logs:
            with open(Path(args.output_dir, "losses.jsonl"), "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def logged(output_dir: str | Path, name: str = "loss") -> list[float]:
    """One number for each step of the runs in a folder."""
    lines = Path(output_dir, "losses.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[name] for line in lines]


class Killer(TrainerCallback):
    """Kills its process when a step begins, or when the checkpoint of a step is half written."""

    def __init__(self, event: str, step: int):
        self.event, self.step = event, step

    def on_step_begin(self, args, state, control, **kwargs):
        self._kill("step", state.global_step)

    def on_save(self, args, state, control, **kwargs):
        self._kill("save", state.global_step)

    def _kill(self, event: str, step: int) -> None:
        if (event, step) == (self.event, self.step):
            os.kill(os.getpid(), signal.SIGKILL)


def let_accelerate_shard_on_cpu() -> None:
    """accelerate heeds the settings of FSDP and DeepSpeed on GPUs alone; both share out between CPUs as well."""
    initialize = AcceleratorState.__init__

    def initialize_sharded(self, *args, fsdp_plugin=None, deepspeed_plugin=None, **kwargs):
        initialize(self, *args, fsdp_plugin=fsdp_plugin, deepspeed_plugin=deepspeed_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        if deepspeed_plugin is not None:
            self.distributed_type, self.deepspeed_plugins = DistributedType.DEEPSPEED, deepspeed_plugin
            deepspeed_plugin.set_mixed_precision(self.mixed_precision)
            deepspeed_plugin.select(_from_accelerator_state=True)

    AcceleratorState.__init__ = initialize_sharded


def let_deepspeed_run_without_a_compiler() -> None:
    """On CPUs it would compile a faster way to communicate, which takes minutes."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


if __name__ == "__main__":
    torch.set_num_threads(1)
    let_accelerate_shard_on_cpu()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        let_deepspeed_run_without_a_compiler()
    settings_of_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false")
    for run in json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")):
        os.environ["ACCELERATE_USE_FSDP"] = settings_of_fsdp if run.pop("sharded", True) else "false"
        train(sys.argv[1], **run)
    state = PartialState()
    state.wait_for_everyone()  # meanwhile, the threads of gloo let go of tensors; ending before may abort or hang
    state.destroy_process_group()
