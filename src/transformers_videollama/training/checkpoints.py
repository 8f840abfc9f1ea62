"""Checkpoints that a run can go on from whenever it was killed: which are complete, and which are of this run."""

import json
import zipfile
from itertools import count
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging

from .sharding import check_same_parts


__all__ = ["CheckpointCallback", "last_checkpoint"]

logger = logging.get_logger(__name__)


class CheckpointCallback(TrainerCallback):
    """
    Makes a run safe to kill: [`last_checkpoint`] then finds the newest checkpoint of this run, all of it.

    - Checkpoints of a run before in the same `output_dir`, beyond the step that training begins at, are moved into its
      folder `earlier-1` (or `earlier-2`, ...). None of them is gone on from, written over, or taken for the newest.
    - A checkpoint does not count until every process has written its random state, nor while it is written over.
    - If several processes train, older checkpoints are removed when all have written theirs.

    Raises:
        ValueError: when training starts, if DeepSpeed's ZeRO-3 shares the model out and the processes may run
            different parts of it.
    """

    def __init__(self):
        self._limit_before = None

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **kwargs):
        check_same_parts(model, getattr(train_dataloader, "collate_fn", None))
        if args.should_save:
            _set_aside(Path(args.output_dir), state.global_step)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_save:  # right after this event, so that nothing is ever saved unprepared
            self.prepare_saving(args, state, model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if control.should_save:
            self.prepare_saving(args, state, model)

    def prepare_saving(self, args, state, model) -> None:
        """In every process, before any of them writes."""
        folder = checkpoint_folder(args, state)
        if args.should_save:
            (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        if args.world_size > 1:
            self._announce_random_state(args, folder)
            self._limit_before, args.save_total_limit = args.save_total_limit, None
            PartialState().wait_for_everyone()

    @staticmethod
    def _announce_random_state(args, folder: Path) -> None:
        """An empty file, which the Trainer fills; the first process may have ended its own share long before."""
        if not args.save_only_model:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"rng_state_{args.process_index}.pth").write_bytes(b"")

    def on_save(self, args, state, control, model=None, **kwargs):
        if self._limit_before is None:
            return
        args.save_total_limit, self._limit_before = self._limit_before, None
        PartialState().wait_for_everyone()
        if args.should_save:
            rotate_checkpoints(args.output_dir, args.save_total_limit, state.best_model_checkpoint)


def checkpoint_folder(args, state) -> Path:
    """That of the step that a run is at."""
    return Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def last_checkpoint(output_dir: str | Path) -> str | None:
    """
    The newest complete checkpoint of a run that has a [`BranchCheckpointCallback`] or, with adapters, a
    [`CheckpointCallback`]; for `resume_from_checkpoint`.

    Args:
        output_dir (`str` or `Path`): that of the run.

    Returns:
        `str`, or `None` if there is none yet. A checkpoint that the run was killed in is passed over, and so is one
        that holds the model alone (`save_only_model`), from which no run can go on as if it had not stopped.
    """
    complete = filter(_is_complete, _checkpoints(Path(output_dir)))
    return max(map(str, complete), key=lambda folder: _step(Path(folder)), default=None)


def _checkpoints(output_dir: Path) -> list[Path]:
    found = output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    return [folder for folder in found if folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-").isdigit()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path) -> bool:
    """
    A process of the Trainer writes its random state, then the first one its own state, and only then removes older
    checkpoints. A [`BranchCheckpointCallback`] renames the weights still later, but the Trainer resumes from them
    under either name.
    """
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # not begun, no folder, or not written to its end
        return False
    random_states = list(checkpoint.glob("rng_state*.pth"))
    return bool(random_states) and all(map(zipfile.is_zipfile, random_states))


def _set_aside(output_dir: Path, step: int) -> None:
    """Moves checkpoints beyond a step away, with those that are not complete."""
    others = [folder for folder in _checkpoints(output_dir) if _step(folder) > step]
    if not others:
        return
    aside = next(path for path in (output_dir / f"earlier-{i}" for i in count(1)) if not path.exists())
    aside.mkdir()
    for folder in others:
        folder.rename(aside / folder.name)
    logger.warning(
        f"training begins at step {step}, and {output_dir} had checkpoints beyond it ({len(others)}), of a run "
        f"before; they are in {aside} now"
    )
