"""Interpreters of their own, for what depends on what was imported before."""

import os
import re
import subprocess
import sys
import textwrap


__all__ = ["run_python", "told"]


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def told(stderr: str, word: str) -> list[str]:
    """
    Lines that have a word, but for warnings in torch's own log, which begin with a W and the date: those that torchao
    causes, of what "is deprecated and will be an error", are not about this package.
    """
    return [line for line in stderr.splitlines() if word in line and not re.match(r"W\d{4} ", line)]
