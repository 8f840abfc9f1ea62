"""Keys and values of blocks: what others write into them is taken, and what nothing would read is refused by name."""

import re
from fractions import Fraction

import numpy as np
import pytest

from transformers_videollama.block_keys import BLOCK_OPTIONS, KNOWN
from transformers_videollama.media import load_sound, load_video, sample_indices
from transformers_videollama.media.options import OPTIONS
from transformers_videollama.messages import parse_block
from transformers_videollama.serving.schema import check_request


FRAMES = np.zeros((12, 8, 8, 3), dtype=np.uint8)
SAMPLES = np.zeros(16000, dtype=np.float32)
VIDEO = {"type": "video", "video": FRAMES, "video_metadata": {"fps": 4}}

# Of other libraries: kind of block, key, what the message names
FOREIGN = [
    ("video", "nframes", "'num_frames'"),
    ("video", "max_frames", "'num_frames'"),
    ("video", "maxFrames", "'num_frames'"),
    ("video", "max_num_frames", "'num_frames'"),
    ("video", "frames_upbound", "'num_frames'"),
    ("video", "num_segments", "'num_frames'"),
    ("video", "min_frames", "no least number of frames; num_frames"),
    ("video", "video_start", "'start'"),
    ("video", "video_end", "'end'"),
    ("video", "start_time", "'start'"),
    ("video", "end_time", "'end'"),
    ("audio", "start_time", "'start'"),
    ("video", "begin", "'start'"),
    ("video", "stop", "'end'"),
    ("video", "fps_max", "'fps'"),
    ("video", "fps_min", "no least number"),
    ("video", "video_fps", "'video_metadata'"),
    ("video", "min_pixels", "scaled to the one size"),
    ("video", "max_pixels", "scaled to the one size"),
    ("image", "max_pixels", "scaled to the one size"),
    ("video", "total_pixels", "scaled to the one size"),
    ("image", "resized_height", "scaled to the one size"),
    ("image", "resized_width", "scaled to the one size"),
    ("video", "use_audio_in_video", "load_audio_from_video"),
    ("video", "load_audio_from_video", "apply_chat_template"),
    ("audio", "sample_rate", "'sampling_rate'"),
    ("audio", "sr", "'sampling_rate'"),
    ("video", "video_reader_backend", "its name here is 'decoder'"),
    ("video", "decode", "the nearest of its keys is 'decoder'"),
    ("video", "audio_track", "'audio_stream'"),
]
# Slips of the pen: kind, key, the nearest
NEAREST = [
    ("video", "num_frame", "num_frames"),
    ("video", "numframes", "num_frames"),
    ("video", "starts", "start"),
    ("video", "ends", "end"),
    ("video", "FPS", "fps"),
    ("video", "vidoe", "video"),
    ("video", "samplings", "sampling"),
    ("video", "on_damaged", "on_damage"),
    ("video", "video-stream", "video_stream"),
    ("image", "imge", "image"),
    ("image", "image_uri", "image_url"),
    ("image", "base_64", "base64"),
    ("audio", "sampling_rates", "sampling_rate"),
    ("audio", "input_audios", "input_audio"),
    ("text", "txt", "text"),
    ("text", "content", "text"),
    ("video", 3, ""),
]
# What clients, servers and datasets write, beside the source
LEGITIMATE = [
    {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "hi", "annotations": [], "citations": None},
    {"type": "text", "text": "hi", "index": None, "path": None, "image_url": {"url": None}},
    {"type": "image", "index": 0, "text": None},
    {"type": "image", "image": FRAMES[0], "text": None, "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "a.png", "detail": None}, "uuid": "a"},
    {"type": "image_url", "image_url": "a.png", "detail": "auto"},
    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
    {"type": "image", "image": {"bytes": b"x", "path": None}},
    {"type": "image", "image": {"bytes": None, "path": "a.png"}},
    {"type": "video_url", "video_url": {"url": "a.mp4"}, "uuid": "b", "cache_control": None},
    {"type": "video", "path": "a.mp4", "url": None, "start": None, "num_frames": 8.0},
    {"type": "video", "timestamps": (0.0, 1.5)},
    {"type": "video", "timestamps": np.arange(3)},
    {"type": "video", "video": FRAMES, "video_metadata": {"fps": 4, "total_num_frames": 12}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "a.wav"}},
    {"type": "audio", "audio": {"array": SAMPLES, "sampling_rate": 16000, "path": None}},
    {"type": "thinking", "thinking": "of a template of its own", "signature": "x"},
]
# Option -> values that it cannot have, and values with what they are read as
WRONG = {
    "num_frames": [7.5, 0, -1, True, "8", np.nan, np.inf, -np.inf, np.float32(1.5), [8], {}, b"8", 1j],
    "fps": [0, -1, 0.0, False, "1", np.nan, np.inf, 10**400, [1], np.float64("nan")],
    "start": [-1, -0.001, True, "0", np.nan, np.inf, -np.inf, [0], np.bool_(True)],
    "end": [0, -1, True, "1", np.nan, -np.inf, []],
    "sampling_rate": [0, -16000, 16000.5, "16000", True, np.nan, np.inf],
    "sampling": ["even", "", "Uniform", 1, True, ["uniform"]],
    "on_damage": ["ignore", True, 0],
    "decoder": ["PyAV", "opencv", "", 1],
    "downmix": ["left", 0, True],
    "video_stream": [-1, 0.5, True, "", "  ", np.nan, [0]],
    "audio_stream": [-1, 0.5, False, "", np.nan, {"index": 0}],
    "do_sample_frames": ["False", 0, 1, np.nan],
    "video_metadata": ["25", 25, True],
    "timestamps": ["0.0", 3, [0.0, "1"], [np.nan], [-1.0], [True]],
}
RIGHT = {
    "num_frames": [(8, 8), (8.0, 8), (np.int64(8), 8), (np.float32(8), 8), (1, 1), (10**9, 10**9)],
    "fps": [(1, 1), (0.5, 0.5), (np.float32(0.5), 0.5), (Fraction(1, 2), 0.5), (np.int16(2), 2)],
    "start": [(0, 0), (0.0, 0.0), (np.float64(1.5), 1.5), (3, 3)],
    "end": [(1, 1), (np.inf, np.inf), (np.float16(0.5), 0.5)],
    "sampling_rate": [(16000, 16000), (16000.0, 16000), (np.int32(8000), 8000)],
    "sampling": [("uniform", "uniform"), ("headtail", "headtail"), ("time", "time")],
    "on_damage": [("raise", "raise"), ("skip", "skip")],
    "decoder": [("pyav", "pyav"), ("decord", "decord"), ("torchcodec", "torchcodec")],
    "downmix": [("mean", "mean"), ("first", "first")],
    "video_stream": [(0, 0), (2.0, 2), (np.int64(1), 1), ("ger", "ger")],
    "audio_stream": [(0, 0), ("eng", "eng")],
    "do_sample_frames": [(True, True), (False, False)],
    "video_metadata": [({"fps": 2}, {"fps": 2})],
    "timestamps": [((0, 1.5), [0, 1.5]), (np.array([0.5]), [0.5])],
}


