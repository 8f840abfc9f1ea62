"""Folders that carry their code: what the package answers, they answer where the package is absent."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from every_chat import ask_conversation, ask_every_chat, read_chats, write_chats
from hub_server import COMMIT, serve_repository
from interpreters import run_python
from PIL import Image
from remote_code_run import AUTO_CLASSES, REPOSITORY
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

from examples.tiny import world
from examples.tiny.render import render
from transformers_videollama import (
    TINY_CHECKPOINT,
    VideoLlamaConversation,
    VideoLlamaForConditionalGeneration,
)
from transformers_videollama.convert import export_code
from transformers_videollama.convert.flatten import flatten


@pytest.fixture(scope="module")
def chats_file(tmp_path_factory, bell_clip) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    scene = world.Scene((world.Thing("square", "blue", "up"),), None)
    silent = render(scene, folder / "silent.mp4", np.random.default_rng(3))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(folder / "noise.png")
    write_chats(
        folder / "chats.json", clip=bell_clip, silent=str(silent), picture=str(folder / "noise.png"), sound=bell_clip
    )
    return folder / "chats.json"


def package_model() -> VideoLlamaForConditionalGeneration:
    return AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT).eval()


@pytest.fixture(scope="module")
def expected(chats_file) -> dict:
    """The package's own answers."""
    return ask_every_chat(package_model(), AutoProcessor.from_pretrained(TINY_CHECKPOINT), read_chats(chats_file))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "tiny-1.0"
    shutil.copytree(TINY_CHECKPOINT, folder, ignore=shutil.ignore_patterns("__*"))
    export_code(folder)
    return folder


def run(function: str, *arguments: object, **environment: str) -> tuple[dict, str]:
    """A function of `remote_code_run.py` in an interpreter of its own: what it found, and its log."""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    code = f"import sys; from remote_code_run import {function}; {function}(*sys.argv[1:])"
    result = run_python(code, *map(str, arguments), PYTHONPATH=paths, **environment)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.mark.slow
def test_it_answers_as_the_package_where_that_is_absent(exported, expected, chats_file, tmp_path):
    """From a folder, from the Hub, next to another version of the code, and from what was saved of both."""
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    (other / "messages.py").write_text((other / "messages.py").read_text() + "\n# another version\n")
    saved = tmp_path / "saved"
    with serve_repository(exported, REPOSITORY) as endpoint:
        found, log = run(
            "load_and_save",
            *(chats_file, exported, other, COMMIT, saved),
            HF_HOME=str(tmp_path / "home"),
            HF_ENDPOINT=endpoint,
            HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_XET="1",
        )
    assert "not supported" not in log, log  # what pipelines say of models that they do not know
    for refusal in found["untrusted"]:
        assert "trust_remote_code=True" in refusal

    model, processor = package_model(), AutoProcessor.from_pretrained(TINY_CHECKPOINT)
    assert found["answers"] == found["answers of the Hub"] == expected
    assert found["pipeline"] == {name: answer["text"] for name, answer in expected.items() if name != "batch"}
    assert found["tokens"] == processor.tokenizer("What?")["input_ids"]
    assert found["conversation"] == ask_conversation(VideoLlamaConversation(model, processor), read_chats(chats_file))

    # one copy of every class for each place that they come from
    (module,), (other_module,) = found["modules"], found["modules of the other"]
    assert module.startswith("transformers_modules.tiny_hyphen_1_dot_0.")
    assert other_module.startswith("transformers_modules.other.")
    hub_module = f"transformers_modules.org.tiny_hyphen_1_dot_0.{COMMIT}.video_llama"
    assert found["modules of the Hub"] == found["modules of the revision"] == [hub_module]

    # the package, imported later, is taken from then on; what was loaded before goes on
    few = {"video with sound": expected["video with sound"]}
    assert found["few of the other"] == found["few with the package"] == found["few of the package"] == few
    assert {name.split(".")[0] for name in found["modules of the package"]} == {"transformers_videollama"}

    for folder in (saved / "folder", saved / "Hub"):
        assert {path.name for path in folder.glob("*.py")} == {path.name for path in exported.glob("*.py")}
        assert auto_map(folder / "config.json") == auto_map(exported / "config.json")
    again, _ = run("load_saved", chats_file, saved, HF_HOME=str(tmp_path / "new home"), HF_HUB_OFFLINE="1")
    assert again["folder"]["answers"] == expected
    assert again["Hub"]["answers"] == {"batch": expected["batch"]}
    assert [len(of_it["modules"]) for of_it in again.values()] == [1, 1]


def auto_map(path: Path) -> dict[str, str]:
    return json.loads(path.read_text())["auto_map"]


@pytest.mark.parametrize("trust_remote_code", (None, False, True))
def test_where_the_package_is_imported_its_classes_are_taken(exported, trust_remote_code):
    for auto in AUTO_CLASSES:
        loaded = getattr(transformers, auto).from_pretrained(exported, trust_remote_code=trust_remote_code)
        assert type(loaded).__module__.startswith("transformers_videollama."), auto


def test_the_library_finds_every_module(exported):
    """It reads imports with an expression of its own, and demands all packages that are imported anywhere."""
    entry = exported / "video_llama.py"
    files = {entry, *map(Path, get_relative_import_files(entry))}
    assert files == set(exported.glob("*.py"))
    needed = {name for file in files for name in get_imports(file)} - set(sys.stdlib_module_names)
    assert needed <= {"PIL", "huggingface_hub", "jinja2", "numpy", "torch", "tqdm", "transformers"}


