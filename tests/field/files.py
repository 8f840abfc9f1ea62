"""The files of the table, each of which is made once."""

from pathlib import Path

from .kinds import KINDS, SOUNDS
from .making import make


__all__ = ["Files"]


class Files:
    """Name of a kind -> its file, which is made when it is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: dict[str, Path] = {}

    def __call__(self, name: str) -> Path:
        if name not in self.made:
            recipe = (KINDS | SOUNDS)[name].recipe
            self.made[name] = make(recipe, self.folder / f"{len(self.made)}.{recipe.suffix}")
        return self.made[name]
