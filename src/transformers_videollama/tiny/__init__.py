"""
A trained Video-LLaMA of 4.2 million parameters, for trying things out and for tests: it sees coloured shapes that move
and hears eight sounds. `README.md` next to it says how it was made and what it can do.
"""

from pathlib import Path


__all__ = ["TINY_CHECKPOINT"]

TINY_CHECKPOINT = str(Path(__file__).parent)
