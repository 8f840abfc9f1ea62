"""What a user of the processor relies on: conversations of any kind, batches, options of a call, masks of answers."""

import copy
import threading
from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from render_clip import render_clip
from transformers import AutoProcessor

from transformers_videollama import MediaError, load_video, video_processing_video_llama


SENTENCE = "The video contains"
HEARD = "Close your eyes, open your ears and you imagine only based on the sound that: <audio>."


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    render_clip(path, seconds=2.0)
    return path


@pytest.fixture(scope="module")
def silent_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "silent.mp4"
    render_clip(path, seconds=2.0, sound=False)
    return path


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


def user(*blocks) -> list[dict]:
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is it?"}]}]


def prepare(processor, conversation, **kwargs):
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return processor.apply_chat_template(conversation, **{**options, **kwargs})


def counts(processor, inputs) -> dict[str, int]:
    ids = inputs["input_ids"]
    return {kind: int((ids == getattr(processor, f"{kind}_token_id")).sum()) for kind in ("image", "video", "audio")}


def test_video_with_sound(processor, clip):
    prompt = processor.apply_chat_template(user({"type": "video", "path": str(clip)}), add_generation_prompt=True)
    assert prompt.count(HEARD) == prompt.count("<Video><video></Video>.") == 1
    assert SENTENCE not in prompt
    inputs = prepare(processor, user({"type": "video", "path": str(clip)}))
    assert counts(processor, inputs) == {"image": 0, "video": 5, "audio": 3}
    assert inputs["pixel_values_videos"].shape == (1, 8, 3, 224, 224)
    assert inputs["input_features"].shape == (1, 8, 128, 204)
    assert inputs["video_frame_mask"].all()
    assert inputs["audio_clip_mask"].all()


@pytest.mark.parametrize("options", ({"load_audio_from_video": False}, {"load_audio_from_video": True}))
def test_silent_video_or_sound_not_wanted(processor, clip, silent_clip, options):
    path = silent_clip if options["load_audio_from_video"] else clip
    prompt = processor.apply_chat_template(user({"type": "video", "video": path}), **options)
    assert f"<Video><video></Video> {SENTENCE} 8 frames sampled at 0.0, 0." in prompt
    assert "<audio>" not in prompt
    assert "input_features" not in prepare(processor, user({"type": "video", "video": path}), **options)


def test_items_of_any_kind_and_number(processor, clip, silent_clip, picture):
    sound = {"type": "audio", "audio": np.ones(48000, dtype=np.float32) * 0.1}
    first = user({"type": "image", "image": picture}, {"type": "video", "video": clip}, sound)
    answer = [{"role": "assistant", "content": [{"type": "text", "text": "A circle."}]}]
    second = user({"type": "video", "video": silent_clip}, {"type": "image", "image": picture})
    inputs = prepare(processor, first + answer + second)
    assert counts(processor, inputs) == {"image": 10, "video": 10, "audio": 6}
    assert inputs["pixel_values"].shape[0] == inputs["pixel_values_videos"].shape[0] == 2
    assert inputs["input_features"].shape[0] == 2


def test_batch_is_padded_on_the_left_and_equals_single_conversations(processor, clip, silent_clip, picture):
    conversations = [
        user({"type": "video", "video": clip, "num_frames": 3}),
        user({"type": "image", "image": picture}),
        [{"role": "user", "content": "Only text."}],
        user({"type": "video", "video": silent_clip}),
    ]
    batch = prepare(processor, conversations)
    singles = [prepare(processor, conversation) for conversation in conversations]
    for ids, mask, single in zip(batch["input_ids"], batch["attention_mask"], singles, strict=True):
        assert ids[mask.bool()].tolist() == single["input_ids"][0].tolist()
        assert mask.tolist() == sorted(mask.tolist())
    assert batch["video_frame_mask"].sum(dim=1).tolist() == [3, 8]
    torch.testing.assert_close(batch["pixel_values_videos"][0, :3], singles[0]["pixel_values_videos"][0])
    assert not batch["pixel_values_videos"][0, 3:].any()


