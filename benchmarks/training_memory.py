"""
Memory of a training step of the 7B model, without its weights and without a GPU: the step is run on fake tensors,
which have shapes and no data, and the bytes of all that are alive are counted. What a real allocator adds (fragments,
workspaces, the CUDA context: about 1 GiB) is not in it.

    python -m benchmarks.training_memory            # a table
    python -m benchmarks.training_memory --json
"""

import argparse
import itertools
import json
import platform
import sys
from unittest import mock

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaResampler
from transformers_videollama.training import STAGES, TrainingStage

from .models import checkpoint_activations


GIB = 1 << 30
NUM_FRAMES = 8
TEXT_TOKENS = 256


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, and remembers the most."""

    def __init__(self, *alive: torch.Tensor):
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = self.peak = 0
        self._add(alive)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self._add(outputs)
        return outputs

    def _add(self, tensors) -> None:
        for tensor in tree_iter(tensors):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                known = self.alive.get(storage._cdata)
                if known is None or known[0].expired():
                    self.bytes += storage.nbytes() - (known[1] if known else 0)
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if self.bytes > self.peak:  # only then does it matter what has been freed since
            self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
            self.bytes = sum(size for _, size in self.alive.values())
            self.peak = max(self.peak, self.bytes)


def fake_model(stage: TrainingStage) -> VideoLlamaForConditionalGeneration:
    """The 7B model in bfloat16, its trained branch in float32, as `prepare_for_stage` leaves it."""
    parts = {} if stage.branches == ("video",) else {"audio_config": {}, "audio_vision_config": {}}
    config = VideoLlamaConfig(**parts)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    model = VideoLlamaForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.requires_grad_(False)
    for module in stage.modules:
        branch = VideoLlamaResampler(getattr(config, f"{module}_config"), config.text_config.hidden_size)
        setattr(model.model, module, branch)
    return model


def peak_bytes(stage: TrainingStage, batch_size: int, checkpointing: bool) -> tuple[int, int]:
    """(bytes of the parameters, most bytes alive in the second of two steps)"""
    # Checks that read values, which fake tensors do not have, are left out as in a compiled graph
    with FakeTensorMode(), mock.patch("torch.compiler.is_compiling", return_value=True):
        model = fake_model(stage)
        if checkpointing:
            checkpoint_activations(model)
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=False)
        placeholders = 8 if stage.frames_as_sound else 32
        ids = torch.zeros(batch_size, TEXT_TOKENS + placeholders, dtype=torch.long)
        name = "audio_pixel_values" if stage.frames_as_sound else "pixel_values_videos"
        inputs = {
            "input_ids": ids,
            "labels": ids,
            "attention_mask": torch.ones_like(ids),
            name: torch.zeros(batch_size, NUM_FRAMES, 3, 224, 224, dtype=torch.bfloat16),
        }
        with LiveBytes(*model.parameters(), *inputs.values()) as live:
            for _ in range(2):
                live.peak = 0
                model(**inputs).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        return sum(p.numel() * p.element_size() for p in model.parameters()), live.peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8, 32])
    arguments = parser.parse_args()
    rows = []
    for name, batch_size, checkpointing in itertools.product(("vl2", "al2"), arguments.batch_sizes, (False, True)):
        parameters, peak = peak_bytes(STAGES[name], batch_size, checkpointing)
        row = {"stage": name, "batch_size": batch_size, "checkpointing": checkpointing}
        rows.append({**row, "parameters_gib": round(parameters / GIB, 2), "peak_gib": round(peak / GIB, 2)})
        print(rows[-1], file=sys.stderr)
    about = {
        "what": f"bytes alive in a training step, bfloat16, {NUM_FRAMES} frames, {TEXT_TOKENS} tokens of text, sdpa",
        "command": "python -m benchmarks.training_memory --json",
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if arguments.json:
        print(json.dumps({**about, "rows": rows}))
        return
    print("| stage | batch | checkpointing | parameters | peak |\n|---|---|---|---|---|")
    for row in rows:
        used = "yes" if row["checkpointing"] else "no"
        print(f"| {row['stage']} | {row['batch_size']} | {used} | {row['parameters_gib']} | {row['peak_gib']} |")


if __name__ == "__main__":
    main()
