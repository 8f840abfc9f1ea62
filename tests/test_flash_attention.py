"""Flash attention without a GPU: the cases run in an interpreter that has a stand-in for its package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


TESTS = Path(__file__).parent


@pytest.mark.slow
def test_flash_attention_equals_eager():
    path = os.pathsep.join(filter(None, (str(TESTS / "standins"), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "cases_flash_attention.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
