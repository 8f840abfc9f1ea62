"""The videollama command, driven through main(argv)."""

import contextlib
import functools
import http.server
import io
import json
import threading

import pytest
import torch
from PIL import Image
from render_clip import render_clip
from transformers import AutoModelForMultimodalLM, AutoProcessor

from transformers_videollama import TINY_CHECKPOINT, load_video
from transformers_videollama.cli import main
from transformers_videollama.media import sources


SHORT = ["--greedy", "--max-new-tokens", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    render_clip(path, seconds=2.0)
    Image.fromarray(load_video(path, num_frames=1).frames[0]).save(path.with_name("frame.png"))
    return str(path)


@contextlib.contextmanager
def serve_folder(folder: str):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(capsys, *arguments: str) -> str:
    assert main(["ask", *arguments, *SHORT]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["ask", *arguments, *SHORT])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_ask_streams_what_json_reports(capsys, checkpoint, clip):
    streamed = ask(capsys, clip, "What is it?", "--model", str(checkpoint))
    report = json.loads(ask(capsys, clip, "What is it?", "--model", str(checkpoint), "--json"))
    assert streamed.strip() == report["answer"] != ""
    assert (report["question"], report["files"], report["answer_tokens"]) == ("What is it?", [clip], 4)


def test_options_change_what_the_model_gets(capsys, checkpoint, clip):
    def prompt_tokens(*options: str) -> int:
        return json.loads(ask(capsys, clip, "What?", "--model", str(checkpoint), "--json", *options))["prompt_tokens"]

    heard = prompt_tokens()
    silent = prompt_tokens("--no-audio", "--num-frames", "4")
    assert silent != prompt_tokens("--no-audio", "--num-frames", "4", "--image", clip.replace("clip.mp4", "frame.png"))
    assert prompt_tokens("--no-audio", "--num-frames", "8") > silent  # the sentence about times is longer
    assert heard != silent


def test_chat_keeps_the_turns(capsys, checkpoint, clip, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n\nAre you sure?\n"))
    assert main(["chat", clip, "--start", "0.5", "--end", "1.5", "--model", str(checkpoint), "--json", *SHORT]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert second["prompt_tokens"] > first["prompt_tokens"] + first["answer_tokens"]
    assert second["question"] == "Are you sure?"


def test_vicuna_answers_do_not_show_the_stop_string(capsys, checkpoints, clip):
    assert "###" not in ask(capsys, clip, "What is it?", "--model", str(checkpoints["vicuna"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "What is it?", "--model", "."], "ask takes files and a question"),
        (["ask", "missing.mp4", "What is it?", "--model", "CHECKPOINT"], "missing.mp4"),
        (["ask", "CLIP", "What is it?", "--model", "missing-model"], "missing-model"),
        (["ask", "CLIP", "What?", "--model", "CHECKPOINT", "--start", "100"], "clip.mp4"),
        (["ask", "--image", "missing.png", "What?", "--model", "CHECKPOINT"], "missing.png"),
        (["listen"], "invalid choice"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, checkpoint, clip, arguments, message):
    arguments = [{"CLIP": clip, "CHECKPOINT": str(checkpoint)}.get(argument, argument) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_files_are_opened_once(capsys, checkpoint, clip, monkeypatch):
    opened = []
    original = sources._download
    monkeypatch.setattr(sources, "_download", lambda url, access: opened.append(url) or original(url, access))
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\nAre you sure?\n"))
    with serve_folder(clip.rpartition("/")[0]) as address:
        assert main(["chat", f"{address}/clip.mp4", "--model", str(checkpoint), *SHORT]) == 0
    assert opened == [f"{address}/clip.mp4"]


def test_a_folder_of_frames(capsys, checkpoint, clip, tmp_path):
    for i, frame in enumerate(load_video(clip, num_frames=3).frames):
        Image.fromarray(frame).save(tmp_path / f"frame {i}.png")
    report = json.loads(ask(capsys, str(tmp_path), "What is it?", "--model", str(checkpoint), "--json"))
    assert report["files"] == [str(tmp_path)]


def test_quantisation_without_its_package_says_what_to_install(capsys, checkpoint, clip, monkeypatch):
    for size in ("4bit", "8bit"):
        quantizer = f"transformers.quantizers.quantizer_bnb_{size}.is_bitsandbytes_available"
        monkeypatch.setattr(quantizer, lambda *args: False)
        error = refused(capsys, clip, "What is it?", "--model", str(checkpoint), "--quantize", size)
        assert "pip install -U bitsandbytes" in error


@pytest.mark.parametrize("size", ("4bit", "8bit"))
def test_quantised_language_model(capsys, checkpoint, clip, size):
    options = ("--model", str(checkpoint), "--quantize", size, "--json", *SHORT)
    assert json.loads(ask(capsys, clip, "What is it?", *options))["answer_tokens"] > 0


@pytest.mark.parametrize("kind", ("int4", "int8"))
@pytest.mark.parametrize("dtype", ("auto", "bfloat16", "float32"))
def test_quantised_with_torchao(capsys, clip, kind, dtype):
    """The tiny model is stored in float16, in which int8 would overflow."""
    report = json.loads(ask(capsys, clip, "What?", "--quantize", kind, "--dtype", dtype, "--json"))
    assert report["answer_tokens"] == 4
    assert report["answer"]


def test_int8_with_float16_is_refused(capsys, clip):
    error = refused(capsys, clip, "What?", "--quantize", "int8", "--dtype", "float16")
    assert "int8 weights overflow in float16; load the model in bfloat16 or float32, or take 8bit" in error


@pytest.mark.parametrize("options", ((), ("--json",)))
def test_invalid_logits_are_one_line_and_status_2(capsys, clip, tmp_path, options):
    model = AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT)
    model.lm_head.weight.data[5, 5] = torch.nan
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(TINY_CHECKPOINT).save_pretrained(tmp_path)
    arguments = ["ask", clip, "What?", "--model", str(tmp_path), *options, "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)  # sampling, the default
    output = capsys.readouterr()
    assert (stopped.value.code, output.out.strip()) == (2, "")
    assert "got NaN or infinite logits from the model in torch.float16, in rows [0] of 1" in output.err
    assert "--dtype bfloat16" in output.err


@pytest.mark.parametrize("command", ([], ["ask"], ["chat"], ["serve"], ["merge"]))
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "videollama" in capsys.readouterr().out
