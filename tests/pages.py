"""Pages of the documentation: their blocks of code, run as they are printed."""

import os
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path


__all__ = ["ROOT", "Page"]

ROOT = Path(__file__).parents[1]


class Page:
    """
    Attributes:
        path (`Path`): From the top of the repository.
        text (`str`)
        blocks (`list[tuple[str, str]]`): The language of every block, and its code.
    """

    def __init__(self, path: str):
        self.path = Path(path)

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        return re.findall(r"```(\w+)\n(.*?)```", self.text, flags=re.DOTALL)

    def code(self, language: str) -> list[str]:
        return [code for name, code in self.blocks if name == language]

    def names_of_files(self) -> set[Path]:
        """Files and folders that its links and its text name, from the top of the repository."""
        links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", self.text)
        named = re.findall(r"`((?:examples|benchmarks|docs|conversion)/[\w/.-]+)`", self.text)
        return {self.path.parent / link for link in links} | {Path(name) for name in named}

    def execute(self, code: str, names: dict) -> None:
        """Runs Python code of the page in this process."""
        exec(compile(code, str(self.path), "exec"), names)

    @staticmethod
    def run(command: list[str], folder: Path, **environment: str) -> str:
        """Runs a command in `folder`, with this environment's programs and the repository's modules; its output."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout
