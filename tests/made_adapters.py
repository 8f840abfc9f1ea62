"""Adapters and branches that are random instead of trained, saved as training saves them."""

from pathlib import Path

import torch
from peft import get_peft_model
from training_run import conversations, tiny_model

from transformers_videollama.training import STAGES, prepare_for_stage, save_branch


__all__ = ["logits", "save_adapter", "save_random_branch"]


def save_adapter(checkpoint: Path, folder: Path, stage: str = "vl2", **options) -> torch.nn.Module:
    """Saves LoRA with the branch of a stage -> the model that has them, as PEFT itself merges it."""
    model = tiny_model(checkpoint, dtype=torch.float32)
    prepare_for_stage(model, STAGES[stage])
    adapted = get_peft_model(model, STAGES[stage].lora_config(**{"lora_dropout": 0.0, **options}))
    _change(adapted)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload().eval()


def save_random_branch(checkpoint: Path, path: Path, stage: str = "vl2") -> torch.nn.Module:
    """Saves the branch of a stage -> the model that has it."""
    model = tiny_model(checkpoint, dtype=torch.float32)
    prepare_for_stage(model, STAGES[stage])
    _change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_branch(model, path)
    return model.eval()


def _change(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def logits(model: torch.nn.Module, processor) -> torch.Tensor:
    """Of two conversations, about a video and about an image."""
    batch = STAGES["vl2"].collator(processor)(conversations(2))
    with torch.no_grad():
        return model.eval()(**batch).logits