def block_of(kind: str, **fields) -> dict:
    source = {"video": FRAMES, "image": FRAMES[0], "audio": SAMPLES, "text": "hi"}[kind]
    return {"type": kind, kind: source, **fields}


def kind_with(option: str) -> str:
    return next(kind for kind in ("video", "audio") if option in KNOWN[kind])


@pytest.mark.parametrize(("kind", "key", "named"), FOREIGN)
def test_keys_of_other_libraries(kind, key, named):
    with pytest.raises(ValueError, match=f"^the block: got the key '{key}', .*{re.escape(named)}"):
        parse_block(block_of(kind, **{key: 4}))


@pytest.mark.parametrize(("kind", "key", "nearest"), NEAREST)
def test_an_unknown_key_names_the_nearest(kind, key, nearest):
    with pytest.raises(ValueError, match=re.escape(f"the nearest of its keys is '{nearest}")):
        parse_block({**block_of(kind), key: 4})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "image_url", "image_url": {"url": "a", "details": "low"}}, "'details' in 'image_url'.*'detail'"),
        ({"type": "image_url", "image_url": {"url": "a", "max_pixels": 4}}, "'max_pixels' in .*one size"),
        ({"type": "video_url", "video_url": {"url": "a", "fps": 2}}, "'fps' in 'video_url'.*put it into the block"),
        ({"type": "video_url", "video_url": {"url": "a", "max_frames": 4}}, "'max_frames' in .*'num_frames'"),
        (
            {"type": "input_audio", "input_audio": {"data": "", "fromat": "wav"}},
            "'fromat'.*, expected .*'data' and 'format'",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA"}},
            "expected a dict with .*'data' and 'format'",
        ),
        ({"type": "video", "image": "a.png"}, "a block of video does not have"),
        ({"type": "text", "text": "hi", "video": "a.mp4"}, "a block of text does not have"),
        ({"type": "image", "image": "a.png", "num_frames": 4}, "a block of image does not have"),
        ({"type": "text", "path": "a.txt"}, "a block of text does not have"),
        ({"type": "text"}, "got the text None"),
    ],
)
def test_keys_in_wrong_places(block, message):
    with pytest.raises(ValueError, match=message):
        parse_block(block)


@pytest.mark.parametrize("block", LEGITIMATE, ids=str)
def test_what_others_legitimately_write(block):
    parsed = parse_block(block)
    assert None not in parsed.fields.values()


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in WRONG.items() for value in values], ids=str
)
def test_values_that_an_option_cannot_have(option, value):
    """The same error in a block and in a call: option, value, what was expected."""
    kind = kind_with(option)
    expected = re.escape(OPTIONS[option].expected)
    with pytest.raises(ValueError, match=f"^the block: got {option}=.*, expected {expected}$"):
        parse_block(block_of(kind, **{option: value}))


