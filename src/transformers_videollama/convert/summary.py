"""The summary of a conversion, for people."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from .plan import PARTS, Plan


__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """
    Args:
        plan ([`Plan`])
        output (`Path`)
        style (`str`): of the prompts.
        dtype (`torch.dtype`): of the weights.
        training_state (`dict`): file -> its entries other than the weights.
        weight_files (`list` of `str`, *optional*): the files that were written; `None` for a dry run.
    """

    plan: Plan
    output: Path
    style: str
    dtype: torch.dtype
    training_state: dict[str, tuple[str, ...]]
    weight_files: list[str] | None = None

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters of each part that the model has."""
        counts: Counter[str] = Counter()
        for entry in self.plan.entries:
            counts[entry.part] += torch.Size(entry.shape).numel()
        return {part: counts[part] for part in PARTS if part in counts}

    @property
    def num_bytes(self) -> int:
        return sum(self.parameters.values()) * self.dtype.itemsize

    def __str__(self) -> str:
        lines = [f"{'part':<20} {'parameters':>15}"]
        lines += [f"{part:<20} {count:>15,}" for part, count in self.parameters.items()]
        lines.append(f"{'together':<20} {sum(self.parameters.values()):>15,}")
        lines.append(f"{self.num_bytes:,} bytes in {self.dtype}, prompt style {self.style}")
        for reason, keys in self.plan.ignored.items():
            lines.append(f"ignored {len(keys)} keys, such as {keys[0][1]}: {reason}")
        for file, entries in self.training_state.items():
            lines.append(f"ignored {', '.join(entries)} of {file}: state of the training run")
        if self.weight_files is None:
            lines.append(f"dry run: all names and shapes fit; {self.output} was not written")
        else:
            lines.append(f"wrote {self.output}, weights in {len(self.weight_files)} files")
        return "\n".join(lines)
