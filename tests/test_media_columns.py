"""Rows of training data with media in columns, as LLaMA-Factory has them, and with options: read, or refused."""

import json

import numpy as np
import pytest
import torch
from render_clip import render_clip


datasets = pytest.importorskip("datasets", reason="the extra transformers-videollama[train] is not installed")

from transformers_videollama.training import VideoLlamaDataCollator, load_messages, mix  # noqa: E402
from transformers_videollama.training.datasets import OPTION_TYPES, DatasetError  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def load(tmp_path, *rows: dict, name: str = "rows.json"):
    path = tmp_path / name
    path.write_text(json.dumps(rows))
    return load_messages(path)


def turns(*texts: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def chat(*contents) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def shape(tmp_path, messages: list[dict]) -> list[str]:
    """A message as "role: block | block", a medium as "kind=path"."""
    lines = []
    for message in messages:
        blocks = [
            block["text"]
            if block["type"] == "text"
            else f"{block['type']}={block['path']}".replace(f"{tmp_path}/", "")
            for block in message["content"]
        ]
        lines.append(f"{message['role']}: {' | '.join(blocks)}")
    return lines


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"conversations": turns("<video>What?", "A."), "videos": ["a.mp4"]},
            ["user: video=a.mp4 | What?", "assistant: A."],
        ),
        (
            {"messages": chat("<video>\nWhat?", "A."), "videos": ["a.mp4"]},
            ["user: video=a.mp4 | What?", "assistant: A."],
        ),
        (
            {
                "messages": chat("See <image> and <image>, hear <audio>", "A.", "<image>", "B."),
                "images": ["1.png", "2.png", "3.png"],
                "audios": ["s.wav"],
                "videos": [],
            },
            [
                "user: See | image=1.png | and | image=2.png | , hear | audio=s.wav",
                "assistant: A.",
                "user: image=3.png",
                "assistant: B.",
            ],
        ),
        (
            {"conversations": turns("What? <video>", "A."), "video": "https://x/a.mp4", "system": "S"},
            ["system: S", "user: What? | video=https://x/a.mp4", "assistant: A."],
        ),
        (
            {"messages": chat([{"type": "video"}, {"type": "text", "text": "<video>?"}], "A."), "videos": ["a.mp4"]},
            ["user: video=a.mp4 | <video>?", "assistant: A."],
        ),
        (
            {"messages": chat("What does <video> do?", "It shows <video>.")},
            ["user: What does <video> do?", "assistant: It shows <video>."],
        ),
        ({"messages": chat([{"type": "text", "text": "<video>"}], "A tag.")}, ["user: <video>", "assistant: A tag."]),
        ({"conversations": turns("Q", "A"), "images": [], "id": "v.1", "tags": ["x"]}, ["user: Q", "assistant: A"]),
    ],
)
def test_media_in_columns_stand_where_the_marks_are(tmp_path, row, expected):
    (messages,) = load(tmp_path, row)["messages"]
    assert shape(tmp_path, messages) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": chat("<video>Q", "A"), "videos": []}, "has 1 places for videos in its messages and 0 videos"),
        ({"messages": chat("<video>Q", "A"), "videos": ["a.mp4", "b.mp4"]}, "1 places for videos .* and 2 videos"),
        ({"messages": chat("Q", "A"), "videos": ["a.mp4"]}, "0 places for videos .*write <video> into the text"),
        ({"messages": chat("<image>Q", "A"), "videos": ["a.mp4"]}, "has 1 places for images in its messages and 0"),
        ({"messages": chat([{"type": "video", "path": "a.mp4"}], "A"), "videos": ["a.mp4"]}, "0 places for videos"),
        (
            {"messages": chat("<video>Q", "A"), "videos": [["1.jpg", "2.jpg"]]},
            "message 0, block 0 has the sources .'video'., the first of them .*expected one path",
        ),
        (
            {"messages": chat("<video>Q", "A"), "videos": [{"path": "a.mp4"}]},
            "message 0, block 0 has the sources .'video'., the first of them .*expected one path",
        ),
        ({"messages": chat("<video>Q", "A"), "videos": [None]}, "has 'videos': .None., expected a path or an address"),
        ({"messages": chat("<image>Q", "A"), "images": ["a.png"], "image": "b.png"}, "columns .'images', 'image'."),
        (
            {"messages": chat("<video>Q", "A")},
            "message 0 begins or ends with a mark of media, '<video>Q', and the row",
        ),
        ({"messages": chat("Q\n<image>", "A")}, "message 0 begins or ends with a mark"),
        ({"messages": chat("Q", "A"), "video_path": "a.MP4"}, "has 'video_path': 'a.MP4', which is not read"),
        ({"conversations": turns("Q", "A"), "media": [{"url": "https://x/a.webm?t=1"}]}, "has 'media': .*not read"),
        ({"conversations": turns("Q", "A <video>"), "videos": ["a.mp4"]}, "message 1 is an answer with the content"),
        ({"conversations": [{"from": "observation", "value": "Q"}]}, "message 0 has the role 'observation'"),
        ({"conversations": [{"from": "human", "value": None}]}, "message 0 has the content None"),
        ({"conversations": [{"from": ["human"], "value": "Q"}]}, "expected a dict with 'role' and 'content'"),
        ({"conversations": []}, "has 'conversations': .., expected a list that is not empty"),
        ({"instruction": "<video>Q", "output": "A", "videos": ["a.mp4"]}, "has 'messages': None, expected a list"),
    ],
)
def test_media_that_would_be_dropped_are_refused_by_name(tmp_path, row, message):
    with pytest.raises(DatasetError, match=f"row 2: .*{message}"):
        load(tmp_path, {"messages": chat("Q", "A")}, row)


