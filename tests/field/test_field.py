"""The kinds of files that people have: the right frames, the right times, the right sound."""

from pathlib import Path

import pytest

from .kinds import KINDS
from .making import make


RATE = 16_000
WINDOWS = {"whole": (None, None), "middle": (0.3, 0.7), "last": (0.75, None)}  # parts of the pictures' length


@pytest.fixture(scope="session")
def file_of(tmp_path_factory):
    """Name of a kind -> its file, which is made once."""
    folder, made = tmp_path_factory.mktemp("field"), {}

    def file_of(name: str) -> Path:
        if name not in made:
            recipe = KINDS[name].recipe
            made[name] = make(recipe, folder / f"{len(made)}.{recipe.suffix}")
        return made[name]

    return file_of
