"""The videollama command, driven through main(argv)."""

import io
import json

import pytest
from render_clip import render_clip

from transformers_videollama.cli import main


SHORT = ["--greedy", "--max-new-tokens", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    render_clip(path, seconds=2.0)
    return str(path)


def ask(capsys, *arguments: str) -> str:
    assert main(["ask", *arguments, *SHORT]) == 0
    return capsys.readouterr().out


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


@pytest.fixture(autouse=True)
def _frame(clip):
    from PIL import Image

    from transformers_videollama import load_video

    Image.fromarray(load_video(clip, num_frames=1).frames[0]).save(clip.replace("clip.mp4", "frame.png"))


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
        (["ask", "missing.mp4", "What is it?", "--model", "."], "missing.mp4"),
        (["ask", "CLIP", "What is it?", "--model", "missing-model"], "missing-model"),
        (["ask", "CLIP", "What is it?"], "--model"),
        (["ask", "CLIP", "What?", "--model", "CHECKPOINT", "--start", "100"], "clip.mp4"),
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


@pytest.mark.parametrize("command", ([], ["ask"], ["chat"]))
def test_help(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "videollama" in capsys.readouterr().out
