"""The optimizer of all phases, and the training loop of what is trained before the paper's stages."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers import get_cosine_with_min_lr_schedule_with_warmup


WARM_UP, LAST_RATE = 0.05, 0.02  # as shares of the steps and of the learning rate


class MuonAndAdamW(torch.optim.Optimizer):
    """
    Muon (arXiv 2502.16982) for the matrices of hidden layers, AdamW for all else, as one optimizer. What AdamW takes
    thousands of steps for, to look things up or to tell how things move, takes hundreds.

    Args:
        modules (`nn.Module`): whose parameters are trained, but for those that need no gradient.
        learning_rate (`float`): of Muon; AdamW has 2e-3.
    """

    def __init__(self, *modules: nn.Module, learning_rate: float):
        tables = {id(part.weight) for module in modules for part in module.modules() if isinstance(part, nn.Embedding)}
        tables |= {id(module.weight) for module in modules if isinstance(module, nn.Linear)}  # a head
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in tables]
        others = [p for p in trained if p.ndim != 2 or id(p) in tables]
        super().__init__([{"params": matrices, "lr": learning_rate}, {"params": others, "lr": 2e-3}], {})
        self.optimizers = (
            torch.optim.Muon(self.param_groups[:1], weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(self.param_groups[1:], betas=(0.9, 0.98), weight_decay=0.01),
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for optimizer, group in zip(self.optimizers, self.param_groups, strict=True):
            optimizer.param_groups = [group]  # whose learning rate a schedule may have set
            optimizer.step()


@dataclass
class Schedule:
    """
    How long and how fast one phase trains, and what becomes of its losses.

    Args:
        num_steps (`int`)
        learning_rate (`float`): of Muon.
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
        optimizer = MuonAndAdamW(*modules, learning_rate=self.learning_rate)
        rates = get_cosine_with_min_lr_schedule_with_warmup(
            optimizer, round(WARM_UP * self.num_steps), self.num_steps, min_lr_rate=LAST_RATE
        )
        start, since = time.time(), 0
        for number in range(self.num_steps):
            step = Step(self.rng, optimizer)
            yield step
            rates.step()
            self.losses.append(step.loss)
            if (number + 1) % self.every == 0 or number + 1 == self.num_steps:
                mean = float(np.mean(self.losses[since:]))
                since = len(self.losses)
                self.say(f"  step {number + 1}/{self.num_steps}  loss {mean:.4f}  {time.time() - start:.0f} s")


@dataclass
class Step:
    """One step of a training loop."""

    rng: np.random.Generator
    optimizer: torch.optim.Optimizer
    loss: float = float("nan")

    def backward(self, loss: torch.Tensor) -> None:
        """Follow the gradient of a loss."""
        self.loss = float(loss.detach())
        loss.backward()
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
