"""Code next to the weights: a folder that loads with `trust_remote_code=True` where the package is not installed."""

import ast
import json
import os
from pathlib import Path
from typing import Any

from .. import __version__
from ..files import appearing
from .flatten import flatten


__all__ = ["export_code"]

# The one module that every `auto_map` names. The library gives each module that is named in a local folder a copy of
# its own, of itself and of all that it imports, and to one copy the classes of another are strangers.
ENTRY = "video_llama"
MODEL = f"{ENTRY}.VideoLlamaForConditionalGeneration"
# Complete and in this order, as serving engines take the configuration and then the first model class that they find.
MODEL_MAP = {
    "AutoConfig": f"{ENTRY}.VideoLlamaConfig",
    "AutoModel": f"{ENTRY}.VideoLlamaModel",
    "AutoModelForMultimodalLM": MODEL,
    "AutoModelForImageTextToText": MODEL,
    "AutoModelForCausalLM": MODEL,
}
PROCESSOR_MAP = {"AutoProcessor": f"{ENTRY}.VideoLlamaProcessor"}
# Entry of processor_config.json -> its own map, with the processor's, as the library writes it
PART_MAPS = {
    "image_processor": {"AutoImageProcessor": f"{ENTRY}.VideoLlamaImageProcessor", **PROCESSOR_MAP},
    "video_processor": {"AutoVideoProcessor": f"{ENTRY}.VideoLlamaVideoProcessor", **PROCESSOR_MAP},
    "feature_extractor": {"AutoFeatureExtractor": f"{ENTRY}.VideoLlamaFeatureExtractor", **PROCESSOR_MAP},
}
# Public modules that the exported code does without: a checkpoint has its template, and `auto_map` registers.
LEFT_OUT = ("chat_templates", "registration", "tiny")

ENTRY_HEAD = '''\
"""
Video-LLaMA (arXiv 2306.02858) for `trust_remote_code=True`: the code of transformers_videollama {version}, in which
every `auto_map` names this module. The package itself is `pip install transformers-videollama`.
"""
'''
ENTRY_TAIL = """\
# When a loaded object is saved, the library writes the module that its class names into `auto_map`, and copies it.
for _name in __all__:
    globals()[_name].__module__ = __name__
"""


def export_code(folder: str | os.PathLike) -> list[Path]:
    """
    Puts the package's code next to a checkpoint, and names its classes in the configurations there. Doing it again
    renews the code. The code is that of the core: configuration, network, processors, media and conversations.

    Args:
        folder (`str` or `os.PathLike`): A checkpoint as `save_pretrained` writes it. Where the processor was not saved
            there, only the model gets its code.

    Returns:
        `list[Path]`: the files that were written.

    Raises:
        ValueError: where `folder` has no `config.json`, or that of another model; nothing is written.
        OSError: where a file cannot be read or written.
    """
    folder = Path(folder)
    config = _read(folder / "config.json")
    if config is None:
        raise ValueError(f"{folder} has no config.json; give a folder that a model was saved in with save_pretrained")
    if config.get("model_type") != "video_llama":
        raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}, expected 'video_llama'")
    files = {f"{name}.py": source for name, source in _modules().items()}
    configs = {"config.json": _with_map(config, MODEL_MAP)}
    processor = _read(folder / "processor_config.json")
    if processor is not None:
        parts = {name: _with_map(processor[name], names) for name, names in PART_MAPS.items() if name in processor}
        configs["processor_config.json"] = _with_map({**processor, **parts}, PROCESSOR_MAP)
        # vLLM looks for the video processor here, and not in processor_config.json
        if "video_processor" in parts:
            configs["video_preprocessor_config.json"] = parts["video_processor"]
    for name, values in configs.items():  # behind the code, which they name
        files[name] = (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
    for name, content in files.items():
        with appearing(folder / name) as partial:
            partial.write_bytes(content)
    return [folder / name for name in files]


def _modules() -> dict[str, bytes]:
    """The source of all modules by name, with the entry module, which imports what the package's stub imports."""
    package = Path(__file__).parents[1]
    stub = (package / "__init__.pyi").read_text(encoding="utf-8")
    imports = [
        node
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module not in LEFT_OUT
    ]
    lines = [ast.get_source_segment(stub, node) or "" for node in imports]
    names = sorted(alias.name for node in imports for alias in node.names)
    exported = "__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"
    head = ENTRY_HEAD.format(version=__version__)
    entry = "\n".join([head, *lines, "\n", exported, ENTRY_TAIL])
    return {**flatten(package, [str(node.module) for node in imports]), ENTRY: entry.encode()}


def _with_map(config: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Ours first and in their order; what else the map names stays."""
    others = {name: value for name, value in config.get("auto_map", {}).items() if name not in names}
    return {**config, "auto_map": {**names, **others}}


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
