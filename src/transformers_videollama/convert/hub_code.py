"""Code beside the weights, so that a folder loads with `trust_remote_code=True` where the package is not installed."""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

import transformers_videollama


__all__ = ["add_code"]

MODEL = "modeling_video_llama.VideoLlamaForConditionalGeneration"
# Complete and in this order, as serving engines take the configuration and then the first model class that they find.
MODEL_MAP = {
    "AutoConfig": "configuration_video_llama.VideoLlamaConfig",
    "AutoModel": "modeling_video_llama.VideoLlamaModel",
    "AutoModelForMultimodalLM": MODEL,
    "AutoModelForImageTextToText": MODEL,
    "AutoModelForCausalLM": MODEL,
}
PROCESSOR_MAP = {"AutoProcessor": "processing_video_llama.VideoLlamaProcessor"}
# Entry of processor_config.json -> its own map.
PART_MAPS = {
    "image_processor": {"AutoImageProcessor": "image_processing_video_llama.VideoLlamaImageProcessor"},
    "video_processor": {"AutoVideoProcessor": "video_processing_video_llama.VideoLlamaVideoProcessor"},
    "feature_extractor": {"AutoFeatureExtractor": "feature_extraction_video_llama.VideoLlamaFeatureExtractor"},
}


def add_code(folder: Path) -> None:
    """Copies the modules that the classes above need, and names the classes in the configurations in `folder`."""
    package = Path(transformers_videollama.__file__).parent
    maps = (MODEL_MAP, PROCESSOR_MAP, *PART_MAPS.values())
    modules = {package / f"{name.split('.')[0]}.py" for names in maps for name in names.values()}
    for module in sorted(modules):
        modules.update(map(Path, get_relative_import_files(module)))
    for module in modules:
        shutil.copyfile(module, folder / module.name)

    _edit(folder / "config.json", lambda config: {"auto_map": MODEL_MAP} | config)
    _edit(folder / "processor_config.json", _with_processor_maps)
    _edit(
        folder / "video_preprocessor_config.json", lambda config: {"auto_map": PART_MAPS["video_processor"]} | config
    )


def _with_processor_maps(config: dict[str, Any]) -> dict[str, Any]:
    for part, names in PART_MAPS.items():
        config[part] = {"auto_map": names} | config[part]
    return {"auto_map": PROCESSOR_MAP} | config


def _edit(path: Path, change) -> None:
    config = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
