"""
Runs the library's own tests on the classes of this package: `python -m conformance [options of pytest]`.

They come from the source distribution of the installed transformers, which is fetched once and kept in the user's
cache.
"""

import os
import subprocess
import sys
from pathlib import Path

from .library_tests import TINY_MODELS, fetch_library_tests


ROOT = Path(__file__).parents[1]


def main() -> int:
    folder = fetch_library_tests()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "TRANSFORMERS_TINY_MODEL_PATH": str(folder / TINY_MODELS),
        "HF_HUB_OFFLINE": "1",
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    command = [sys.executable, "-m", "pytest", "-c", "conformance/pytest.ini", "--rootdir", ".", "conformance"]
    return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
