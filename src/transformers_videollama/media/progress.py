"""Says how far a thing is that takes long: on a terminal, and after a second."""

import sys
from typing import Any

from tqdm import tqdm


__all__ = ["progress_bar"]


def progress_bar(what: str, total: int | None) -> Any:
    """
    A bar of bytes, to be used by `with` and moved by its `update`. It is shown on a terminal alone.

    Args:
        what (`str`): the work and its file.
        total (`int`, *optional*): bytes in all; `None` if that is not known.
    """
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    # Not `disable=None`: that would overrule TQDM_DISABLE
    options = {} if on_terminal else {"disable": True}
    return tqdm(desc=what[:60], total=total, unit="B", unit_scale=True, delay=1.0, leave=False, **options)
