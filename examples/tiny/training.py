"""The training loop of what is trained before the paper's stages: Muon for matrices, AdamW for the rest."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn


@dataclass
class Schedule:
    """
    How long and how fast one phase trains, and what becomes of its losses.

    Args:
        num_steps (`int`)
        learning_rate (`float`): of Muon (arXiv 2502.16982), which is for the matrices of hidden layers; with it, a
            language model learns to look things up in a fraction of AdamW's steps. All else has AdamW, at 2e-3.
        rng (`np.random.Generator`): what batches are drawn with.
        say (`Callable`): where progress is printed.
    """

    num_steps: int
    learning_rate: float
    rng: np.random.Generator
    say: Callable[[str], None] = print
    every: int = 50
    losses: list[float] = field(default_factory=list)

    def steps(self, *modules: nn.Module) -> Iterator["Step"]:
        """Yield the steps one after the other; each must call `backward` once."""
        optimizers = self._optimizers(modules)
        start, since = time.time(), 0
        for number in range(self.num_steps):
            warm_up = min(1.0, (number + 1) / max(1, self.num_steps // 20))
            cosine = 0.5 * (1 + math.cos(math.pi * number / self.num_steps))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * warm_up * (0.02 + 0.98 * cosine)
            step = Step(self.rng, optimizers)
            yield step
            self.losses.append(step.loss)
            if (number + 1) % self.every == 0 or number + 1 == self.num_steps:
                mean = float(np.mean(self.losses[since:]))
                since = len(self.losses)
                self.say(f"  step {number + 1}/{self.num_steps}  loss {mean:.4f}  {time.time() - start:.0f} s")

    def _optimizers(self, modules: tuple[nn.Module, ...]) -> list[torch.optim.Optimizer]:
        tables = {id(part.weight) for module in modules for part in module.modules() if isinstance(part, nn.Embedding)}
        tables |= {id(module.weight) for module in modules if isinstance(module, nn.Linear)}  # a head
        parameters = [parameter for module in modules for parameter in module.parameters()]
        matrices = [p for p in parameters if p.ndim == 2 and id(p) not in tables]
        others = [p for p in parameters if p.ndim != 2 or id(p) in tables]
        return [
            torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01),
            torch.optim.Muon(matrices, lr=self.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        ]


@dataclass
class Step:
    """One step of a training loop."""

    rng: np.random.Generator
    optimizers: list[torch.optim.Optimizer]
    loss: float = math.nan

    def backward(self, loss: torch.Tensor) -> None:
        """Follow the gradient of a loss."""
        self.loss = float(loss.detach())
        loss.backward()
        for optimizer in self.optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
