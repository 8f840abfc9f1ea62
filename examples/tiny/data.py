"""
The clips: mp4 files in folders, each with an index that says what is in them.

| folder | clips | used by |
|---|---|---|
| `things` | things that move, silent, of combinations for training | VL 1, VL 2 |
| `sounding` | pictures of what sounds, silent | AL 1, AL 2 |
| `held_out` | things of other combinations, silent or with any sound | evaluation |
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from . import world
from .render import render, render_sounding
from .world import Scene, Thing


FOLDERS = ("things", "sounding", "held_out")


def make_clips(folder: Path, name: str, number: int, seed: int) -> None:
    """Render `number` clips into `folder / name`, with an index."""
    clips = folder / name
    clips.mkdir(parents=True, exist_ok=True)
    index = []
    for i in range(number):
        rng = np.random.default_rng([seed, FOLDERS.index(name), i])
        path, scene = clips / f"{i:05}.mp4", _scene(name, i, rng)
        if name == "sounding":
            render_sounding(scene.sound, path, rng)
        else:
            render(scene, path, rng)
        index.append(asdict(scene))
    (clips / "index.json").write_text(json.dumps(index))


def _scene(name: str, i: int, rng: np.random.Generator) -> Scene:
    """Numbers of things and kinds of sound take turns, so that every split has its share of each."""
    kinds = list(world.SOUNDS)
    if name == "sounding":
        return Scene(None, kinds[i % len(kinds)])
    things = world.random_things(rng, 1 + i % world.MAX_OBJECTS, held_out=name == "held_out")
    heard = name == "held_out" and i // world.MAX_OBJECTS % 2
    return Scene(things, kinds[i // (2 * world.MAX_OBJECTS) % len(kinds)] if heard else None)


def read_index(folder: Path, name: str) -> list[tuple[Path, Scene]]:
    """The clips of `folder / name`, and what is in them."""
    rows = json.loads((folder / name / "index.json").read_text())
    scenes = [
        Scene(None if row["things"] is None else tuple(Thing(**thing) for thing in row["things"]), row["sound"])
        for row in rows
    ]
    return [(folder / name / f"{i:05}.mp4", scene) for i, scene in enumerate(scenes)]
