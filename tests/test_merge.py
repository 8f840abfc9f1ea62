"""What was trained on top of a checkpoint: loaded for answers, merged into a plain checkpoint, and the way back."""

import json
import re
import shutil

import pytest
import torch
from made_adapters import logits, save_adapter, save_random_branch
from peft import PromptTuningConfig, get_peft_model
from render_clip import render_clip
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_conversions import HEADS, REFERENCE
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

from transformers_videollama import TINY_CHECKPOINT, VideoLlamaForConditionalGeneration
from transformers_videollama.adapters import load_trained, processor_source
from transformers_videollama.cli import main
from transformers_videollama.quantization import quantization_config
from transformers_videollama.registration import register
from transformers_videollama.serving.trained import register_trained


LLAMA = str(REFERENCE / "checkpoints" / "llama-2-7b-chat-hf")
SHORT = ["--greedy", "--max-new-tokens", "6", "--device", "cpu", "--json"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return str(render_clip(tmp_path_factory.mktemp("media") / "clip.mp4", seconds=1.0))


@pytest.fixture(scope="module")
def made(checkpoint, processor, tmp_path_factory) -> dict:
    """An adapter and branches, and the logits of the models that have them."""
    folder = tmp_path_factory.mktemp("made")
    models = {
        "adapter": save_adapter(checkpoint, folder / "adapter"),
        "video": save_random_branch(checkpoint, folder / "video" / "branch.safetensors"),
        "audio": save_random_branch(checkpoint, folder / "audio" / "AL_tiny.pth", stage="al2"),
    }
    (folder / "nothing").mkdir()
    return {"folder": folder, "logits": {name: logits(model, processor) for name, model in models.items()}}


def refused(capsys, *arguments: str) -> str:
    """The message of a command that ends with status 2."""
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err
    assert (status, "Traceback" in error) == (2, False), error
    return error


def assert_close(model, processor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(logits(model, processor), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "adapter", "branches"),
    [
        ("adapter", "adapter", ()),
        ("video", None, ("video/branch.safetensors",)),
        ("video", None, ("video", "audio/AL_tiny.pth")),
    ],
)
def test_model_with_what_was_trained(checkpoint, processor, made, kind, adapter, branches):
    folder, expected = made["folder"], made["logits"]
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint)
    names = model.state_dict().keys()
    assert (logits(model, processor) - expected[kind]).abs().max() > 1e-2
    load_trained(model, adapter and folder / adapter, [folder / branch for branch in branches])
    assert_close(model, processor, expected[kind])
    assert model.state_dict().keys() == names
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_branch_goes_before_that_of_the_adapter(checkpoint, made):
    folder = made["folder"]
    model, branch = (AutoModelForMultimodalLM.from_pretrained(checkpoint) for _ in range(2))
    load_trained(model, folder / "adapter", [folder / "video"])
    load_trained(branch, branches=[folder / "video"])
    expected = branch.state_dict()
    differing = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, expected[name])}
    assert {name.rpartition("self_attn.")[2] for name in differing} == {f"{n}_proj.weight" for n in "qkvo"}
    assert all(name.startswith("model.language_model.") for name in differing)


@pytest.mark.parametrize("kind", ("8bit", "int8"))
def test_adapter_stands_next_to_quantised_weights(checkpoint, processor, made, kind):
    config = quantization_config(kind, device="cpu")
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint, quantization_config=config, device_map="cpu")
    stored = {name: tensor for name, tensor in model.state_dict().items() if ".q_proj." in name}
    before = (logits(model, processor) - made["logits"]["adapter"]).abs().mean()
    load_trained(model, made["folder"] / "adapter")
    kept = model.state_dict()
    assert all(name in kept or name.replace(".q_proj.", ".q_proj.base_layer.") in kept for name in stored)
    assert (logits(model, processor) - made["logits"]["adapter"]).abs().mean() < before / 5


def test_processor_is_that_of_training(checkpoint, made, tmp_path):
    plain = made["folder"] / "adapter"
    assert processor_source("model", plain, []) == "model"
    run = tmp_path / "run"
    (run / "checkpoint-3").mkdir(parents=True)
    shutil.copy(checkpoint / "processor_config.json", run)
    assert processor_source("model", None, [run / "checkpoint-3"]) == run
    assert processor_source("model", plain, [run / "branch.safetensors"]) == run
    assert processor_source("model", run, [plain]) == run


