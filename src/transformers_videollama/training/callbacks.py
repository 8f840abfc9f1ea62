"""Checkpoints of training that hold what trains, without the frozen gigabytes."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.trainer_utils import SaveStrategy
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..files import appearing
from .branches import BRANCH_FILE, trained_state, write_branch
from .checkpoints import CheckpointCallback, checkpoint_folder
from .sharding import is_sharded


__all__ = ["BranchCheckpointCallback"]


class BranchCheckpointCallback(CheckpointCallback):
    """
    Makes the `Trainer` save only what trains: its checkpoints hold `branch.safetensors` and the optimizer's state, and
    `train(resume_from_checkpoint=...)` takes them. Only [`load_branch`] reads the weights of such a checkpoint;
    `from_pretrained` refuses it, since the frozen parts are not in it. `Trainer.save_model` saves the whole model as
    ever. A [`CheckpointCallback`], too, which makes the run safe to kill.

    `TrainingArguments(resume_from_checkpoint=...)` tells the callback before `train` that a run goes on. Otherwise the
    `Trainer` lists all frozen parameters as missing in the checkpoint.

    Under FSDP and DeepSpeed's ZeRO-3, the library also writes its own sharded copy of the whole model, and resumes
    from that.

    Raises:
        ValueError: when training starts with a PEFT model, which saves only what trains by itself, or with
            `save_strategy="best"`.
    """

    def __init__(self):
        super().__init__()
        self._ignored_before, self._left_out = None, False

    def on_init_end(self, args, state, control, model=None, **kwargs):
        if args.resume_from_checkpoint and not hasattr(model, "peft_config"):
            self._leave_out_frozen_parts(model)  # or the Trainer lists them all as missing in the checkpoint

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._take_all_parts(model)
        if hasattr(model, "peft_config"):
            raise ValueError(
                "PEFT saves adapters and modules_to_save alone already; leave this callback out, and "
                "take CheckpointCallback"
            )
        if args.save_strategy == SaveStrategy.BEST:  # decided too late to leave the frozen parts out
            raise ValueError(
                'save_strategy="best" would save the whole model; use "steps" with load_best_model_at_end, which '
                "keeps the best checkpoint, too"
            )
        super().on_train_begin(args, state, control, model=model, **kwargs)

    def prepare_saving(self, args, state, model) -> None:
        """Leaves out the frozen parts, too."""
        super().prepare_saving(args, state, model)
        self._leave_out_frozen_parts(model)

    def _leave_out_frozen_parts(self, model) -> None:
        self._ignored_before, self._left_out = model._keys_to_ignore_on_save, True
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        model._keys_to_ignore_on_save = model.state_dict().keys() - trained

    def _take_all_parts(self, model) -> None:
        if self._left_out:
            model._keys_to_ignore_on_save, self._ignored_before, self._left_out = self._ignored_before, None, False

    def on_save(self, args, state, control, model=None, **kwargs):
        self._take_all_parts(model)
        trained = trained_state(model) if is_sharded(model) else None  # gathered by all processes
        if args.should_save:
            self._leave_branch(checkpoint_folder(args, state), trained)
        super().on_save(args, state, control, **kwargs)

    @staticmethod
    def _leave_branch(folder: Path, trained: dict[str, torch.Tensor] | None) -> None:
        """Gives the weights of a checkpoint the name and the form that they stay in."""
        weights = folder / SAFE_WEIGHTS_NAME
        (folder / CONFIG_NAME).unlink(missing_ok=True)  # without it the folder does not pass for a model
        if trained is not None:
            write_branch(trained, folder / BRANCH_FILE)
            weights.unlink(missing_ok=True)
            return
        # A sharded checkpoint of one shard: that is how the Trainer finds the file on resuming
        with safe_open(weights, framework="pt") as file:
            weight_map = dict.fromkeys(file.keys(), BRANCH_FILE)
        index = {"metadata": {"total_size": weights.stat().st_size}, "weight_map": weight_map}
        with appearing(folder / SAFE_WEIGHTS_INDEX_NAME) as partial:
            partial.write_text(json.dumps(index, indent=2), encoding="utf-8")
        os.replace(weights, folder / BRANCH_FILE)
