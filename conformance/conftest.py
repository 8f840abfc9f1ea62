"""Leaves out what `skips.py` names, and prints one table of all that was skipped, and why."""

import re
from collections import Counter

import pytest
import transformers
from packaging import version
from transformers.models.auto import modeling_auto

from .skips import SKIPPED, SKIPPED_BEFORE_5_23, SKIPPED_FROM_5_24


# Their tests of pipelines would import the library a second time, from the source tree that they expect around them
transformers.utils.direct_transformers_import = lambda path: transformers

# How the library's tests know which classes have no head, and so no loss
modeling_auto.MODEL_MAPPING_NAMES |= {
    "video_llama": "VideoLlamaModel",
    "video_llama_audio": "VideoLlamaAudioModel",
    "video_llama_audio_vision": "VideoLlamaAudioVisionModel",
}


def pytest_collection_modifyitems(session, items):
    names = {"::".join(item.nodeid.split("::")[1:]): item for item in items}
    expected = SKIPPED | SKIPPED_FROM_5_24 if _is_library("5.24") else SKIPPED
    if session.config.args == ["conformance"] and (unknown := set(expected) - set(names)):
        raise pytest.UsageError(f"skips.py names tests that do not exist: {', '.join(sorted(unknown))}")
    reasons = expected if _is_library("5.23") else expected | SKIPPED_BEFORE_5_23
    for name in set(reasons) & set(names):
        names[name].add_marker(pytest.mark.skip(reason=f"[ours] {reasons[name]}"))


def _is_library(least: str) -> bool:
    return version.parse(transformers.__version__) >= version.parse(least)


def pytest_terminal_summary(terminalreporter):
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("skipped, and why")
    for reason, number in sorted(reasons.items(), key=lambda row: (not row[0].startswith("[ours]"), -row[1])):
        terminalreporter.line(f"{number:4}  {reason}")


def _reason(report) -> str:
    """The reason of a skipped test, without names of tests and classes, so that equal reasons count together."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    text = re.sub(r"\s+", " ", text.removeprefix("Skipped: "))
    if "pipeline_model_mapping" in text:
        return "a pipeline of a task that the model is not for"
    return re.sub(r"<class '[\w.]+'>|VideoLlama\w+", "the model", text)
