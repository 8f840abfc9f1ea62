"""
Original Video-LLaMA checkpoints -> a folder that `from_pretrained` loads.

    python -m conversion SOURCE OUTPUT

From Python: [`convert`] with [`ConversionOptions`]. The way back, for the two trained branches:
[`original_branch_state`].
"""

from .branches import original_branch_state
from .errors import ConversionError
from .options import ConversionOptions
from .pipeline import convert
from .plan import plan_conversion


__all__ = ["ConversionError", "ConversionOptions", "convert", "original_branch_state", "plan_conversion"]
