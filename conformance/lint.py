"""
Runs `transformers-mlinter`, which checks the structure of models in the library, on the model code of this package:
`python -m conformance.lint`. What cannot hold outside of the library stands in `EXCLUDED`, with the reason.

The package is shown to it in the place of a model of the library, next to the installed models, because some rules
look for a model's neighbours.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path


PACKAGE = Path(__file__).parents[1] / "src" / "transformers_videollama"

# Rules that are left out, each with its reason. One that finds nothing any more must leave this list.
EXCLUDED = {
    "TRF009": (
        "No imports from other models: the model is composed of the library's BLIP-2 and LLaMA, where code in the "
        "library would be generated from them. Only their public names are imported."
    ),
    "TRF019": (
        "No `_defaults` in the processor: the oldest supported transformers knows no other place for the default "
        "padding of text, and converted checkpoints have none in their processor_config.json."
    ),
    "TRF022": (
        "No foreign classes in `_no_split_modules`: BLIP-2 itself does not name its Q-Former's layer, which a device "
        "map must not split. A test checks that every name there is that of a module."
    ),
    "TRF038": "A test file for each source file under its name: tests of this repository are named by their subject.",
    "TRF057": (
        "`@auto_docstring`: outside of the library it writes `None` in place of the model's name, of its "
        "checkpoint and of its configuration, and prints [ERROR] lines on import. Docstrings are written by hand, and "
        "a test checks that they name every argument."
    ),
}


def main() -> int:
    findings = list(find())
    counts = Counter(finding["rule"] for finding in findings)
    left = [finding for finding in findings if finding["rule"] not in EXCLUDED]
    for finding in left:
        print(f"{finding['path']}:{finding['line']}: {finding['message']}")
    stale = [rule for rule in EXCLUDED if not counts[rule]]
    for rule in stale:
        print(f"{__file__}: {rule} is excluded, but finds nothing any more; remove it from the list")
    if not left and not stale:
        print(f"All checks of models passed, without {', '.join(EXCLUDED)}.")
    return 1 if left or stale else 0


def find() -> Iterator[dict]:
    """What all rules find, also those that are not enabled by default: `path`, `line`, `rule` and `message`."""
    with tempfile.TemporaryDirectory() as folder:
        model = _build_library(Path(folder))
        report = Path(folder) / "findings.json"
        command = [sys.executable, "-m", "mlinter", "--no-cache", "--no-progress", "--enable-all-trf-rules"]
        command += ["--output-json", str(report), str(model.relative_to(folder))]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.exists():  # 0 and 1 say whether something was found; everything else fails before the report
            raise RuntimeError(f"mlinter ended with {run.returncode} and no report:\n{run.stdout}{run.stderr}")
        for finding in json.loads(report.read_text(encoding="utf-8"))["findings"]:
            yield {**finding, "path": PACKAGE / Path(finding["path"]).name}


def _build_library(root: Path) -> Path:
    """A folder laid out as the library's repository, of links; returns that of the model."""
    models = root / "src" / "transformers" / "models"
    models.mkdir(parents=True)
    (library,) = importlib.util.find_spec("transformers").submodule_search_locations  # without importing it
    for folder in (Path(library) / "models").iterdir():
        if folder.is_dir():
            (models / folder.name).symlink_to(folder)
    model = models / "video_llama"
    model.mkdir()
    for file in PACKAGE.glob("*.py"):
        (model / file.name).symlink_to(file)
    return model


if __name__ == "__main__":
    sys.exit(main())
