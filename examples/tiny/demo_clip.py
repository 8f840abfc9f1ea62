"""
Renders a clip to try the tiny model on: a red circle moves left, and a bell rings.

python -m examples.tiny.demo_clip OUT.mp4
"""

import argparse
from pathlib import Path

import numpy as np

from .render import render
from .world import Scene, Thing


def render_demo_clip(path: str | Path, *, seed: int = 0) -> Path:
    """Write a clip of a combination that no clip of the training has."""
    return render(Scene((Thing("circle", "red", "left"),), "bell"), Path(path), np.random.default_rng(seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="OUT.mp4", type=Path, help="the file to write")
    parser.add_argument("--seed", type=int, default=0, help="another place, ground and pitch (default: %(default)s)")
    arguments = parser.parse_args()
    render_demo_clip(arguments.path, seed=arguments.seed)
