"""
The four stages of the paper, with the library's `Trainer`: captions, then questions, for each branch; all but the
branch is frozen. Clips go through the frozen encoders once, and the stages train on what these saw.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer

from transformers_videollama.messages import EncodedMedia
from transformers_videollama.training import STAGES, TrainingStage, prepare_for_stage

from . import world
from .model import NUM_FRAMES
from .training import LAST_RATE, WARM_UP, MuonAndAdamW


JOINT = {"video": 1 / 3, "audio": 1 / 2}  # shares of the questions that are about both a video and a sound
ABOUT_SOUND = 3 / 4  # share of the audio branch's questions that are about what is heard, at least


@dataclass
class Clips:
    """Clips as the frozen encoders of a branch saw them."""

    features: list[torch.Tensor]
    scenes: list[world.Scene]


class Conversations(Dataset):
    """
    Rows of a stage: a clip and its caption, or a question about it in any of the prompts that it may be asked in. The
    audio branch is mostly asked what is heard: of what is seen, which most questions are about, it has nothing to say.

    Args:
        clips (`Clips`)
        stage (`TrainingStage`)
        seed (`int`)
        beside (`Clips`, *optional*): clips of the other branch, to see or "hear" together with the first, in a part
            of the questions (`JOINT`).
    """

    def __init__(self, clips: Clips, stage: TrainingStage, seed: int, beside: Clips | None = None):
        self.clips, self.stage, self.seed, self.beside = clips, stage, seed, beside

    def __len__(self) -> int:
        return len(self.clips.features) * (1 if self.stage.text == "caption" else 16)

    def __getitem__(self, index: int) -> dict:
        number = index % len(self.clips.features)
        scene, (branch,) = self.clips.scenes[number], self.stage.branches
        # What ImageBind saw stands where a sound will stand, in the prompts of sounds
        items = {branch: self.clips.features[number]}
        if self.stage.text == "caption":
            return _row(items, "", world.caption(scene))
        rng = np.random.default_rng([self.seed, index])
        times = ""
        if self.beside is not None and rng.random() < JOINT[branch]:
            other = int(rng.integers(len(self.beside.features)))
            items["audio" if branch == "video" else "video"] = self.beside.features[other]
            scene = world.Scene(
                scene.things or self.beside.scenes[other].things, scene.sound or self.beside.scenes[other].sound
            )
        elif branch == "video" and rng.random() < 0.5:
            times = _times(rng.uniform(1, 8))
        asked = world.questions(scene, rng)
        if branch == "audio" and rng.random() < ABOUT_SOUND:
            asked = [question for question in asked if "hear" in question.kind]
        question = asked[rng.integers(len(asked))]
        return _row(items, times + question.text, question.answer)


def _row(items: dict[str, torch.Tensor], text: str, answer: str) -> dict:
    """A conversation about a sound, a video, or both, in the order in which the template wants them."""
    content = [{"type": kind, kind: EncodedMedia(items[kind])} for kind in ("audio", "video") if kind in items]
    content += [{"type": "text", "text": text}] if text else []
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def _times(seconds: float) -> str:
    """The sentence about the times of frames, which the template writes behind a video that comes from a file."""
    times = ", ".join(f"{seconds * i / NUM_FRAMES:.1f}" for i in range(NUM_FRAMES))
    return f"The video contains {NUM_FRAMES} frames sampled at {times} seconds.  "


@torch.no_grad()
def encode_clips(model, processor, paths: list[Path], branch: str, batch_size: int = 8) -> list[torch.Tensor]:
    """What the frozen encoders see in each clip: (T, Q, D) for video, (T, joint width) for frames as sound."""
    features = []
    for first in range(0, len(paths), batch_size):
        videos = processor.video_processor([str(p) for p in paths[first : first + batch_size]], return_tensors="pt")
        pixels = videos["pixel_values_videos"]
        if branch == "video":
            seen = model.model.get_frame_features(pixels.flatten(0, 1))
        else:
            seen = model.model.audio_vision_tower(pixels.flatten(0, 1)).pooler_output
        features += seen.unflatten(0, pixels.shape[:2])
    return features


def train_stage(
    name: str,
    model,
    processor,
    clips: Clips,
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    beside: Clips | None = None,
    positions: bool = True,
) -> list[tuple[int, float]]:
    """Run a stage, with `positions` of frames or as if they had no order -> its losses, as (step, loss)"""
    stage = STAGES[name]
    prepare_for_stage(model, stage)
    (module,) = stage.modules
    branch = getattr(model.model, module)
    if not positions:
        branch.position_embedding.requires_grad_(False).weight.zero_()
    arguments = stage.training_arguments(
        str(folder),
        max_steps=steps,
        lr_scheduler_kwargs={"min_lr_rate": LAST_RATE},
        warmup_steps=WARM_UP,
        per_device_train_batch_size=64,
        dataloader_num_workers=0,
        logging_steps=max(1, steps // 50),
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
    )
    collator = stage.collator(processor, frames_as_sound=False)  # they stand in sound blocks already
    rows = Conversations(clips, stage, seed, beside)
    optimizer = MuonAndAdamW(branch, learning_rate=learning_rate)
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collator, optimizers=(optimizer, None)
    )
    trainer.train()
    return [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