def test_options_of_a_call(processor, clip):
    block = {"type": "video", "video": clip}
    assert prepare(processor, user(block), processor_kwargs={"num_frames": 4})["video_frame_mask"].shape == (1, 4)
    assert prepare(processor, user(block), processor_kwargs={"fps": 2})["video_frame_mask"].shape == (1, 4)
    assert prepare(processor, user({**block, "fps": 3}), num_frames=4)["video_frame_mask"].shape == (1, 6)
    span = prepare(processor, user({**block, "start": 1.0, "end": 1.5}))
    assert not torch.equal(span["pixel_values_videos"], prepare(processor, user(block))["pixel_values_videos"])
    without = processor.apply_chat_template(user(block), load_audio_from_video=False, add_timestamps=False)
    assert SENTENCE not in without
    stereo = {"type": "audio", "audio": np.stack((np.ones(32000), np.sin(np.arange(32000.0)))).astype(np.float32)}
    mean, first = (
        prepare(processor, user(stereo), processor_kwargs={"downmix": way})["input_features"]
        for way in ("mean", "first")
    )
    assert not torch.allclose(mean, first)


def test_metadata_of_several_videos_in_a_call(processor):
    """One entry for each video, in their order over all conversations, as for the processor's call."""
    frames = {"type": "video", "video": np.zeros((4, 8, 8, 3), dtype=np.uint8)}
    conversations = [user(frames, frames), user(frames)]
    options = {"video_metadata": [{"fps": 1}, {"fps": 2}, {"fps": 4}]}
    first, second = processor.apply_chat_template(conversations, processor_kwargs=options)
    assert first.index("0.0, 1.0, 2.0, 3.0 seconds") < first.index("0.0, 0.5, 1.0, 1.5 seconds")
    assert "0.0, 0.2, 0.5, 0.8 seconds" in second
    assert prepare(processor, conversations, processor_kwargs=options)["video_frame_mask"].shape == (3, 4)
    with pytest.raises(ValueError, match="video_metadata for 3 videos, but 1 videos"):
        prepare(processor, user(frames), processor_kwargs=options)


def test_times_of_a_span_are_those_of_the_video(processor, clip):
    block = {"type": "video", "video": clip, "start": 1.0, "end": 1.4, "num_frames": 2}
    prompt = processor.apply_chat_template(user(block), load_audio_from_video=False)
    assert "The video contains 2 frames sampled at 1.0, 1.2 seconds. " in prompt


@pytest.mark.parametrize("way", ("path", "url", "loaded", "bytes", "openai"))
def test_sources(processor, clip, way):
    block = {
        "path": {"type": "video", "path": str(clip)},
        "url": {"type": "video", "url": clip.as_uri()},
        "loaded": {"type": "video", "video": load_video(clip, size=(224, 224))},
        "bytes": {"type": "video", "video": clip.read_bytes()},
        "openai": {"type": "video_url", "video_url": {"url": clip.as_uri()}},
    }[way]
    expected = prepare(processor, user({"type": "video", "video": clip}))
    for name, value in prepare(processor, user(block)).items():
        torch.testing.assert_close(value, expected[name], msg=name)


def test_conversation_is_not_changed(processor, clip, picture):
    conversation = user({"type": "video", "video": str(clip)}, {"type": "audio"}, {"type": "image", "image": picture})
    before = copy.deepcopy(conversation)
    prepare(processor, conversation)
    assert conversation == before


def test_keys_without_a_value_are_left_out(processor, clip):
    """Datasets in Arrow's format give every block the keys of all blocks."""
    blocks = [
        {"type": "video", "path": str(clip), "video": None, "text": None, "start": None},
        {"type": "text", "text": "What is it?", "path": None, "video": None, "start": None},
    ]
    inputs = prepare(processor, [{"role": "user", "content": blocks, "tool_calls": None}])
    expected = prepare(processor, user({"type": "video", "path": str(clip)}))
    assert inputs["input_ids"].tolist() == expected["input_ids"].tolist()


def test_the_librarys_entry_for_the_sound_of_a_video(processor, clip):
    """A bare audio block behind a video asks for the video's own sound, which is there already."""
    with_entry = user({"type": "video", "path": str(clip)}, {"type": "audio"})
    expected = processor.apply_chat_template(user({"type": "video", "path": str(clip)}))
    assert processor.apply_chat_template(with_entry, load_audio_from_video=True) == expected