def test_ask_with_an_adapter(capsys, checkpoint, made, clip, tmp_path):
    """Its processor says how many frames are taken; with it, the answer is that of the merged checkpoint."""
    adapter = tmp_path / "adapter"
    shutil.copytree(made["folder"] / "adapter", adapter)
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.video_processor.num_frames = 3
    processor.save_pretrained(adapter)
    trained = [
        "--model",
        str(checkpoint),
        "--adapter",
        str(adapter),
        "--branch",
        str(made["folder"] / "audio/AL_tiny.pth"),
    ]
    merged = tmp_path / "merged"
    assert main(["merge", str(merged), *trained]) == 0
    assert "with the processor of" in capsys.readouterr().out
    reports = []
    for options in (trained, ["--model", str(merged)], ["--model", str(checkpoint)]):
        assert main(["ask", clip, "What is it?", "--no-audio", *options, *SHORT]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    asked, of_merged, untrained = ((report["answer"], report["prompt_tokens"]) for report in reports)
    assert asked == of_merged
    assert asked[0] != untrained[0]
    assert asked[1] < untrained[1]  # the sentence of the times is shorter


@pytest.mark.parametrize("kind", ("4bit", "8bit", "int4", "int8"))
def test_ask_with_an_adapter_and_quantised_weights(capsys, checkpoint, made, clip, kind):
    adapter = str(made["folder"] / "adapter")
    options = ["--model", str(checkpoint), "--adapter", adapter, "--quantize", kind]
    assert main(["ask", clip, "What is it?", *options, *SHORT]) == 0
    assert json.loads(capsys.readouterr().out)["answer_tokens"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--adapter", "FOLDER/nothing"],
            "nothing: has no adapter_config.json, so it is no adapter; expected the folder",
        ),
        (["--adapter", "FOLDER/missing"], "missing: has no adapter_config.json"),
        (["--adapter", "FOLDER/damaged"], "damaged: cannot be read as an adapter of PEFT"),
        (["--adapter", "FOLDER/weightless"], "weightless: cannot be read as an adapter of PEFT"),
        (["--adapter", "FOLDER/prompt"], "prompt: holds an adapter of the kind .*PROMPT_TUNING.*, expected LoRA"),
        (["--adapter", "FOLDER/other"], "other: the adapter was trained for a model of another size: .* has shape"),
        (
            ["--adapter", "FOLDER/deeper"],
            "deeper: the adapter was trained for another model: this one has no place for",
        ),
        (["--adapter", "FOLDER/shallow"], "shallow: the adapter was trained for another model: it has nothing for"),
        (["--branch", "FOLDER/other.safetensors"], "trained for a model of another size"),
        (["--branch", "FOLDER/nothing"], "cannot be read as a trained branch"),
        (["--branch", "FOLDER/video", "--branch", "FOLDER/video/branch.safetensors"], "hold the same branch"),
    ],
)
@pytest.mark.parametrize("command", ("ask", "merge"))
def test_what_does_not_fit_is_one_sentence(
    capsys, checkpoint, made, wrong, clip, tmp_path, command, arguments, message
):
    output = tmp_path / "merged"
    words = {"ask": ["ask", clip, "What?", "--device", "cpu"], "merge": ["merge", str(output)]}[command]
    arguments = [argument.replace("FOLDER", str(made["folder"])) for argument in arguments]
    error = refused(capsys, *words, "--model", str(checkpoint), *arguments)
    assert re.search(message, error), error
    assert not output.exists()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def wrong(checkpoint, made) -> None:
    """Adapters and a branch that do not fit."""
    folder = made["folder"]
    save_adapter(TINY_CHECKPOINT, folder / "other")
    save_random_branch(TINY_CHECKPOINT, folder / "other.safetensors")
    shutil.copytree(folder / "adapter", folder / "damaged")
    weights = folder / "damaged" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(folder / "adapter", folder / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    state = load_file(folder / "adapter" / "adapter_model.safetensors")
    second = {name: tensor for name, tensor in state.items() if ".layers.1.self_attn." in name}
    third = {name.replace(".layers.1.", ".layers.2."): tensor.clone() for name, tensor in second.items()}
    shallow = {name: tensor for name, tensor in state.items() if name not in second}
    for name, changed in {"shallow": shallow, "deeper": state | third}.items():
        shutil.copytree(folder / "adapter", folder / name)
        save_file(changed, folder / name / "adapter_model.safetensors")
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint)
    get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        folder / "prompt"
    )