@pytest.mark.parametrize(
    ("option", "value", "read"), [(option, *pair) for option, pairs in RIGHT.items() for pair in pairs], ids=str
)
def test_values_are_read_as_python_has_them(option, value, read):
    found = parse_block(block_of(kind_with(option), **{option: value})).fields[option]
    assert found == read
    assert type(found) is type(read)


def test_every_option_of_a_block_is_checked():
    assert {name for options in BLOCK_OPTIONS.values() for name in options} <= OPTIONS.keys()
    assert set(WRONG) == set(RIGHT) == {*BLOCK_OPTIONS["video"], *BLOCK_OPTIONS["audio"], "timestamps"}


@pytest.mark.parametrize("option", ("num_frames", "fps", "sampling", "start", "end"))
def test_the_same_values_are_refused_everywhere(option, processor):
    for value in WRONG[option]:
        calls = [
            lambda given: load_video(FRAMES, video_fps=4, **given),
            lambda given: sample_indices(12, video_fps=4, **given),
            lambda given: processor.video_processor([FRAMES], video_metadata=[{"fps": 4}], **given),
            lambda given: processor(videos=[FRAMES], video_metadata=[{"fps": 4}], **given),
            lambda given: processor(videos=[FRAMES], videos_kwargs={"video_metadata": [{"fps": 4}], **given}),
            lambda given: processor.apply_chat_template(chat(VIDEO), processor_kwargs=given),
            lambda given: processor.apply_chat_template(chat(VIDEO), **given),
            lambda given: processor.apply_chat_template(chat({**VIDEO, **given})),
        ]
        if option in ("start", "end"):
            calls.append(lambda given: load_sound(SAMPLES, **given))
        for call in calls:
            with pytest.raises(ValueError, match=f"got {option}=.*, expected {re.escape(OPTIONS[option].expected)}$"):
                call({option: value})


def chat(*content: dict) -> list[dict]:
    return [{"role": "user", "content": [*content, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize("num_frames", (4.0, np.int64(4), np.float32(4)), ids=repr)
def test_whole_numbers_of_any_type_count_frames(processor, num_frames):
    shape = (1, 4)
    assert load_video(FRAMES, num_frames=num_frames).frames.shape[0] == 4
    for inputs in (
        processor(videos=[FRAMES], num_frames=num_frames, return_tensors="pt"),
        processor.video_processor([FRAMES], num_frames=num_frames, return_tensors="pt"),
        processor.apply_chat_template(
            chat({**VIDEO, "num_frames": num_frames}), tokenize=True, return_dict=True, return_tensors="pt"
        ),
    ):
        assert inputs["video_frame_mask"].shape == shape


@pytest.mark.parametrize("name", ("nframes", "max_frames", "min_frames", "video_start", "max_pixels"))
def test_a_call_knows_no_names_of_other_libraries(processor, name):
    with pytest.raises(ValueError, match=f"got the option '{name}', which is not known"):
        processor(videos=[FRAMES], **{name: 4})
    with pytest.raises(ValueError, match=f"got the option '{name}', which is not known"):
        processor.apply_chat_template(chat(VIDEO), **{name: 4})


@pytest.mark.parametrize(("name", "value"), [("load_audio_from_video", "no"), ("add_timestamps", 1)])
def test_switches_are_true_or_false(processor, name, value):
    with pytest.raises(ValueError, match=f"got {name}={value!r}, expected True or False"):
        processor.apply_chat_template(chat(VIDEO), **{name: value})


def test_each_block_can_say_how_its_channels_become_one(processor):
    """The block's word goes before the call's, which goes before the feature extractor's."""
    stereo = np.stack((np.sin(np.arange(48000) / 9), np.sin(np.arange(48000) / 31))).astype(np.float32)
    ways = ({}, {"downmix": "mean"}, {"downmix": "first"})
    chats = [chat({"type": "audio", "audio": stereo, **way}) for way in ways]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "processor_kwargs": {"downmix": "first"}}
    default, mean, first = processor.apply_chat_template(chats, **options)["input_features"]
    assert (default == first).all()
    assert not (default == mean).all()
    expected = processor.feature_extractor(stereo, downmix="mean", return_tensors="pt")["input_features"][0]
    assert (mean == expected).all()


@pytest.mark.parametrize("option", sorted({*BLOCK_OPTIONS["video"], *BLOCK_OPTIONS["audio"]}))
def test_servers_take_no_options_in_blocks(option):
    """The engines read the address alone, so that an option would be lost on the way."""
    kind = kind_with(option)
    block = {"type": f"{kind}_url", f"{kind}_url": {"url": "a"}, option: RIGHT[option][0][0], "uuid": "a"}
    with pytest.raises(ValueError, match=f"got \\['{option}'\\], which servers do not read.*chat_template_kwargs"):
        check_request({"messages": [{"role": "user", "content": [block]}]})
    del block[option]
    check_request({"messages": [{"role": "user", "content": [block]}]})
