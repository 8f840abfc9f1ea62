"""
The common tests of the installed transformers, which its wheel does not contain: fetched as a source distribution, and
kept outside this repository as the package `tests`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

from transformers_videollama import TINY_CHECKPOINT


STUBS = Path(__file__).parent / "stubs"
TINY_MODELS = "tiny_models"


def fetch_library_tests() -> Path:
    """
    The folder that has `tests`, for `PYTHONPATH`, and the folder of tiny models that the tests of pipelines load;
    the source distribution is fetched once for each version of the library.

    Raises:
        subprocess.CalledProcessError: if pip cannot get the source distribution.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transformers_videollama"
    folder = cache / f"transformers-{transformers.__version__}"
    if not (folder / "tests").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            _download(Path(temporary)).rename(folder / "tests")
    # What the distribution leaves out, though its tests import it
    shutil.copytree(STUBS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    _write_empty_pipeline_tests(folder / "tests")
    _save_tiny_models(folder / TINY_MODELS)
    return folder


def _download(folder: Path) -> Path:
    """The folder of tests in the source distribution, unpacked under `folder`."""
    source = f"transformers=={transformers.__version__}"
    # Without isolation: pip would install the library's build tools first, which takes minutes
    options = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--quiet", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, source], check=True)
    (archive,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (tests,) = folder.glob("transformers-*/tests")
    return tests


def _write_empty_pipeline_tests(tests: Path) -> None:
    """Older versions import the tests of all tasks, of which the stand-ins have those that the model is for."""
    mixin = (tests / "test_pipeline_mixin.py").read_text()
    for module, name in re.findall(r"^from \.pipelines\.(\w+) import (\w+)", mixin, flags=re.MULTILINE):
        path = tests / "pipelines" / f"{module}.py"
        if not path.exists():
            path.write_text(f"class {name}:\n    pass\n")


def _save_tiny_models(folder: Path) -> None:
    """The tree and the index of tiny models that the tests of pipelines read; ours is the package's own."""
    name = "VideoLlamaForConditionalGeneration"
    shutil.copytree(TINY_CHECKPOINT, folder / "video_llama" / name, dirs_exist_ok=True)
    classes = {"tokenizer_classes": ["AutoTokenizer"], "processor_classes": []}
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / "tiny_model_summary.json").write_text(json.dumps({name: classes}))
