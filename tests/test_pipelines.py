"""pipeline() on conversations of every kind, and nothing in the log that a user would have to explain."""

import copy
import logging

import numpy as np
import pytest
import transformers
from packaging.version import Version
from PIL import Image
from render_clip import render_clip
from transformers import pipeline
from transformers.utils import logging as transformers_logging


GREEDY = {"do_sample": False, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": 4}
TASKS = ("any-to-any", "image-text-to-text")
# Older pipelines pass generate what it then warns of, whatever the model
LIBRARYS_OWN = (
    ("together with generation-related arguments", "(=20) seem to have been set")
    if Version(transformers.__version__) < Version("5.23")
    else ()
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> dict[str, list[dict]]:
    folder = tmp_path_factory.mktemp("media")
    clip, silent, picture, sound = (folder / name for name in ("clip.mp4", "silent.mp4", "picture.png", "sound.mp4"))
    render_clip(clip, seconds=2.0)
    render_clip(silent, seconds=2.0, sound=False)
    sound.write_bytes(clip.read_bytes())
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(picture)
    media = {
        "video with sound": [{"type": "video", "path": str(clip)}],
        "silent video": [{"type": "video", "path": str(silent)}],
        "image": [{"type": "image", "path": str(picture)}],
        "sound alone": [{"type": "audio", "path": str(sound)}],
        "text alone": [],
        "two videos": [{"type": "video", "path": str(silent)}, {"type": "video", "path": str(clip)}],
    }
    question = {"type": "text", "text": "What is it?"}
    chats = {name: [{"role": "user", "content": [*blocks, question]}] for name, blocks in media.items()}
    chats["second turn"] = [
        *chats["video with sound"],
        {"role": "assistant", "content": [{"type": "text", "text": "A circle."}]},
        {"role": "user", "content": [{"type": "text", "text": "Are you sure?"}]},
    ]
    return chats


@pytest.fixture(scope="module", params=TASKS)
def pipe(request, checkpoint):
    return pipeline(request.param, model=str(checkpoint))


def greedy(pipe) -> dict:
    """The checkpoint's settings, but greedy: as one object, which transformers of all versions take without a word."""
    settings = copy.deepcopy(pipe.model.generation_config)
    settings.update(**GREEDY)
    return {"generation_config": settings}


class _Records(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture
def log(recwarn):
    """Messages of the library's loggers, which do not reach the root logger, and Python warnings."""
    records = _Records()
    library = transformers_logging.get_logger("transformers")
    root = logging.getLogger()
    library.addHandler(records)
    root.addHandler(records)
    messages = lambda: records.messages + [str(warning.message) for warning in recwarn.list]  # noqa: E731
    yield lambda: [message for message in messages() if not any(part in message for part in LIBRARYS_OWN)]
    library.removeHandler(records)
    root.removeHandler(records)


@pytest.mark.parametrize(
    "name", ("video with sound", "silent video", "image", "sound alone", "text alone", "two videos", "second turn")
)
def test_a_chat(pipe, chats, name, model, processor, log):
    output = pipe(text=chats[name], generate_kwargs=greedy(pipe))
    assert log() == []
    answer = output[0]["generated_text"][-1]
    assert answer["role"] == "assistant"
    inputs = processor.apply_chat_template(
        chats[name], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    expected = processor.post_process_image_text_to_text(tokens)[0]
    assert answer["content"].strip() == expected.strip()


def test_default_settings(pipe, chats, log):
    assert pipe(text=chats["video with sound"])[0]["generated_text"][-1]["role"] == "assistant"
    assert pipe(text=chats["video with sound"], max_new_tokens=3)[0]["generated_text"][-1]["content"]
    assert log() == []


def test_a_list_of_chats(pipe, chats, log):
    outputs = pipe(text=list(chats.values()), generate_kwargs=greedy(pipe))
    assert log() == []
    singles = [pipe(text=chat, generate_kwargs=greedy(pipe)) for chat in chats.values()]
    assert [output[0]["generated_text"][-1] for output in outputs] == [
        single[0]["generated_text"][-1] for single in singles
    ]


def test_chats_in_a_batch(pipe, chats):
    """What pipelines can batch: chats of one kind; their videos may differ in length."""
    silent = chats["silent video"][0]["content"]
    shorter = [{"role": "user", "content": [{**silent[0], "num_frames": 3}, {"type": "text", "text": "And this?"}]}]
    together = pipe(text=[chats["silent video"], shorter], batch_size=2, generate_kwargs=greedy(pipe))
    apart = [pipe(text=chat, generate_kwargs=greedy(pipe))[0] for chat in (chats["silent video"], shorter)]
    answers = [output[0]["generated_text"][-1] for output in together]
    assert answers == [output["generated_text"][-1] for output in apart]


def test_the_answer_alone(pipe, chats):
    output = pipe(text=chats["silent video"], return_full_text=False, generate_kwargs=greedy(pipe))
    assert isinstance(output[0]["generated_text"], str)


def test_options_reach_the_processor(chats, checkpoint):
    pipe = pipeline("any-to-any", model=str(checkpoint))
    options = {"generate_kwargs": greedy(pipe)}
    heard = pipe(text=chats["video with sound"], **options)
    assert pipe(text=chats["video with sound"], load_audio_from_video=False, **options) != heard
    fewer = pipe(text=chats["video with sound"], processor_kwargs={"num_frames": 2}, **options)
    assert fewer[0]["generated_text"][-1]["role"] == "assistant"


def test_vicuna_style_ends_at_its_stop_string(checkpoints, chats):
    pipe = pipeline("any-to-any", model=str(checkpoints["vicuna"]))
    answer = pipe(text=chats["image"], generate_kwargs=greedy(pipe))[0]["generated_text"][-1]["content"]
    assert not answer.endswith("###")