def test_merged_checkpoint_is_plain(capsys, checkpoint, processor, made, tmp_path):
    merged = tmp_path / "merged"
    merged.mkdir()  # an empty folder is no obstacle
    adapter = str(made["folder"] / "adapter")
    options = ["--model", str(checkpoint), "--adapter", adapter, "--max-shard-size", "300KB", "--hub-code"]
    assert main(["merge", str(merged), *options]) == 0
    files = {path.name for path in merged.iterdir()}
    assert {"model.safetensors.index.json", "video_preprocessor_config.json", "video_llama.py"} <= files
    assert not [path.name for path in tmp_path.iterdir() if path != merged]
    for auto_class in (AutoModelForMultimodalLM, AutoModelForImageTextToText):
        model, report = auto_class.from_pretrained(merged, output_loading_info=True)
        assert not any(report.values()), report
    assert model.generation_config.max_new_tokens == 300
    assert_close(model, AutoProcessor.from_pretrained(merged), made["logits"]["adapter"])
    assert "exists already" in refused(capsys, "merge", str(merged), *options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to merge; give --adapter, --branch or both"),
        (["--to-original"], "--to-original and --llama need each other"),
        (["--llama", LLAMA], "--to-original and --llama need each other"),
        (["--to-original", "--llama", LLAMA, "--hub-code"], "exclude each other"),
        (["--to-original", "--llama", str(REFERENCE)], "has no config.json"),
        (["--model", "missing", "--branch", "x"], "the model missing cannot be loaded"),
        (["--model", str(TINY_CHECKPOINT), "--to-original", "--llama", LLAMA], "in the model .*expected the language"),
    ],
)
def test_wrong_options_of_merge(capsys, checkpoint, tmp_path, arguments, message):
    error = refused(capsys, "merge", str(tmp_path / "merged"), "--model", str(checkpoint), *arguments)
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (
            SafetensorError("No space left on device"),
            1,
            "cannot be written: No space left on device; nothing was written",
        ),
        (OSError(28, "No space left on device"), 1, "No space left on device; nothing was written"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
    ],
)
def test_nothing_is_left_of_what_was_not_written(
    capsys, checkpoint, made, tmp_path, monkeypatch, error, status, message
):
    def write_a_part(self, folder, **options):
        (folder / "model-00001-of-00002.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(VideoLlamaForConditionalGeneration, "save_pretrained", write_a_part)
    options = ["--model", str(checkpoint), "--branch", str(made["folder"] / "video")]
    assert main(["merge", str(tmp_path / "deep" / "merged"), *options]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("style", ("llama-2", "vicuna"))
def test_way_to_the_original_and_back(checkpoints, processor, made, tmp_path, style):
    """VL and AL files and the language model, converted again, compute the same; the style is found by their names."""
    original, again = tmp_path / "original", tmp_path / "again"
    trained = ["--adapter", str(made["folder"] / "adapter"), "--branch", str(made["folder"] / "audio/AL_tiny.pth")]
    options = ["--model", str(checkpoints[style]), *trained, "--to-original", "--llama", LLAMA]
    assert main(["merge", str(original), *options]) == 0
    names = {path.name for path in original.iterdir()}
    files = {"llama-2": ("VL_LLaMA_2_0B_Finetuned.pth", "AL_LLaMA_2_0B_Finetuned.pth")}
    files["vicuna"] = ("finetune-vicuna0b.pth", "finetune_vicuna0b_audiobranch.pth")
    assert names == {*files[style], "llama"}
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "imagebind_huge.pth"):
        (original / name).symlink_to(REFERENCE / "checkpoints" / name)
    convert = ["convert", str(original), str(again), "--config", str(HEADS), "--with-imagebind-vision"]
    assert main(convert) == 0
    expected = AutoModelForMultimodalLM.from_pretrained(checkpoints[style])
    load_trained(expected, trained[1], [trained[3]])
    model, read = AutoModelForMultimodalLM.from_pretrained(again), AutoProcessor.from_pretrained(again)
    assert_close(model, processor, logits(expected, processor))
    states = expected.state_dict()
    assert all(torch.equal(tensor, states[name]) for name, tensor in model.state_dict().items())
    assert read.stop_string == (None if style == "llama-2" else "###")


def test_original_keys_are_those_of_the_released_files(checkpoint, made, tmp_path):
    options = [
        "--model",
        str(checkpoint),
        "--branch",
        str(made["folder"] / "video"),
        "--to-original",
        "--llama",
        LLAMA,
    ]
    assert main(["merge", str(tmp_path / "original"), *options]) == 0
    for kind in ("VL", "AL"):
        (written,) = (tmp_path / "original").glob(f"{kind}_*.pth")
        released = torch.load(REFERENCE / "checkpoints" / f"{kind}_LLaMA_2_7B_Finetuned.pth", weights_only=True)
        shapes = {key: tensor.shape for key, tensor in torch.load(written, weights_only=True)["model"].items()}
        buffers = ("position_ids", "inv_freq")
        assert shapes == {k: v.shape for k, v in released["model"].items() if not k.endswith(buffers)}


def test_server_loads_the_model_with_what_was_trained(checkpoint, processor, made, tmp_path):
    """By the classes that the library's server asks."""
    processor.save_pretrained(tmp_path)
    register_trained(str(made["folder"] / "adapter"), [], str(tmp_path))
    try:
        model = AutoModelForMultimodalLM.from_pretrained(checkpoint)
        assert type(model).__name__ == "VideoLlamaForConditionalGeneration"
        assert_close(model, AutoProcessor.from_pretrained(TINY_CHECKPOINT), made["logits"]["adapter"])
    finally:
        register()


def test_vllm_is_refused_with_what_to_do_instead(capsys, checkpoint, made):
    error = refused(capsys, "serve", "--engine", "vllm", "--model", str(checkpoint), "--branch", str(made["folder"]))
    assert "write a plain checkpoint with `videollama merge`" in error