def test_text_with_placeholders(processor, clip, picture):
    inputs = processor(
        text=["<video> and <audio>", "<image>"],
        videos=[clip],
        audio=[clip],
        images=[picture],
        return_tensors="pt",
    )
    assert counts(processor, inputs) == {"image": 5, "video": 5, "audio": 3}
    assert set(inputs) == set(processor.model_input_names)
    assert inputs["input_ids"][0, -1] == inputs["input_ids"][0].max()  # padded on the left


def test_text_alone(processor):
    assert processor(text="Hello")["input_ids"] == [processor.tokenizer("Hello")["input_ids"]]
    assert processor(text="Hello", add_special_tokens=False)["input_ids"][0][0] != processor.tokenizer.bos_token_id


def test_assistant_masks_mark_the_answers(processors, clip):
    conversation = [
        *user({"type": "video", "video": clip}),
        {"role": "assistant", "content": [{"type": "text", "text": "A red circle."}]},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "It rings."},
    ]
    for style, end in (("llama-2", " </s>"), ("vicuna", "###")):
        processor = processors[style]
        options = {"return_assistant_tokens_mask": True, "add_generation_prompt": False}
        inputs = prepare(processor, [conversation, user()], **options)
        assert inputs["assistant_masks"].shape == inputs["input_ids"].shape
        marked = inputs["input_ids"][0][inputs["assistant_masks"][0].bool()]
        expected = f"A red circle.{end}It rings.{end}"
        assert processor.decode(marked).replace(" ", "") == expected.replace(" ", "")
        assert not inputs["assistant_masks"][1].any()


def test_continue_final_message(processor):
    conversation = [*user(), {"role": "assistant", "content": [{"type": "text", "text": "It is a"}]}]
    prompt = processor.apply_chat_template(conversation, continue_final_message=True)
    assert prompt.endswith("[/INST] It is a")


def test_system_message_replaces_the_default(processors):
    system = [{"role": "system", "content": "Be brief."}]
    assert "<<SYS>>\nBe brief.\n<</SYS>>" in processors["llama-2"].apply_chat_template(system + user())
    assert processors["vicuna"].apply_chat_template(system + user()).startswith("<s>Be brief.###Human: ")


def test_sound_alone(processor):
    prompt = processor.apply_chat_template(user({"type": "audio", "audio": np.ones(32000, dtype=np.float32)}))
    assert f"{HEARD} Now answer my question based on what you have just heard. What is it?" in prompt


def test_counts_for_engines(processor):
    data = processor._get_num_multimodal_tokens(image_sizes=[(4, 4)], video_sizes=[(8, 4, 4)] * 2, num_frames=3)
    assert (data.num_image_tokens, data.num_image_patches, data.num_video_tokens) == ([5], [1], [5, 5])


def test_answers_lose_the_stop_string(processors):
    tokenizer = processors["vicuna"].tokenizer
    ids = tokenizer("A dog.###", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert processors["vicuna"].post_process_image_text_to_text(ids) == ["A dog."]
    assert processors["llama-2"].post_process_image_text_to_text(ids) == ["A dog.###"]


def test_save_and_reload(processor, clip, tmp_path):
    processor.save_pretrained(tmp_path)
    reloaded = AutoProcessor.from_pretrained(tmp_path)
    expected = prepare(processor, user({"type": "video", "video": clip}))
    for name, value in prepare(reloaded, user({"type": "video", "video": clip})).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert reloaded.to_dict() == processor.to_dict()
    assert reloaded.chat_template == processor.chat_template


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text": "<video>"}, r"<video> tokens .* number of videos, .* \[1\] of them, 1 in all, and 0 videos"),
        (
            {"text": ["<image>", "none"], "images": [np.zeros((4, 4, 3), np.uint8)] * 2},
            r"\[1, 0\] .* and 2 images were passed",
        ),
        (
            {"text": "no placeholder", "audio": np.ones(3200, np.float32)},
            r"<audio> tokens .* number of sounds, .* 0 in all, and 1 sounds",
        ),
        ({}, "give at least one"),
        ({"text": [3]}, "item 0 is <class 'int'>"),
    ],
)
def test_placeholders_must_match_items(processor, call, message):
    with pytest.raises(ValueError, match=message):
        processor(**call)


