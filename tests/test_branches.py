"""A trained branch as a file, in this package's names and in the original's."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_conversions import REFERENCE
from transformers import AutoModelForMultimodalLM

from transformers_videollama.training import STAGES, load_branch, prepare_for_stage, save_branch


ORIGINALS = {"vl2": "VL_LLaMA_2_7B_Finetuned.pth", "al2": "AL_LLaMA_2_7B_Finetuned.pth"}


@pytest.fixture
def fresh_model(checkpoint):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint)


def branch_of(model, stage) -> dict[str, torch.Tensor]:
    prefixes = tuple(f"model.{module}." for module in stage.modules)
    return {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith(prefixes)}


def spoil(model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)


@pytest.mark.parametrize("suffix", (".safetensors", ".pth"))
@pytest.mark.parametrize("name", ("vl2", "al2"))
def test_round_trip(fresh_model, name, suffix, tmp_path):
    stage = STAGES[name]
    names = prepare_for_stage(fresh_model, stage)
    expected = branch_of(fresh_model, stage)
    save_branch(fresh_model, tmp_path / f"branch{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"branch{suffix}"]
    spoil(fresh_model)
    assert load_branch(fresh_model, tmp_path / f"branch{suffix}") == sorted(names)
    loaded = branch_of(fresh_model, stage)
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    assert (fresh_model.lm_head.weight == 7).all()


@pytest.mark.parametrize("name", ORIGINALS)
def test_files_of_the_original(fresh_model, name):
    """What is in the released files is what the conversion made of them."""
    stage = STAGES[name]
    expected = branch_of(fresh_model, stage)
    spoil(fresh_model)
    load_branch(fresh_model, REFERENCE / "checkpoints" / ORIGINALS[name])
    loaded = branch_of(fresh_model, stage)
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_original_layout_has_the_originals_keys(fresh_model, tmp_path):
    prepare_for_stage(fresh_model, STAGES["vl2"])
    save_branch(fresh_model, tmp_path / "VL.pth")
    written = torch.load(tmp_path / "VL.pth", weights_only=True)
    original = torch.load(REFERENCE / "checkpoints" / ORIGINALS["vl2"], weights_only=True)
    assert written.keys() == {"model"}
    assert all(torch.equal(tensor, original["model"][key]) for key, tensor in written["model"].items())


def test_a_folder_is_a_checkpoint(fresh_model, tmp_path):
    names = prepare_for_stage(fresh_model, STAGES["vl2"])
    save_branch(fresh_model, tmp_path / "branch.safetensors")
    assert load_branch(fresh_model, tmp_path) == sorted(names)


def save_changed(model, path, change) -> None:
    prepare_for_stage(model, STAGES["vl2"])
    save_branch(model, path)
    state = load_file(path)
    change(state)
    save_file(state, path)


QUERIES = "model.video_resampler.query_tokens"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(QUERIES), "holds a part of video_resampler only; .*query_tokens.* missing"),
        (lambda state: state.update({"model.nose": torch.zeros(1)}), r"the model has no \['model.nose'\]"),
        (lambda state: state.update({QUERIES: torch.zeros(1, 2, 3)}), r"shape \(1, 2, 3\), in the model \(1, 5, 32\)"),
        (lambda state: state.clear(), "holds no parameters"),
    ],
)
def test_files_that_do_not_fit_change_nothing(fresh_model, change, message, tmp_path):
    path = tmp_path / "branch.safetensors"
    save_changed(fresh_model, path, change)
    before = {name: value.clone() for name, value in fresh_model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_branch(fresh_model, path)
    assert all(torch.equal(value, before[name]) for name, value in fresh_model.state_dict().items())


@pytest.mark.parametrize("suffix", (".safetensors", ".pth"))
def test_unreadable_files(fresh_model, suffix, tmp_path):
    path = tmp_path / f"branch{suffix}"
    for content in (None, b"noise" * 100):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=f"branch{suffix}"):
            load_branch(fresh_model, path)


def test_other_files_of_the_original_are_refused(fresh_model, tmp_path):
    shutil.copy(REFERENCE / "checkpoints" / "blip2_pretrained_flant5xxl.pth", tmp_path / "VL.pth")
    with pytest.raises(ValueError, match="belong to no branch"):
        load_branch(fresh_model, tmp_path / "VL.pth")


@pytest.mark.parametrize(
    ("trained", "name", "message"),
    [
        ((), "branch.safetensors", "no parameter of the model trains"),
        (("video_resampler",), "branch.bin", r"expected a name that ends with \.safetensors"),
        (("video_resampler", "audio_resampler"), "both.pth", "a .pth of the original holds one branch"),
        (("video_resampler", "language_model"), "more.pth", "and .* other parameters train"),
    ],
)
def test_what_cannot_be_saved(fresh_model, trained, name, message, tmp_path):
    fresh_model.requires_grad_(False)
    for module in trained:
        getattr(fresh_model.model, module).requires_grad_(True)
    with pytest.raises(ValueError, match=message):
        save_branch(fresh_model, tmp_path / name)
    assert not list(tmp_path.iterdir())
