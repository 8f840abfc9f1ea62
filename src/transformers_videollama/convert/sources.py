"""Finding the files of a conversion: by name in a folder or a repository on the Hub, or as the options say."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx
from huggingface_hub import HfApi, hf_hub_download
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .checkpoints import shards_of, weight_files
from .errors import ConversionError


__all__ = ["BLIP2_PARTS", "TOKENIZER_FILES", "Sources", "find_sources", "is_vicuna_era"]

VICUNA_ERA = r"(pretrain|finetune)[-_](vicuna|ziya|billa)\d+b"
SEARCH_DEPTH = 3
GGUF = ".gguf"
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2"


@dataclass(frozen=True)
class FileKind:
    """How one of the original's files is called, and where a user finds it."""

    names: str
    example: str
    hint: str

    def matches(self, path: str) -> bool:
        return re.fullmatch(self.names, PurePosixPath(path).name) is not None


FILES = {
    "vision": FileKind(
        r"eva_vit_g\.pth",
        "eva_vit_g.pth",
        f"download {LAVIS}/eva_vit_g.pth, or give --blip2 a BLIP-2 folder such as Salesforce/blip2-flan-t5-xxl",
    ),
    "blip2": FileKind(
        r"blip2_pretrained_flant5xxl\.pth",
        "blip2_pretrained_flant5xxl.pth",
        f"download {LAVIS}/blip2_pretrained_flant5xxl.pth",
    ),
    "video_branch": FileKind(
        rf"VL_.*\.pth|{VICUNA_ERA}(-v\d+|-zh)*\.pth",
        "VL_LLaMA_2_7B_Finetuned.pth",
        "it is in the released Video-LLaMA-2-* and Video-LLaMA-Series repositories",
    ),
    "imagebind": FileKind(
        r"imagebind_huge\.pth",
        "imagebind_huge.pth",
        "it is in the released Video-LLaMA-2-* repositories; --no-audio does without",
    ),
    "audio_branch": FileKind(
        rf"AL_.*\.pth|{VICUNA_ERA}_audiobranch\.pth",
        "AL_LLaMA_2_7B_Finetuned.pth",
        "it is in the released Video-LLaMA-2-* and Video-LLaMA-Series repositories; --no-audio does without",
    ),
}
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
# The tensors that Video-LLaMA has in common with a BLIP-2 in the library's format.
BLIP2_PARTS = ("vision_model.", "qformer.", "query_tokens")


@dataclass(frozen=True)
class Sources:
    """
    Args:
        files (`dict`): kind of file -> path. "blip2" may be a folder, and then there is no "vision".
        llama (`Path`): the language model's folder or GGUF file, or the folder of its delta.
        base_llama (`Path`, *optional*): what the delta is added to.
    """

    files: dict[str, Path]
    llama: Path
    base_llama: Path | None = None


class Place:
    """A folder, or a repository on the Hub. Only the files that are asked for are downloaded."""

    def __init__(self, where: str):
        self.where = where
        self._folder = Path(where) if Path(where).is_dir() else None
        if self._folder is None:
            self._revision, self.names = _repository(where)
        else:
            found = _files_below(self._folder, SEARCH_DEPTH)
            self.names = sorted(path.relative_to(self._folder).as_posix() for path in found)

    def file(self, name: str) -> Path:
        if self._folder is not None:
            return self._folder / name
        try:
            return Path(hf_hub_download(self.where, name, revision=self._revision))
        except (OSError, ValueError, httpx.HTTPError) as error:
            raise ConversionError(f"{self.where}/{name}: cannot be downloaded: {error}") from error

    def folder(self, name: str, wanted: Callable[[str], bool] = lambda key: True) -> Path:
        """
        A model in the library's format.

        Args:
            name (`str`): its folder, "." for the top.
            wanted (`Callable`, *optional*): as in `FolderCheckpoint`.
        """
        if self._folder is not None:
            return self._folder / name
        prefix = "" if name == "." else f"{name}/"
        here = [path.removeprefix(prefix) for path in self.names if path.startswith(prefix)]
        for small in ("config.json", *TOKENIZER_FILES):
            if small in here:
                self.file(prefix + small)
        folder = self.file(f"{prefix}config.json").parent
        weights = weight_files(here)
        for index in weights:
            if index.endswith(".json"):
                self.file(prefix + index)
        for shard in shards_of(folder, weights, wanted) if weights else ():
            self.file(prefix + shard)
        return folder