def test_what_is_exported(exported):
    names = {path.stem for path in exported.glob("*.py")}
    assert {"video_llama", "conversation", "messages", "media", "media_sources", "modeling_imagebind"} <= names
    assert not [path.name for path in exported.glob("*.py") if "importlib.resources" in path.read_text()]
    wings = ("adapters", "cli", "convert", "serving", "training")
    left_out = (*wings, "chat_templates", "quantization", "registration", "tiny")
    assert not [name for name in names if name.startswith(left_out)]
    maps = {name: json.loads((exported / name).read_text()) for name in ("config.json", "processor_config.json")}
    # Serving engines take the configuration and then the first model class that they find
    assert list(maps["config.json"]["auto_map"])[:3] == ["AutoConfig", "AutoModel", "AutoModelForMultimodalLM"]
    processor = maps["processor_config.json"]
    parts = [processor, *(processor[name] for name in ("image_processor", "video_processor", "feature_extractor"))]
    entries = {entry for part in [maps["config.json"], *parts] for entry in part["auto_map"].values()}
    assert {entry.split(".")[0] for entry in entries} == {"video_llama"}
    video = json.loads((exported / "video_preprocessor_config.json").read_text())
    assert video == processor["video_processor"]


def test_exporting_again_renews_code_and_maps(exported, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(exported, folder)
    (folder / "messages.py").write_text("old")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_video_llama.VideoLlama", "AutoTokenizer": "mine.Tokenizer"}
    (folder / "config.json").write_text(json.dumps(config))
    written = export_code(folder)
    assert sorted(written) == sorted([*folder.glob("*.py"), *folder.glob("*or_config.json"), folder / "config.json"])
    for path in exported.glob("*.py"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    expected = auto_map(exported / "config.json") | {"AutoTokenizer": "mine.Tokenizer"}
    assert list(auto_map(folder / "config.json").items()) == list(expected.items())
    assert not list(folder.glob(".*"))


def test_a_model_without_its_processor(tmp_path):
    AutoConfig.from_pretrained(TINY_CHECKPOINT).save_pretrained(tmp_path)
    names = {path.name for path in export_code(tmp_path)}
    assert {name for name in names if not name.endswith(".py")} == {"config.json"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json; give a folder that a model was saved in"),
        ({"model_type": "llama"}, "holds a model of type 'llama', expected 'video_llama'"),
    ],
)
def test_what_is_no_checkpoint_is_left_alone(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    before = list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=message):
        export_code(tmp_path)
    assert list(tmp_path.iterdir()) == before


@pytest.fixture
def package(tmp_path):
    """Makes a package `pack` of modules."""

    def make(modules: dict[str, str]) -> Path:
        for name, source in modules.items():
            path = tmp_path / "pack" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return tmp_path / "pack"

    return make


def test_flattening(package):
    folder = package(
        {
            "__init__.py": "raise ImportError",
            "top.py": '''"""größer: from .parts.one import one"""
from os import path

from .parts import first


def later():
    ä = 1; from .parts.deep.two import (
        two,  # from .parts
    )
    return two, ä
''',
            "unneeded.py": "",
            "parts/__init__.py": "from .one import one as first\n",
            "parts/one.py": "one = 1\n",
            "parts/deep/__init__.py": "",
            "parts/deep/two.py": "import os\nfrom ...base import zero\nfrom ..one import one\nfrom . two import two\n",
            "base.py": "zero = 0\n",
        }
    )
    flat = {name: source.decode() for name, source in flatten(folder, ["top"]).items()}
    assert sorted(flat) == ["base", "parts", "parts_deep_two", "parts_one", "top"]
    original = (folder / "top.py").read_text(encoding="utf-8")
    # imports alone: neither the docstring nor a comment
    assert flat["top"] == original.replace("from .parts.deep.two import", "from .parts_deep_two import")
    assert flat["parts"] == "from .parts_one import one as first\n"
    assert flat["parts_deep_two"] == (
        "import os\nfrom .base import zero\nfrom .parts_one import one\nfrom .parts_deep_two import two\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from . import other", r"top.py:2: imports from a package as a whole; import `from .module`"),
        ("from .. import other", "top.py:2: imports from a package as a whole"),
        ("from ..away import other", "top.py:2: imports from a package as a whole"),
        ("from .parts import one", "top.py:2: imports the module parts.one as a whole; import names from it"),
        ("from .absent import one", "top.py:2: imports absent, which is no module of pack"),
        ("from pack.other import one", "top.py:2: imports pack by its name, which is not there"),
        ("import pack", "top.py:2: imports pack by its name"),
        ("from \\\n.other import one", "top.py:2: the import cannot be read; write `from .module import` on one line"),
        (
            "from .parts.one import a\nfrom .parts_one import b",
            "parts.one and another module both become parts_one.py",
        ),
    ],
)
def test_what_cannot_be_flattened(package, line, message):
    modules = {"other.py": "", "parts/__init__.py": "", "parts/one.py": "", "parts_one.py": ""}
    folder = package({"top.py": f"\n{line}\n", **modules})
    with pytest.raises(ValueError, match=message):
        flatten(folder, ["top"])
