"""The stages in which Video-LLaMA is trained, as data, and what applies them."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from packaging.version import Version
from transformers import TrainingArguments
from transformers.pytorch_utils import Conv1D

from ..chat_templates import load_chat_template
from ..modeling_video_llama import VideoLlamaForConditionalGeneration
from ..processing_video_llama import VideoLlamaProcessor
from .collator import VideoLlamaDataCollator


if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["STAGES", "Recipe", "TrainingStage", "prepare_for_stage"]

Recipe = Literal["asked", "paper"]

WARMUP_START = 1e-6  # learning rate that the warm-up of every stage starts from
WEIGHT_DECAY = 0.05
COMPILES = ("torch_compile", "torch_compile_backend", "torch_compile_mode")  # each of them makes the Trainer compile
# The first torch that was seen to build the library's attention masks of varying lengths for CPUs. 2.11 writes C++
# that does not compile (pytorch's pull request 180212).
COMPILES_FOR_CPUS = Version("2.14")
# Names of modules: of the language model, and of what is in its attention. All families of the library with attention
# call it self_attn, attn, attention, self_attention, multi_head_attention or the like, but for a few hybrids.
LANGUAGE_MODEL = r"(.+\.)?language_model\..+"
ATTENTION = r"(.+\.)?language_model\.(.+\.)?[^.]*att(n|ention)s?\..+"


@dataclass(frozen=True)
class TrainingStage:
    """
    One stage of training. "vl1", "vl2", "al1" and "al2" are those of the recipe of Video-LLaMA (arXiv 2306.02858, and
    the settings of its code). "av2" is not in it: it trains both branches together on videos with their sound, with
    the settings of "vl2". The vision tower, the image Q-Former, ImageBind and the language model are frozen in every
    stage.

    Attributes:
        name (`str`): its key in [`STAGES`].
        branches (`tuple[str, ...]`): the branches that train: "video" (Video Q-Former with its queries, frame
            positions and projection), "audio" (the same parts of the audio branch).
        text (`str`): "caption" (loss on captions) or "chat" (loss on the answers of conversations).
        learning_rate, min_learning_rate (`float`): the ends of the warm-up, and of the cosine after it.
        warmup_steps, max_steps (`int`)
        per_device_train_batch_size (`int`): the original trained on 8 GPUs.
    """

    name: str
    branches: tuple[Literal["video", "audio"], ...]
    text: Literal["caption", "chat"]
    learning_rate: float
    min_learning_rate: float
    warmup_steps: int
    max_steps: int
    per_device_train_batch_size: int

    @property
    def modules(self) -> list[str]:
        """Names of the modules of [`VideoLlamaModel`] that train."""
        return [f"{branch}_resampler" for branch in self.branches]

    @property
    def frames_as_sound(self) -> bool:
        """Whether frames stand in for sound, as where the audio branch trains alone."""
        return self.branches == ("audio",)

    def training_arguments(self, output_dir: str, **overrides: Any) -> TrainingArguments:
        """
        Arguments of the library's `Trainer` for this stage: AdamW, linear warm-up, cosine to the minimum.

        Args:
            output_dir (`str`)
            overrides: any argument of `TrainingArguments`. The warm-up keeps its share of the steps and the minimum
                its share of the learning rate when those are overridden.

        Returns:
            `TrainingArguments`

        Raises:
            ValueError: for `torch_compile` with its default backend on a CPU and a torch before 2.14, which cannot
                build the model there.
        """
        learning_rate = overrides.get("learning_rate", self.learning_rate)
        defaults: dict[str, Any] = {
            "learning_rate": learning_rate,
            "lr_scheduler_type": "cosine_warmup_with_min_lr",
            "lr_scheduler_kwargs": {
                "min_lr_rate": self.min_learning_rate / self.learning_rate,
                "warmup_lr_rate": WARMUP_START / max(learning_rate, WARMUP_START),
            },
            "warmup_steps": self.warmup_steps / self.max_steps,
            "max_steps": -1 if "num_train_epochs" in overrides else self.max_steps,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "weight_decay": WEIGHT_DECAY,
            "adam_beta1": 0.9,
            "adam_beta2": 0.999,
            "dataloader_num_workers": 4,
            "remove_unused_columns": False,
            "use_cpu": not torch.accelerator.is_available(),
            # Every batch runs the branches that train (VideoLlamaDataCollator)
            "ddp_find_unused_parameters": False,
            # Every process makes its own batches of a stream: one that is cut by rows loses the items of its rows
            "accelerator_config": {"dispatch_batches": False},
        }
        settings = {**defaults, **overrides}
        compiles = any(settings.get(name) for name in COMPILES)
        if settings["use_cpu"] and compiles and settings.get("torch_compile_backend") in (None, "inductor"):
            _check_compiling_for_cpus()
        return TrainingArguments(output_dir=output_dir, **settings)

    def collator(
        self, processor: VideoLlamaProcessor, *, recipe: Recipe = "asked", **overrides: Any
    ) -> VideoLlamaDataCollator:
        """
        The collator of this stage: its text, and what its audio branch hears, frames or the sound of videos.

        Args:
            processor ([`VideoLlamaProcessor`])
            recipe (`str`, defaults to "asked"): The prompt that is trained. "asked": as the processor asks, which
                hears the sound of videos and tells the times of frames, unless it was saved with other settings.
                "paper": as the original trained, without both, and before LLaMA-2 with a template of its own.
            overrides: any argument of [`VideoLlamaDataCollator`].

        Raises:
            ValueError: for another recipe, for that of the paper if the stage is not in it, and as
                [`VideoLlamaDataCollator`].
        """
        if recipe not in get_args(Recipe):
            raise ValueError(f"recipe must be one of {get_args(Recipe)}, got {recipe!r}")
        defaults: dict[str, Any] = {
            "text": self.text,
            "frames_as_sound": self.frames_as_sound,
            "branches": self.branches,
        }
        real_sound = "audio" in self.branches and not self.frames_as_sound
        if real_sound:
            defaults["load_audio_from_video"] = True
        if recipe == "paper":
            if real_sound:
                raise ValueError(
                    f"stage {self.name} trains on real sound, which the paper did not; leave out its recipe"
                )
            defaults |= {"load_audio_from_video": False, "add_timestamps": False}
            if self.text == "chat" and processor.stop_string is not None:  # before LLaMA-2
                defaults["chat_template"] = load_chat_template("vicuna-training")
        return VideoLlamaDataCollator(processor, **{**defaults, **overrides})

    def lora_config(self, model: VideoLlamaForConditionalGeneration | None = None, **overrides: Any) -> "LoraConfig":
        """
        LoRA on the attention of the language model, together with the branches of this stage, trained as a whole. PEFT
        finds the linear layers in the model that it is given, whatever they are called there.

        Args:
            model ([`VideoLlamaForConditionalGeneration`], *optional*): the model to be adapted. With it, a language
                model without attention is refused with the names that `target_modules` can take instead.
            overrides: any argument of `peft.LoraConfig`, such as `r`. `target_modules` stand for modules of the
                language model alone: "all-linear" are the linear layers of its attention and of its MLPs.

        Raises:
            ImportError: if peft is not installed.
            ValueError: if `model` has no attention to adapt.
        """
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ImportError("LoRA needs peft: pip install 'transformers-videollama[train]'") from error
        if model is not None and "target_modules" not in overrides:
            _check_attention(model)
        defaults: dict[str, Any] = {
            "r": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "exclude_modules": _all_but(LANGUAGE_MODEL if "target_modules" in overrides else ATTENTION),
            "modules_to_save": self.modules,
            "task_type": "CAUSAL_LM",
        }
        return LoraConfig(**{**defaults, **overrides})


def _all_but(names: str) -> str:
    """The regular expression of what another does not match."""
    return f"(?!{names}$).+"


def _check_attention(model: VideoLlamaForConditionalGeneration) -> None:
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and re.fullmatch(LANGUAGE_MODEL, name)
    ]
    if not any(re.fullmatch(ATTENTION, name) for name in layers):
        kinds = sorted({name.rpartition(".")[2] for name in layers})
        raise ValueError(
            f"the language model ({model.config.text_config.model_type}) has no attention that LoRA could be put on; "
            f"choose from its linear layers with target_modules: {', '.join(kinds)}"
        )


STAGES = {
    stage.name: stage
    for stage in (
        #             name, branches, text, learning rate, minimum, warm-up, steps, batch
        TrainingStage("vl1", ("video",), "caption", 1e-4, 8e-5, 2500, 12_500, 32),
        TrainingStage("vl2", ("video",), "chat", 3e-5, 1e-5, 1000, 3000, 4),
        TrainingStage("al1", ("audio",), "caption", 1e-4, 8e-5, 5000, 25_000, 32),
        TrainingStage("al2", ("audio",), "chat", 3e-5, 1e-5, 400, 3000, 4),
        TrainingStage("av2", ("video", "audio"), "chat", 3e-5, 1e-5, 1000, 3000, 4),
    )
}


def _check_compiling_for_cpus() -> None:
    if Version(torch.__version__) < COMPILES_FOR_CPUS:
        raise ValueError(
            f"torch {torch.__version__} cannot compile batches of different lengths for a CPU; leave "
            f"{', '.join(COMPILES)} out, or install torch {COMPILES_FOR_CPUS} or later"
        )


def prepare_for_stage(model: VideoLlamaForConditionalGeneration, stage: TrainingStage) -> list[str]:
    """
    Freezes all of the model but the branches of a stage, which are kept in float32: steps as small as a fine-tuning's
    are lost in the rounding of shorter types.

    Args:
        model ([`VideoLlamaForConditionalGeneration`]): changed in place.
        stage ([`TrainingStage`])

    Returns:
        `list[str]`: names of the parameters that train.

    Raises:
        ValueError: if the model lacks what the stage needs.
    """
    branches = [getattr(model.model, module) for module in stage.modules]
    if None in branches:
        raise ValueError(
            f"stage {stage.name} trains the audio branch, which this checkpoint does not have "
            "(config.audio_config is None); convert the original with its imagebind_huge.pth"
        )
    if stage.frames_as_sound and model.model.audio_vision_tower is None:
        raise ValueError(
            f"stage {stage.name} puts frames through ImageBind's vision trunk, which this checkpoint does not have "
            "(config.audio_vision_config is None); convert the original with --with-imagebind-vision"
        )
    model.requires_grad_(False)
    for branch in branches:
        branch.float().requires_grad_(True)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
