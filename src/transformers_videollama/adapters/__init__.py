"""
What was trained on top of a checkpoint, put into it: LoRA adapters of PEFT and trained branches.

[`load_trained`] changes a model in memory; [`merge`] writes a plain checkpoint, or the files that the original loads.
"""

import lazy_loader


__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["load_checkpoint", "processor_source"],
        "loading": ["load_trained"],
        "merging": ["MergeOptions", "merge"],
    },
)
