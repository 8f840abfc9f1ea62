"""
Training Video-LLaMA with the library's `Trainer`: stages, collator, data, checkpoints of what trains.

Needs the extra `train` for datasets and LoRA: `pip install 'transformers-videollama[train]'`.
"""

from .augmentation import AugmentedDataset, EpochCallback
from .branches import load_branch, save_branch
from .callbacks import BranchCheckpointCallback, last_checkpoint
from .collator import VideoLlamaDataCollator
from .stages import STAGES, TrainingStage, prepare_for_stage


__all__ = [
    "STAGES",
    "AugmentedDataset",
    "BranchCheckpointCallback",
    "EpochCallback",
    "TrainingStage",
    "VideoLlamaDataCollator",
    "last_checkpoint",
    "load_branch",
    "prepare_for_stage",
    "save_branch",
]
