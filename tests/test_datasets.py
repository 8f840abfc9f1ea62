"""Readers of the published formats of training data, and mixing."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from PIL import Image
from render_clip import render_clip


datasets = pytest.importorskip("datasets", reason="the extra transformers-videollama[train] is not installed")

from transformers_videollama.training.dataset_formats import _PIECE  # noqa: E402
from transformers_videollama.training.datasets import (  # noqa: E402
    DATASET_FORMATS,
    DatasetError,
    load_messages,
    mix,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(path, content) -> str:
    """Rows as CSV where the name ends so, text as it is, everything else as JSON."""
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def text(value: str) -> dict:
    return {"type": "text", "text": value, "path": None}


def medium(kind: str, path) -> dict:
    return {"type": kind, "text": None, "path": str(path)}


def user(*blocks: dict) -> dict:
    return {"role": "user", "content": list(blocks)}


def assistant(answer: str) -> dict:
    return {"role": "assistant", "content": [text(answer)]}


def chat(*messages: tuple) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


WEBVID = [["videoid", "contentUrl", "page_dir", "name"], ["7", "https://x/7.mp4", "0001_0050", "A dog, running"]]
CAPTIONS = {"info": {"annotations": 12}, "annotations": [{"image_id": "a1", "caption": "ünï"}], "more": []}
LLAVA = [
    {
        "id": "1",
        "image": "1.jpg",
        "conversations": [
            {"from": "human", "value": "What is\nthis?\n<image>"},
            {"from": "gpt", "value": "A dog."},
            {"from": "human", "value": "And now?"},
            {"from": "gpt", "value": "Still."},
        ],
    },
    {"image": "2.jpg", "conversations": [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I."}]},
    {"image": "3.jpg", "conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]},
    {"image": "4.jpg", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "I."}]},
]
VIDEOCHAT = [
    {"video": "a.mp4", "QA": [{"i": "Be brief.", "q": "Q1", "a": "A1"}, {"i": "Be brief.", "q": "Q2", "a": "A2"}]},
    {"video": "sub/b.mp4", "QA": [{"i": "", "q": "Q", "a": "A"}]},
]


def expected_rows(format: str, media_dir) -> list[list[dict]]:
    def image(name: str) -> dict:
        return medium("image", media_dir / f"COCO_train2014_{name}")

    if format == "webvid":
        return [[user(medium("video", media_dir / "0001_0050" / "7.mp4")), assistant("A dog, running")]]
    if format in ("llava-cc3m", "minigpt-4"):
        return [[user(medium("image", media_dir / "a1.jpg")), assistant("ünï")]]
    if format == "llava-instruct":
        return [
            [
                user(text("What is\nthis?"), image("1.jpg")),
                assistant("A dog."),
                user(text("And now?")),
                assistant("Still."),
            ],
            [user(image("2.jpg"), text("Who?")), assistant("I.")],
            [user(image("3.jpg"), text("Who?")), assistant("I.")],
            [user(image("4.jpg")), assistant("I.")],
        ]
    return [
        [
            {"role": "system", "content": [text("Be brief.")]},
            user(medium("video", media_dir / "a.mp4"), text("Q1")),
            assistant("A1"),
            user(text("Q2")),
            assistant("A2"),
        ],
        [user(medium("video", media_dir / "sub" / "b.mp4"), text("Q")), assistant("A")],
    ]


PUBLISHED = {
    "webvid": ("data.csv", WEBVID),
    "llava-cc3m": ("data.json", CAPTIONS),
    "minigpt-4": ("data.json", CAPTIONS),
    "llava-instruct": ("data.json", LLAVA),
    "videochat": ("data.json", VIDEOCHAT),
}


@pytest.mark.parametrize("elsewhere", (False, True))
@pytest.mark.parametrize("format", PUBLISHED)
def test_published_formats_become_conversations(tmp_path, format, elsewhere):
    name, content = PUBLISHED[format]
    media_dir = tmp_path / "media" if elsewhere else tmp_path
    rows = load_messages(write(tmp_path / name, content), format=format, media_dir=media_dir if elsewhere else None)
    assert rows["messages"][:] == expected_rows(format, media_dir)


def test_every_format_is_tested():
    assert set(DATASET_FORMATS) == {"messages", *PUBLISHED}


@pytest.mark.parametrize("layout", ("array", "lines", "byte order mark"))
def test_own_format_takes_strings_and_blocks(tmp_path, layout):
    blocks = [{"type": "video", "path": "a.mp4"}, {"type": "text", "text": "Q"}]
    rows = [
        {"id": 1, **chat(("system", "S"), ("user", blocks), ("assistant", [{"type": "text", "text": "A"}]))},
        chat(("user", "Q"), ("assistant", "A")),
    ]
    written = {
        "array": json.dumps(rows, indent=1),
        "lines": "\n\n".join(json.dumps(row) for row in rows) + "\n",
        "byte order mark": "\ufeff" + json.dumps(rows),
    }[layout]
    assert load_messages(write(tmp_path / "rows.json", written))["messages"][:] == [
        [
            {"role": "system", "content": [text("S")]},
            user(medium("video", tmp_path / "a.mp4"), text("Q")),
            assistant("A"),
        ],
        [user(text("Q")), assistant("A")],
    ]


@pytest.mark.parametrize(
    ("block", "kind", "path"),
    [
        ({"type": "image", "image": "a.jpg", "url": None}, "image", "MEDIA/a.jpg"),
        ({"type": "image", "base64": "aGk="}, "image", "data:image/*;base64,aGk="),
        ({"type": "image_url", "image_url": {"url": "https://x/a.jpg"}}, "image", "https://x/a.jpg"),
        ({"type": "video", "url": "FILE:///x/a.mp4"}, "video", "FILE:///x/a.mp4"),
        ({"type": "video", "video": "/x/a.mp4"}, "video", "/x/a.mp4"),
        ({"type": "video", "url": "s3://bucket/a.mp4"}, "video", "s3://bucket/a.mp4"),
        ({"type": "video", "url": "zip://a.mp4::s3://bucket/a.zip"}, "video", "zip://a.mp4::s3://bucket/a.zip"),
        ({"type": "audio", "audio": "sub/a.wav"}, "audio", "MEDIA/sub/a.wav"),
        (
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            "audio",
            "data:audio/wav;base64,aGk=",
        ),
    ],
)
def test_sources_have_the_names_that_the_processor_takes(tmp_path, block, kind, path):
    (messages,) = load_messages(write(tmp_path / "rows.json", [chat(("user", [block]), ("assistant", "A"))]))[
        "messages"
    ]
    assert messages[0] == user(medium(kind, path.replace("MEDIA", str(tmp_path))))


def own(block) -> list:
    return [chat(("user", "Q"), ("assistant", "A")), chat(("user", [block]), ("assistant", "A"))]


BAD_ROWS = [
    ("webvid", [], r"row 1: the header \[\] lacks \['name', 'page_dir', 'videoid'\]"),
    ("webvid", WEBVID[:1], "data.csv: has no rows, expected at least one"),
    ("webvid", [*WEBVID, ["8", "", "p"]], "row 2: has 3 fields, expected 4"),
    ("webvid", [*WEBVID, ["8", "", "p", "A dog", " running"]], "row 2: has 5 fields, expected 4; .* needs quotes"),
    ("webvid", [*WEBVID, ["8", "", "p", " "]], "row 2: has 'name': ' ', expected text that is not blank; correct"),
    ("webvid", [*WEBVID, ["", "", "p", "A dog"]], "row 2: has 'videoid': ''"),
    ("llava-cc3m", [], r"row 1: is no JSON of this format: expected {, got '\[\]'"),
    ("llava-cc3m", {"rows": []}, "ends after the key 'rows', expected the key 'annotations'"),
    ("llava-cc3m", {"annotations": {}}, r"expected \[, got '{}}'"),
    ("llava-cc3m", {"annotations": []}, "has no rows"),
    ("llava-cc3m", {"annotations": [None]}, "row 1: is None, expected a JSON object"),
    ("minigpt-4", {"annotations": [{"caption": "c"}]}, "row 1: has the image_id None, expected a number or a name"),
    ("minigpt-4", {"annotations": [{"image_id": 1}]}, "row 1: has 'caption': None"),
    (
        "llava-cc3m",
        '{"annotations": [{"image_id": 1, "caption": "c"}',
        "row 2: .* expected , or ], got the end of the",
    ),
    ("llava-instruct", [*LLAVA, {"image": "1.jpg"}], r"row 5: has 'conversations': None, .* keys: \['image'\]"),
    ("llava-instruct", [{"conversations": LLAVA[1]["conversations"]}], "row 1: has 'image': None"),
    (
        "llava-instruct",
        [{"image": "1", "conversations": LLAVA[1]["conversations"][:1]}],
        "1 turns, .* of them a quest",
    ),
    ("llava-instruct", [{"image": "1", "conversations": LLAVA[1]["conversations"][1:]}], "turn 0 .* 'from': 'human'"),
    (
        "llava-instruct",
        [{"image": "1", "conversations": [*LLAVA[1]["conversations"], *LLAVA[1]["conversations"]]}],
        r"has '<image>' in the turns \[0, 2\], expected it once at most, in turn 0",
    ),
    ("videochat", [{"video": "a.mp4", "QA": []}], r"row 1: has 'QA': \[\], expected a list that is not empty"),
    ("videochat", [{"video": "a.mp4", "QA": ["q"]}], "QA 0 is 'q', expected an object with 'q' and 'a'"),
    ("videochat", [{"video": "a.mp4", "QA": [{"q": "Q"}]}], "row 1: has 'a': None"),
    (
        "videochat",
        [{"video": "a.mp4", "QA": [{"i": "1", "q": "Q", "a": "A"}, {"i": "2", "q": "Q", "a": "A"}]}],
        r"has 2 different instructions 'i', expected one: \['1', '2'\]",
    ),
    ("messages", "", "has no rows"),
    ("messages", "[]", "has no rows"),
    ("messages", "[{}] {}", "row 1: has 'messages': None"),
    ("messages", json.dumps(own({"type": "text", "text": ""})) + "{}", "row 3: the file goes on after its array"),
    ("messages", '{"messages": [\n{"messages": []}', "row 1: is no JSON: "),
    ("messages", [chat(("user", "Q"))], "has no message with the role 'assistant'"),
    ("messages", [chat(("bot", "Q"))], "message 0 has the role 'bot', expected one of system, user, assistant"),
    ("messages", [{"messages": ["Q"]}], "message 0: got the message 'Q', expected a dict with 'role'"),
    (
        "messages",
        [{"messages": [{"role": "user", "content": "Q", "name": "N"}]}],
        r"message 0 has the keys \['name'\]",
    ),
    ("messages", [chat(("user", []))], r"message 0 has the content \[\], expected text or a list of blocks"),
    ("messages", [chat(("user", None))], "message 0 has the content None"),
    ("messages", [chat(("user", "Q"), ("assistant", " "))], "message 1 is an answer with the content .*not blank"),
    (
        "messages",
        [chat(("user", "Q"), ("assistant", [{"type": "image", "path": "a.jpg"}]))],
        "message 1 is an answer with",
    ),
    ("messages", own("Q"), "row 2: message 0, block 0: got the block 'Q', expected a dict with 'type'"),
    ("messages", own({"type": "text", "text": None}), "block 0: got the text None, expected a string"),
    ("messages", own({"type": "pdf", "path": "a"}), "the type 'pdf', expected one of text, image, video, audio"),
    (
        "messages",
        own({"type": "audio", "path": "a", "sampling_rate": 8000}),
        r"block 0 has the keys \['sampling_rate'\], of which nothing",
    ),
    (
        "messages",
        own({"type": "video"}),
        r"block 0 has the sources \[\], the first of them None; expected one path or address under one of video",
    ),
    ("messages", own({"type": "video", "path": "a", "url": "b"}), r"block 0 has the sources \['url', 'path'\]"),
    (
        "messages",
        own({"type": "video", "video": ["a.jpg"]}),
        r"block 0 has the sources \['video'\], the first of them \['a.jpg'\]",
    ),
    (
        "messages",
        own({"type": "image_url", "image_url": {"a": 1}}),
        "block 0: got {'a': 1}, expected a dict with 'url'",
    ),
    ("messages", own({"type": "text", "text": "\ud83d"}), "row 2: .*surrogates not allowed"),
]


@pytest.mark.parametrize(("format", "content", "message"), BAD_ROWS)
def test_a_bad_row_is_named(tmp_path, format, content, message):
    path = write(tmp_path / ("data.csv" if format == "webvid" else "data.json"), content)
    with pytest.raises(DatasetError, match=message) as caught:
        load_messages(path, format=format)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'videoid,page_dir,name\n1,p,"A dog\n2,p,A cat\n', "row 1: unexpected end of data"),
        (b"videoid,page_dir,name\n1,p,\xff\n", "row 1: 'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_csv_file_loses_no_rows_silently(tmp_path, content, message):
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load_messages(path, format="webvid")


def test_unknown_format_and_absent_file(tmp_path):
    with pytest.raises(ValueError, match="got format='coco', expected one of messages, webvid"):
        load_messages(tmp_path / "data.json", format="coco")
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        load_messages(tmp_path / "absent.json")


@pytest.mark.parametrize("indent", (None, 2))
def test_json_is_read_in_pieces(tmp_path, indent):
    """Values that begin in one piece of the file and end in a later one, and numbers that a piece cuts."""
    captions = ["é" * length for length in (10, _PIECE - 50, 3 * _PIECE, *range(1, 200))]
    annotations = [{"image_id": 10**12 + i, "caption": caption} for i, caption in enumerate(captions)]
    for version in range(10**20, 10**20 + 3):
        content = json.dumps(
            {"padding": "x" * (_PIECE - 20), "version": version, "annotations": annotations}, indent=indent
        )
        rows = load_messages(write(tmp_path / "data.json", content), format="llava-cc3m")
        assert [row["messages"][1]["content"][0]["text"] for row in rows] == captions
        assert rows[-1]["messages"][0]["content"][0]["path"].endswith(f"{10**12 + len(captions) - 1}.jpg")


def test_an_edited_file_is_read_again_and_an_unchanged_one_is_not(tmp_path):
    path = tmp_path / "data.csv"
    first = load_messages(write(path, WEBVID), format="webvid")
    assert load_messages(path, format="webvid").cache_files == first.cache_files
    times = path.stat()
    write(path, [WEBVID[0], [*WEBVID[1][:3], "A cat, running"]])  # as long as before, and as old
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load_messages(path, format="webvid")
    assert second[0]["messages"][1] == assistant("A cat, running")
    assert first[0]["messages"][1] == assistant("A dog, running")
    assert load_messages(path, format="webvid", media_dir="/x")[0]["messages"][0] == user(
        medium("video", "/x/0001_0050/7.mp4")
    )
    assert str(tmp_path / "cache") in second.cache_files[0]["filename"]


def test_rows_survive_save_to_disk(tmp_path):
    rows = load_messages(write(tmp_path / "data.json", LLAVA), format="llava-instruct")
    rows.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_from_disk(tmp_path / "saved")
    assert loaded.features == rows.features
    assert loaded.to_list() == rows.to_list()


def numbered(letter: str, count: int) -> "datasets.Dataset":
    rows = [{"messages": [user(medium("image", f"{letter}{i}.jpg")), assistant(f"{letter}{i}")]} for i in range(count)]
    return datasets.Dataset.from_list(rows)


def answers(rows) -> list[str]:
    return [messages[-1]["content"][0]["text"] for messages in rows["messages"]]


def test_mix_draws_by_ratio_and_loses_nothing():
    mixed = answers(mix([numbered("a", 2000), numbered("b", 480)], [100, 24]))
    assert set(mixed) == {f"a{i}" for i in range(2000)} | {f"b{i}" for i in range(480)}
    counts = Counter(answer[0] for answer in mixed)
    assert counts["a"] / counts["b"] == pytest.approx(100 / 24, rel=0.1)
    firsts = list(dict.fromkeys(answer for answer in mixed if answer[0] == "a"))
    assert firsts == [f"a{i}" for i in range(2000)]  # in their order
    assert abs(Counter(answer[0] for answer in mixed[:620])["b"] - 120) < 40  # from the start on


def test_mix_repeats_what_ends_earlier_and_follows_its_seed():
    parts = [numbered("a", 50), numbered("b", 3)]
    once, again, other = (answers(mix(parts, [1, 1], seed=seed)) for seed in (0, 0, 1))
    assert once == again != other
    assert Counter(once)["b0"] > 5


def test_mix_draws_the_same_from_datasets_of_another_kind():
    parts = [numbered("a", 50), numbered("b", 12)]
    mixed = mix([list(part) for part in parts], [100, 24], seed=3)
    assert [row["messages"] for row in mixed] == mix(parts, [100, 24], seed=3)["messages"][:]


def test_mix_takes_datasets_of_different_types(tmp_path):
    texts = datasets.Dataset.from_list([{**chat(("user", [{"type": "text", "text": "Q"}])), "id": 1}])
    paths = datasets.Dataset.from_list([{"messages": [{"content": [{"path": "a", "type": "image"}], "role": "user"}]}])
    nulls = datasets.Dataset.from_list([{"messages": [user(medium("video", "b"))]}])
    read = load_messages(write(tmp_path / "data.csv", WEBVID), format="webvid")
    assert len({str(part.features["messages"]) for part in (texts, paths, nulls, read)}) == 4
    mixed = mix([texts, paths, nulls, read], [1, 1, 1, 1])
    contents = {json.dumps(messages[0]["content"], sort_keys=True) for messages in mixed["messages"]}
    blocks = [text("Q"), medium("image", "a"), medium("video", "b"), medium("video", tmp_path / "0001_0050" / "7.mp4")]
    assert contents == {json.dumps([block], sort_keys=True) for block in blocks}
    assert mixed.column_names == ["messages"]


def empty() -> "datasets.Dataset":
    return numbered("a", 1).select([])


@pytest.mark.parametrize(
    ("parts", "ratios", "message"),
    [
        ([], [], "got 0 ratios for 0 datasets; give one for each, and at least one"),
        ([numbered("a", 1)], [1, 2], "got 2 ratios for 1 datasets"),
        ([numbered("a", 1), numbered("b", 1)], [1, 0], "got the ratio 0 for dataset 1, expected a positive number"),
        ([numbered("a", 1)], [-1], "got the ratio -1 for dataset 0"),
        ([numbered("a", 1)], [float("nan")], "got the ratio nan for dataset 0"),
        ([numbered("a", 1), empty()], [1, 1], "dataset 1 has no rows to draw; leave it out"),
        (
            [datasets.Dataset.from_list([{"text": "Q"}])],
            [1],
            r"dataset 0 has the columns \['text'\], expected 'messages'",
        ),
        (
            [datasets.Dataset.from_list([chat(("user", "Q"))])],
            [1],
            "dataset 0 has messages .*string.*expected .*load_messag",
        ),
    ],
)
def test_mix_says_what_is_wrong(parts, ratios, message):
    with pytest.raises(ValueError, match=message):
        mix(parts, ratios)


@pytest.mark.parametrize("format", ("webvid", "llava-instruct", "videochat", "messages"))
def test_rows_go_through_the_processor(tmp_path, processor, format):
    (tmp_path / "0001_0050").mkdir()
    render_clip(tmp_path / "0001_0050" / "7.mp4", seconds=1.0)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "COCO_train2014_1.jpg")
    blocks = [{"type": "image", "path": "COCO_train2014_1.jpg"}, {"type": "text", "text": "Who?"}]
    name, content = {
        "webvid": ("data.csv", WEBVID),
        "llava-instruct": ("data.json", LLAVA[:1]),
        "videochat": ("data.json", [{**VIDEOCHAT[0], "video": "0001_0050/7.mp4"}]),
        "messages": (
            "data.json",
            [chat(("user", blocks), ("assistant", "I."), ("user", "Sure?"), ("assistant", "Y."))],
        ),
    }[format]
    rows = load_messages(write(tmp_path / name, content), format=format)
    inputs = processor.apply_chat_template(
        rows["messages"][:],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        load_audio_from_video=False,
    )
    assert inputs["assistant_masks"].any()
    assert ("pixel_values" if format in ("llava-instruct", "messages") else "pixel_values_videos") in inputs


@pytest.mark.slow
def test_the_package_does_not_import_datasets_and_names_the_extra():
    code = (
        "import sys, transformers_videollama\n"
        "assert 'datasets' not in sys.modules\n"
        "import transformers_videollama.training.datasets as training\n"
        "sys.modules['datasets'] = None\n"
        "try: training.load_messages('x')\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (
        "datasets is needed to read training data: pip install 'transformers-videollama[train]'"
    )