# Options


def test_options_reach_the_rows_with_their_types(tmp_path):
    options = {"num_frames": 4.0, "start": 1, "end": 2.5, "sampling": "time", "video_stream": 2, "audio_stream": "ger"}
    rows = load(
        tmp_path,
        {"messages": chat([{"type": "video", "path": "a.mp4", **options}, {"type": "text", "text": "Q"}], "A")},
        {"messages": chat([{"type": "audio", "path": "a.wav", "end": 3, "downmix": "first"}], "A")},
    )
    video, text = rows[0]["messages"][0]["content"]
    assert {name: value for name, value in video.items() if value is not None} == {
        "type": "video", "path": str(tmp_path / "a.mp4"), "num_frames": 4, "start": 1.0, "end": 2.5,
        "sampling": "time", "video_stream": "2", "audio_stream": "ger",
    }  # fmt: skip
    assert {name for name, value in text.items() if value is not None} == {"type", "text"}
    (audio,) = rows[1]["messages"][0]["content"]
    assert (audio["end"], audio["downmix"]) == (3.0, "first")


def test_rows_without_options_have_no_columns_for_them(tmp_path):
    plain = load(tmp_path, {"messages": chat("Q", "A")})
    assert not plain[0]["messages"][0]["content"][0].keys() & OPTION_TYPES.keys()


def test_names_with_escapes_are_read(tmp_path):
    row = {"messages": chat([{"type": "video", "path": "a.mp4", "start": 1}], "A")}
    (tmp_path / "rows.json").write_text(json.dumps([row]).replace('"start"', r'"\u0073tart"'))
    assert load_messages(tmp_path / "rows.json")[0]["messages"][0]["content"][0]["start"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, "got start=-1"),
        ({"video_start": 1}, "its name here is 'start'"),
        ({"sampling": "often"}, "sampling"),
        ({"video_metadata": {"fps": 1}}, r"has the keys \['video_metadata'\]"),
    ],
)
def test_wrong_options_are_refused_by_name(tmp_path, options, message):
    with pytest.raises(DatasetError, match=f"row 1: .*{message}"):
        load(tmp_path, {"messages": chat([{"type": "video", "path": "a.mp4", **options}], "A")})


