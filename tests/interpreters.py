"""Interpreters of their own, for what depends on what was imported before."""

import os
import subprocess
import sys
import textwrap


__all__ = ["run_python"]


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
