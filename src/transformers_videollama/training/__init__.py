"""
Training Video-LLaMA with the library's `Trainer`: stages, collator, data, checkpoints of what trains.

Needs the extra `train` for datasets and LoRA: `pip install 'transformers-videollama[train]'`.
"""

from .augmentation import AugmentedDataset, AugmentedIterableDataset, EpochCallback
from .branches import load_branch, save_branch
from .callbacks import BranchCheckpointCallback
from .checkpoints import CheckpointCallback, last_checkpoint
from .collator import VideoLlamaDataCollator
from .curves import CurveCallback, draw_curves
from .datasets import DATASET_FORMATS, DatasetError, load_messages, mix
from .evaluation import AnswerCallback, AskedAnswer
from .feature_cache import FeatureCacheError, FeatureDataset, load_features
from .precompute import precompute
from .stages import STAGES, TrainingStage, prepare_for_stage
from .unreadable import UnreadableDataError, UnreadableRowsCallback


__all__ = [
    "DATASET_FORMATS",
    "STAGES",
    "AnswerCallback",
    "AskedAnswer",
    "AugmentedDataset",
    "AugmentedIterableDataset",
    "BranchCheckpointCallback",
    "CheckpointCallback",
    "CurveCallback",
    "DatasetError",
    "EpochCallback",
    "FeatureCacheError",
    "FeatureDataset",
    "TrainingStage",
    "UnreadableDataError",
    "UnreadableRowsCallback",
    "VideoLlamaDataCollator",
    "draw_curves",
    "last_checkpoint",
    "load_branch",
    "load_features",
    "load_messages",
    "mix",
    "precompute",
    "prepare_for_stage",
    "save_branch",
]