def test_checkpoint_without_audio_branch_refuses_sound(processor, clip):
    deaf = copy.deepcopy(processor)
    deaf.num_audio_tokens, deaf.load_audio_from_video = 0, False
    asked_for_all = {}, {"load_audio_from_video": True}  # the library's server asks for it of any model
    for options in asked_for_all:
        assert "input_features" not in prepare(deaf, user({"type": "video", "video": clip}), **options)
    with pytest.raises(ValueError, match="no audio branch"):
        prepare(deaf, user({"type": "audio", "audio": np.ones(32000, dtype=np.float32)}))


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_items_of_a_batch_are_opened_at_once(processor, clip, two_threads, monkeypatch):
    """Each of these two waits until the other is being opened, too."""
    both, load = threading.Barrier(2, timeout=20), video_processing_video_llama.load_video

    def load_together(*args, **kwargs):
        both.wait()
        return load(*args, **kwargs)

    monkeypatch.setattr(video_processing_video_llama, "load_video", load_together)
    chats = [user({"type": "video", "video": clip}), user({"type": "video", "video": clip, "num_frames": 3})]
    together = prepare(processor, chats)
    monkeypatch.undo()
    torch.set_num_threads(1)
    one_by_one = prepare(processor, chats)
    assert together.keys() == one_by_one.keys()
    assert all(torch.equal(together[name], one_by_one[name]) for name in together)
    with pytest.raises(MediaError, match=r"first\.mp4"):  # the first of the batch, whichever fails first
        prepare(processor, [user({"type": "video", "video": f"/nowhere/{name}.mp4"}) for name in ("first", "second")])


def test_messages_and_blocks_can_be_objects(processor):
    """Clients of servers have them as dataclasses or Pydantic models."""

    @dataclass
    class Block:
        type: str
        image_url: dict | None = None
        text: str | None = None

    class Message:  # as Pydantic's models
        role = "user"

        def __init__(self, *content: Block):
            self.content = list(content)

        def model_dump(self) -> dict:
            return {"role": self.role, "content": self.content}

    with BytesIO() as file:
        Image.new("RGB", (40, 30), "teal").save(file, format="PNG")
        address = f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    picture = {"type": "image_url", "image_url": {"url": address}}
    plain = prepare(processor, user(picture))
    message = Message(Block(**picture), Block("text", text="What is it?"))
    for inputs in (prepare(processor, [message]), prepare(processor, [[message]])):
        assert inputs.keys() == plain.keys()
        assert all(torch.equal(inputs[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"continue_final_message": True}, "goes with neither"),
        ({"processor_kwargs": {"downmix": "loudest"}}, "downmix"),
        ({"processor_kwargs": {"num_frames": 4, "fps": 2}}, "num_frames"),
    ],
)
def test_options_that_do_not_go(processor, clip, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(processor, user({"type": "video", "video": clip}), **options)


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "empty conversation"),
        (7, "got the conversation 7, expected a list of messages"),
        (["What is it?"], "got the conversation What is it., expected a list of messages"),
        ([user(), 7], "got the conversation 7, expected a list of messages"),
        ([*user(), 7], "got the message 7, expected a dict with 'role'"),
        ([{"role": ["user"], "content": "What is it?"}], "expected a dict with 'role'"),
        ([{"role": "user", "content": 7}], "got the content 7, expected a string or a list of blocks"),
        (user({"type": ["video"]}), "expected a dict with 'type'"),
        (user({"type": "text", "text": 7}), "message 0, block 0: got the text 7, expected a string"),
        (user({"type": "input_audio", "input_audio": {"data": "AAAA"}}), "expected a dict with 'url', or with 'data'"),
        (user({"type": "video", "num_frames": "8"}), "num_frames='8', expected a positive whole number"),
        ([{"content": "What is it?"}], "expected a dict with 'role'"),
        ([{"role": "user", "content": ["What is it?"]}], "got the block 'What is it.*, expected a dict with 'type'"),
        ([{"role": "user", "content": [{"text": "What is it?"}]}], "expected a dict with 'type'"),
        (
            [{"role": "user", "content": [{"type": "smell"}]}],
            "types are text, image, video and audio, got smell",
        ),
        ([{"role": "narrator", "content": "So it was."}], "Roles are system, user and assistant, got narrator"),
        ([*user(), {"role": "system", "content": "Be brief."}], "A system message can only be the first"),
    ],
)
@pytest.mark.parametrize("style", ("llama-2", "vicuna"))
def test_conversations_that_are_none(processors, style, conversation, message):
    with pytest.raises(ValueError, match=message):
        processors[style].apply_chat_template(conversation)