def test_mixtures_keep_the_options(tmp_path):
    plain = load(tmp_path, {"messages": chat("Q", "A")}, name="plain.json")
    video = {"type": "video", "path": "a.mp4", "start": 1}
    cut = load(tmp_path, {"messages": chat([video], "A")}, name="cut.json")
    rows = [row["messages"][0]["content"][0] for row in mix([plain, cut], [1, 1])]
    assert {(row["type"], row["start"]) for row in rows} == {("text", None), ("video", 1.0)}


@pytest.mark.parametrize("form", ("blocks", "columns"))
@pytest.mark.parametrize("sound", (False, True))
def test_rows_are_trained_as_they_are_asked(tmp_path, processor, form, sound):
    """The pixels and the sound of a row's span are those of the same span at inference."""
    render_clip(tmp_path / "a.mp4", seconds=4, size=(96, 64))
    options = {"start": 1.5, "end": 3.0, "num_frames": 5} if form == "blocks" else {}
    path = str(tmp_path / "a.mp4")
    asked = chat([{"type": "video", "path": path, **options}, {"type": "text", "text": "Q"}])
    if form == "blocks":
        row = {"messages": chat([{"type": "video", "path": "a.mp4", **options}, {"type": "text", "text": "Q"}], "A")}
    else:
        row = {"conversations": turns("<video>Q", "A"), "videos": ["a.mp4"]}
    (read,) = load(tmp_path, row)
    collator = VideoLlamaDataCollator(processor, load_audio_from_video=sound, add_timestamps=True)
    trained = collator([read])
    inputs = processor.apply_chat_template(
        asked, tokenize=True, return_dict=True, return_tensors="pt", load_audio_from_video=sound
    )
    assert ("input_features" in trained) == sound
    for name in {"pixel_values_videos", "video_frame_mask", "input_features", "audio_clip_mask"} & inputs.keys():
        torch.testing.assert_close(trained[name], inputs[name], rtol=0, atol=0)
    length = inputs["input_ids"].shape[1]
    assert torch.equal(trained["input_ids"][:, :length], inputs["input_ids"])


def test_spans_of_sounds_are_heard(tmp_path, processor):
    render_clip(tmp_path / "a.mp4", seconds=4, size=(96, 64))
    block = {"type": "audio", "path": str(tmp_path / "a.mp4"), "start": 2.0, "end": 3.0}
    (read,) = load(tmp_path, {"messages": chat([block], "A")})
    expected = processor.apply_chat_template(chat([block]), tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(VideoLlamaDataCollator(processor)([read])["input_features"], expected["input_features"])


@pytest.mark.parametrize("decoded", (False, True))
def test_rows_in_memory_may_have_columns_of_media(tmp_path, processor, decoded):
    """Of a `datasets.Dataset` or a list, without load_messages; none is dropped in silence."""
    frames = np.random.default_rng(0).integers(255, size=(4, 24, 32, 3), dtype=np.uint8)
    source = frames if decoded else str(render_clip(tmp_path / "a.mp4", seconds=1, size=(96, 64), sound=False))
    collator = VideoLlamaDataCollator(processor)
    expected = collator([{"messages": chat([{"type": "video", "video": source}, {"type": "text", "text": "Q"}], "A")}])
    for row in (
        {"messages": chat("<video>Q", "A"), "videos": [source]},
        {"conversations": turns("<video>\nQ", "A"), "video": source},
        {"messages": chat([{"type": "video"}, {"type": "text", "text": "Q", "video": None}], "A"), "videos": [source]},
    ):
        batch = collator([row])
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="has 0 places for videos in its messages and 1 videos in its column"):
        collator.encode({"messages": chat("Q", "A"), "videos": [source]})


def test_mixtures_drop_no_columns_of_media():
    rows = datasets.Dataset.from_list([{"messages": chat("<video>Q", "A"), "videos": ["a.mp4"]}])
    with pytest.raises(
        DatasetError, match=r"dataset 0 has the columns \['videos'\] next to its messages; read its file"
    ):
        mix([rows], [1])
