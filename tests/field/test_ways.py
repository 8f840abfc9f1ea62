"""The processor, pipelines and the command get the right frames, times and sound of the kinds that people have."""

import json
import math
import re

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultimodalLM, pipeline

from transformers_videollama import TINY_CHECKPOINT, MediaError
from transformers_videollama.cli import main
from transformers_videollama.media import sample_indices

from .kinds import KINDS, Kind
from .signals import corners_of, number_of, second_of_mel


PITCH = 0.06  # seconds by which a spectrogram may be off
GREEDY = {"do_sample": False, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": 4}
QUESTION = "What is it?"
# Name of a kind, and the span that is asked for
SPANS = {
    "mp4, sound": (None, None),
    "fragmented mp4, sound": (None, None),
    "recorder webm, sound": (None, None),
    "piped mkv, sound": (1.0, 3.5),
    "avi, sound": (1.0, 3.5),
    "mpg, sound": (1.0, 3.5),
    "ts, sound": (None, None),
    "wmv, sound": (1.0, None),
    "mxf, silent": (None, None),
    "webp, silent": (None, None),
    "uneven mp4": (2.5, None),
    "uneven gif": (None, None),
    "mp4, sound at 3.0": (3.2, None),
    "mkv, sound at -2.0": (0.0, 1.5),
    "mkv, sound at 3.0": (0.0, 2.0),
    "mp4, mirrored": (None, None),
    "mp4, turned left": (None, None),
    "intra refresh in mp4": (3.0, None),
    "mkv from 5 s on": (2.0, None),
    "short sound in mp4": (2.0, None),
    "no sound in the track of mkv": (None, None),
    "aac 7.1 in mp4": (None, None),
    "libopus 7.1 in webm": (None, None),
    "german track of mkv": (None, None),
    "dropped frames in avi": (None, None),
}


@pytest.fixture(scope="module")
def model():
    return AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT).eval()


@pytest.fixture(scope="module")
def pipe():
    return pipeline("any-to-any", model=TINY_CHECKPOINT)


def chat_about(path, name: str) -> list[dict]:
    start, end = SPANS[name]
    options = {**KINDS[name].options, "start": start, "end": end}
    block = {"type": "video", "path": str(path)} | {key: value for key, value in options.items() if value is not None}
    return [{"role": "user", "content": [block, {"type": "text", "text": QUESTION}]}]


def prepare(processor, chat: list[dict]):
    return processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def frames_within(kind: Kind, start: float | None, end: float | None) -> list[int]:
    """The frames that are chosen of those that are shown within the span."""
    begin, stop = start or 0.0, math.inf if end is None else end
    within = [index for index, time in enumerate(kind.shown_at) if begin <= time < stop]
    return [within[index] for index in sample_indices(len(within))]


def heard_within(kind: Kind, start: float | None, end: float | None) -> tuple[float, float, float, float] | None:
    """When the sound of a span begins and ends, and its second at the beginning; and how long the span is."""
    if kind.plays is None or start is None:
        length = kind.plays and kind.plays[1] - kind.plays[0]
        return kind.plays and (0.0, length, kind.plays[2], length)
    begin, stop, second = kind.plays
    last = kind.recipe.seconds if end is None else min(end, kind.recipe.seconds)  # a span ends with the pictures
    from_, to = max(start, begin), min(last, stop)
    return (from_ - start, to - start, second + from_ - begin, last - start) if to - from_ > 0.1 else None


@pytest.mark.parametrize("name", SPANS)
def test_the_processor(tiny_processor, file_of, name):
    kind, span = KINDS[name], SPANS[name]
    chat = chat_about(file_of(name), name)
    indices = frames_within(kind, *span)
    inputs = prepare(tiny_processor, chat)
    frames = pixels_of(inputs, tiny_processor)
    assert [number_of(frame) for frame in frames] == [kind.numbers[index] for index in indices]
    assert {corners_of(frame) for frame in frames} == {"RGBW"}
    prompt = tiny_processor.apply_chat_template(chat, load_audio_from_video=False)
    told = re.search(r"contains (\d+) frames sampled at ([\d., ]+) seconds", prompt)
    assert int(told[1]) == len(indices)
    times = [float(time) for time in told[2].split(", ")]
    np.testing.assert_allclose(times, [kind.shown_at[index] for index in indices], atol=0.0501)
    check_clips(inputs, tiny_processor.feature_extractor, heard_within(kind, *span))


def pixels_of(inputs, processor) -> np.ndarray:
    """The frames of the only video as they were before they were normalised, uint8 of shape (T, height, width, 3)."""
    settings = processor.video_processor
    mean, std = (torch.tensor(values)[:, None, None] for values in (settings.image_mean, settings.image_std))
    pixels = (inputs["pixel_values_videos"][0] * std + mean) * 255
    return pixels.round().clamp(0, 255).permute(0, 2, 3, 1).numpy().astype(np.uint8)


def check_clips(inputs, extractor, heard: tuple[float, float, float, float] | None) -> None:
    """Each clip that begins while the chirp plays has the second that plays there."""
    if heard is None:
        assert "input_features" not in inputs
        return
    begin, end, second, length = heard
    clips = inputs["input_features"][0] * extractor.std + extractor.mean
    last = max(length - extractor.clip_seconds, 0.0)
    for place, clip in enumerate(clips):
        start = place * last / len(clips)
        if begin <= start <= end - 0.2:
            assert second_of_mel(clip) == pytest.approx(second + start - begin, abs=PITCH)


@pytest.mark.parametrize("name", SPANS)
def test_pipelines_and_the_command_answer_to_the_inputs_of_the_processor(
    tiny_processor, model, pipe, file_of, capsys, name
):
    path, (start, end) = file_of(name), SPANS[name]
    inputs = prepare(tiny_processor, chat_about(path, name))
    tokens = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    expected = tiny_processor.post_process_image_text_to_text(tokens)[0].strip()
    output = pipe(text=chat_about(path, name), generate_kwargs=GREEDY)
    assert output[0]["generated_text"][-1]["content"].strip() == expected
    options = {"start": start, "end": end, **KINDS[name].options}
    flags = [
        word
        for key, value in options.items()
        if value is not None
        for word in (f"--{key}".replace("_", "-"), str(value))
    ]
    assert main(["ask", str(path), QUESTION, *flags, "--json", "--greedy", "--max-new-tokens", "4"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["answer"].strip(), report["prompt_tokens"]) == (expected, inputs["input_ids"].shape[1])


@pytest.mark.parametrize("name", ("mp4 cut", "mkv cut", "not a video"))
def test_a_file_that_is_at_fault_is_named(tiny_processor, pipe, file_of, capsys, name):
    path = str(file_of(name))
    chat = [{"role": "user", "content": [{"type": "video", "path": path}, {"type": "text", "text": QUESTION}]}]
    for way in (lambda: prepare(tiny_processor, chat), lambda: pipe(text=chat)):
        with pytest.raises(MediaError, match=path):
            way()
    with pytest.raises(SystemExit, match="2"):
        main(["ask", path, QUESTION])
    assert path in capsys.readouterr().err