def find_sources(
    source: str,
    chosen: Mapping[str, str | None],
    *,
    audio: bool,
    vicuna_delta: str | None = None,
    base_llama: str | None = None,
) -> Sources:
    """
    Args:
        source (`str`): A folder or a Hub id.
        chosen (`Mapping`): kind of file, or "llama" -> path or Hub id that was given for it.
        audio (`bool`): whether the files of the audio branch are needed.
        vicuna_delta, base_llama (`str`, *optional*): folders or Hub ids, instead of "llama".

    Raises:
        ConversionError: if a file is not found, or several could be meant; it names the option to choose with.
    """
    place = Place(source)
    kinds = [kind for kind in FILES if audio or kind not in ("imagebind", "audio_branch")]
    files = {}
    blip2 = chosen.get("blip2")
    if blip2 is not None and not _names_a_file(blip2):
        if chosen.get("vision") is not None:
            raise ConversionError("--blip2: a BLIP-2 folder has its own vision tower; leave --vision out")
        files["blip2"] = _resolve_folder(blip2, "blip2", lambda key: key.startswith(BLIP2_PARTS))
        kinds = [kind for kind in kinds if kind not in ("vision", "blip2")]
    for kind in kinds:
        given = chosen.get(kind)
        files[kind] = _find_file(place, kind) if given is None else _resolve_file(given, kind)
    if vicuna_delta is not None and base_llama is not None:
        base = _resolve_folder(base_llama, "base_llama")
        return Sources(files, _resolve_folder(vicuna_delta, "vicuna_delta"), base)
    llama = chosen.get("llama")
    if llama is None:
        return Sources(files, _find_llama(place))
    return Sources(files, (_resolve_file if llama.endswith(GGUF) else _resolve_folder)(llama, "llama"))


def is_vicuna_era(path: Path) -> bool:
    """Whether a branch was trained with Vicuna's prompts, which the names of released files tell."""
    return re.match(VICUNA_ERA, path.name) is not None


def _find_file(place: Place, kind: str) -> Path:
    candidates = [name for name in place.names if FILES[kind].matches(name)]
    if not candidates:
        raise ConversionError(f"{place.where}: no {FILES[kind].example}; pass --{_option(kind)} ({FILES[kind].hint})")
    return place.file(_only(candidates, place, kind))


def _find_llama(place: Place) -> Path:
    folders = [str(PurePosixPath(name).parent) for name in place.names if PurePosixPath(name).name == "config.json"]
    candidates = [folder for folder in folders if _is_language_model(place, folder)]
    candidates += [name for name in place.names if name.endswith(GGUF)]
    if not candidates:
        raise ConversionError(
            f"{place.where}: no folder with the config.json and weights of a language model, such as "
            f"llama-2-7b-chat-hf, and no {GGUF} file; pass --llama"
        )
    found = _only(candidates, place, "llama")
    return place.file(found) if found.endswith(GGUF) else place.folder(found)


def _only(candidates: list[str], place: Place, kind: str) -> str:
    if len(candidates) > 1:
        listed = ", ".join(f"{place.where}/{name}" for name in candidates)
        raise ConversionError(f"{len(candidates)} candidates: {listed}; choose one with --{_option(kind)}")
    return candidates[0]


def _is_language_model(place: Place, folder: str) -> bool:
    parent = PurePosixPath(folder)
    neighbours = [PurePosixPath(name).name for name in place.names if PurePosixPath(name).parent == parent]
    if not weight_files(neighbours):
        return False
    config = place.file(str(parent / "config.json"))
    try:
        model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConversionError(f"{config}: is not a configuration: {error}") from error
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _names_a_file(value: str) -> bool:
    return Path(value).is_file() or (not Path(value).is_dir() and PurePosixPath(value).suffix in (".pth", ".pt"))


def _resolve_file(value: str, kind: str) -> Path:
    path = Path(value)
    if path.is_file():
        return path
    parts = PurePosixPath(value).parts
    if path.exists() or path.is_absolute() or len(parts) < 3:
        raise ConversionError(f"--{_option(kind)}: {value} is no file; expected a path, or org/name/file on the Hub")
    repository, name = "/".join(parts[:2]), "/".join(parts[2:])
    place = Place(repository)
    if name not in place.names:
        raise ConversionError(f"--{_option(kind)}: {repository} has no file {name}")
    return place.file(name)


def _resolve_folder(value: str, kind: str, wanted: Callable[[str], bool] = lambda key: True) -> Path:
    parts = PurePosixPath(value).parts
    if Path(value).is_dir():
        return Path(value)
    if Path(value).exists() or Path(value).is_absolute() or len(parts) < 2:
        raise ConversionError(f"--{_option(kind)}: {value} is no folder; expected a path, or org/name on the Hub")
    place, name = Place("/".join(parts[:2])), "/".join(parts[2:]) or "."
    config = "config.json" if name == "." else f"{name}/config.json"
    if config not in place.names:
        raise ConversionError(f"--{_option(kind)}: {value} has no config.json")
    return place.folder(name, wanted)


def _repository(where: str) -> tuple[str | None, list[str]]:
    if Path(where).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        raise ConversionError(f"{where}: no such folder, and not a Hub id (org/name)")
    try:
        info = HfApi().model_info(where)
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConversionError(f"{where}: no such folder, and the Hub says: {_first_line(error)}") from error
    return info.sha, sorted(file.rfilename for file in info.siblings or ())


def _files_below(folder: Path, depth: int) -> Iterator[Path]:
    """Follows links, since large folders are often linked, and ends at `depth`, since links may go round."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and depth:
            yield from _files_below(path, depth - 1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _option(kind: str) -> str:
    return kind.replace("_", "-")
