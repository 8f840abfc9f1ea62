"""The Hub as source and as goal, without a network; and code beside the weights."""

import json
import shutil
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError
from tiny_conversions import CHECKPOINTS, LLAMA, run
from transformers import Blip2Config, Blip2ForConditionalGeneration

from transformers_videollama.convert import ConversionError, export_code, pipeline, sources


REPOSITORIES = {"org/video-llama": CHECKPOINTS, "org/llama": LLAMA}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that holds `REPOSITORIES`; gives the list of files that were downloaded, and the repositories."""
    downloaded, repositories = [], dict(REPOSITORIES)

    def model_info(repository):
        if repository not in repositories:
            raise ConnectionError("no such repository")
        files = [path for path in repositories[repository].rglob("*") if path.is_file()]
        names = [path.relative_to(repositories[repository]).as_posix() for path in files]
        return SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def hf_hub_download(repository, name, revision):
        assert revision == "abc"
        target = tmp_path / "cache" / repository / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repositories[repository] / name, target)
            downloaded.append(f"{repository}/{name}")
        return str(target)

    monkeypatch.setattr(sources, "HfApi", lambda: SimpleNamespace(model_info=model_info))
    monkeypatch.setattr(sources, "hf_hub_download", hf_hub_download)
    return SimpleNamespace(downloaded=downloaded, repositories=repositories)


def test_source_on_the_hub_gives_the_same(hub, tmp_path):
    run(tmp_path / "there", source="org/video-llama")
    run(tmp_path / "here")
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == (
        tmp_path / "here" / "model.safetensors"
    ).read_bytes()


def test_only_what_is_needed_is_downloaded(hub, tmp_path):
    files = {"llama": "org/llama", "vision": "org/video-llama/eva_vit_g.pth"}
    run(tmp_path / "out", source="org/video-llama", files=files, audio=False)
    assert sorted(hub.downloaded) == [
        "org/llama/config.json",
        "org/llama/pytorch_model.bin",
        "org/llama/tokenizer.model",
        "org/llama/tokenizer_config.json",
        "org/video-llama/VL_LLaMA_2_7B_Finetuned.pth",
        "org/video-llama/blip2_pretrained_flant5xxl.pth",
        "org/video-llama/eva_vit_g.pth",
    ]


def test_language_model_in_a_folder_of_a_repository(hub, tmp_path):
    files = {"llama": "org/video-llama/llama-2-7b-chat-hf"}
    run(tmp_path / "out", files=files, audio=False, dry_run=True)
    assert "org/video-llama/llama-2-7b-chat-hf/pytorch_model.bin" in hub.downloaded


def test_language_model_of_a_blip2_is_not_downloaded(hub, tmp_path):
    vision = {"hidden_size": 48, "intermediate_size": 209, "num_hidden_layers": 2, "num_attention_heads": 4}
    qformer = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    text = {"model_type": "opt", "vocab_size": 512, "hidden_size": 256, "num_hidden_layers": 1, "ffn_dim": 8}
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer | {"encoder_hidden_size": 48},
        text_config=text | {"num_attention_heads": 2, "word_embed_proj_dim": 256},
        num_query_tokens=6,
    )
    Blip2ForConditionalGeneration(config).save_pretrained(tmp_path / "blip2", max_shard_size="500KB")
    index = json.loads((tmp_path / "blip2" / "model.safetensors.index.json").read_text())["weight_map"]
    hub.repositories["org/blip2"] = tmp_path / "blip2"
    run(tmp_path / "out", files={"blip2": "org/blip2"}, dry_run=True)
    shards = {name.removeprefix("org/blip2/") for name in hub.downloaded if name.endswith(".safetensors")}
    assert shards == {file for key, file in index.items() if not key.startswith("language_")}
    assert shards < set(index.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "org/nothing"}, "org/nothing: no such folder, and the Hub says: no such repository"),
        ({"source": "nothing"}, r"nothing: no such folder, and not a Hub id \(org/name\)"),
        ({"files": {"vision": "org/video-llama/none.pth"}}, "--vision: org/video-llama has no file none.pth"),
        ({"files": {"llama": "org/video-llama"}}, "--llama: org/video-llama has no config.json"),
    ],
)
def test_what_the_hub_lacks_is_named(hub, tmp_path, options, message):
    with pytest.raises(ConversionError, match=message):
        run(tmp_path / "out", **options)


class Account:
    """What `HfApi` is asked for."""

    def __init__(self, fault=None):
        self.calls, self.fault = [], fault

    def whoami(self):
        if isinstance(self.fault, LocalTokenNotFoundError):
            raise self.fault

    def create_repo(self, repository, exist_ok):
        self.calls.append(("create_repo", repository, exist_ok))

    def upload_folder(self, repo_id, folder_path):
        if self.fault is not None:
            raise self.fault
        self.calls.append(("upload_folder", repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_finished_folder_is_uploaded(tmp_path, monkeypatch):
    account = Account()
    monkeypatch.setattr(pipeline, "HfApi", lambda: account)
    run(tmp_path / "out", push_to_hub="org/mine")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert account.calls == [("create_repo", "org/mine", True), ("upload_folder", "org/mine", files)]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)


def test_login_is_checked_before_any_work(tmp_path, monkeypatch):
    account = Account(LocalTokenNotFoundError("no token"))
    monkeypatch.setattr(pipeline, "HfApi", lambda: account)
    with pytest.raises(ConversionError, match="--push-to-hub: no valid login, see `hf auth login`: no token"):
        run(tmp_path / "out", push_to_hub="org/mine")
    assert list(tmp_path.iterdir()) == []


def test_failed_upload_keeps_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "HfApi", lambda: Account(OSError("connection lost")))
    with pytest.raises(
        ConversionError, match=r"out is complete, but could not be uploaded .*: connection lost; `hf upl"
    ):
        run(tmp_path / "out", push_to_hub="org/mine")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_code_is_put_next_to_the_weights_and_uploaded(tmp_path, monkeypatch):
    """The same as for a checkpoint that is there already."""
    account = Account()
    monkeypatch.setattr(pipeline, "HfApi", lambda: account)
    run(tmp_path / "out", hub_code=True, push_to_hub="org/mine")
    (*_, (_, _, uploaded)) = account.calls
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert sorted(before) == uploaded
    code = {path.name for path in export_code(tmp_path / "out")}
    assert {"video_llama.py", "modeling_video_llama.py", "config.json", "video_preprocessor_config.json"} <= code
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
