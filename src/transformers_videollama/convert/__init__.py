"""
Original Video-LLaMA checkpoints -> a folder that `from_pretrained` loads.

    videollama convert SOURCE OUTPUT

From Python: [`convert`] with [`ConversionOptions`]. The way back, for the two trained branches:
[`original_branch_state`]. Code next to the weights of any checkpoint, such as a fine-tuned one: [`export_code`].
"""

import lazy_loader


__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "branches": ["original_branch_state", "read_original_branch"],
        "errors": ["ConversionError"],
        "hub_code": ["export_code"],
        "language_model": ["read_json"],
        "options": ["ConversionOptions"],
        "pipeline": ["convert"],
        "plan": ["plan_conversion"],
        "sources": ["TOKENIZER_FILES"],
        "weights": ["check_space"],
    },
)
