"""From chat messages to batches, and the original's training losses by this way."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from golden_cases import LOSSES, branch_inputs, training_cases
from PIL import Image
from render_clip import render_clip

from transformers_videollama import EncodedMedia, MediaError, load_chat_template
from transformers_videollama.training import AugmentedDataset, VideoLlamaDataCollator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for seed in range(2):
        render_clip(folder / f"{seed}.mp4", seconds=2, size=(96, 64), seed=seed)
    render_clip(folder / "silent.mp4", seconds=2, size=(96, 64), sound=False)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(folder / "image.png")
    (folder / "damaged.mp4").write_bytes((folder / "0.mp4").read_bytes()[:3000])
    return folder


def chat(*blocks, answer="A bell.", question="What is it?") -> dict:
    content = [*blocks, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def media(kind: str, path) -> dict:
    return {"type": kind, "path": str(path)}


def answers_of(processor, batch) -> list[str]:
    rows = zip(batch["input_ids"], batch["labels"], strict=True)
    for ids, labels in rows:
        assert torch.equal(labels[labels != -100], ids[labels != -100])
    return [processor.tokenizer.decode(labels[labels != -100]).strip() for labels in batch["labels"]]


# The original's losses


def golden_case(cases, name: str) -> dict:
    return next(case for case in cases["cases"]["training"] if case["name"] == name)


def encoded(model, case: dict) -> list[EncodedMedia]:
    """The pixels of a case, which are no pictures but noise, through the frozen encoders of its branch."""
    ((name, frames),) = branch_inputs(case).items()
    if name == "pixel_values_videos":
        features = model.model.get_frame_features(frames.flatten(0, 1))
    else:
        features = model.model.audio_vision_tower(frames.flatten(0, 1)).pooler_output
    return [EncodedMedia(item.detach()) for item in features.unflatten(0, frames.shape[:2])]


def as_messages(text: str, item: EncodedMedia) -> dict:
    """ "###Human: <Video>...</Video> question\\n###Assistant: answer\\n###" of the original as a conversation."""
    question, answer = re.fullmatch(r"###Human: <Video>.*</Video> (.*)\n###Assistant: (.*)\n###", text).groups()
    content = [{"type": "video", "video": item}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("name", training_cases("instruct"))
def test_golden_instruction_losses(model, processors, cases, golden, name):
    """
    The collator makes the original's token ids. The loss in the golden data is over all behind the first 29 tokens,
    a part of the question among them, so it is taken over the golden labels; the collator's own are the answers alone.
    """
    case = golden_case(cases, name)
    collator = VideoLlamaDataCollator(
        processors["vicuna"],
        chat_template=load_chat_template("vicuna-training"),
        frames_as_sound=case["branch"] == "audio",
        branches=(case["branch"],),
    )
    items = encoded(model, case)
    batch = collator([as_messages(text, item) for text, item in zip(case["texts"], items, strict=True)])
    placeholder = getattr(model.config, f"{case['branch']}_token_id")
    ids, real = golden[f"{name}/input_ids"], batch["attention_mask"].bool()
    assert torch.equal(batch["input_ids"][real].where(batch["input_ids"][real] != placeholder, 1000), ids[ids != 0])
    expected = [text.split("###Assistant: ")[1] for text in case["texts"]]
    assert answers_of(processors["vicuna"], batch) == expected
    loss = model(**{**batch, "labels": golden[f"{name}/labels"]}).loss
    torch.testing.assert_close(loss, torch.tensor(case["loss"]), **LOSSES)


@pytest.mark.parametrize("name", training_cases("caption"))
def test_golden_caption_losses(model, processor, cases, name):
    case = golden_case(cases, name)
    collator = VideoLlamaDataCollator(
        processor, text="caption", frames_as_sound=case["branch"] == "audio", branches=(case["branch"],)
    )
    rows = []
    for item, caption in zip(encoded(model, case), case["captions"], strict=True):
        content = [{"type": "video", "video": item}]
        if case["prompt"]:
            before, behind = re.fullmatch("###Human: (.*)<ImageHere>(.*) ###Assistant: ", case["prompt"]).groups()
            content = [{"type": "text", "text": before}, *content, {"type": "text", "text": behind}]
        rows.append({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": caption}]})
    batch = collator(rows)
    assert answers_of(processor, batch) == [caption + "###" for caption in case["captions"]]
    torch.testing.assert_close(model(**batch).loss, torch.tensor(case["loss"]), **LOSSES)


# Batches


def test_loss_is_on_the_answers_of_every_turn(processor, folder):
    turns = chat(media("video", folder / "0.mp4"))["messages"]
    turns += [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Now it is quiet."}]
    batch = VideoLlamaDataCollator(processor)([{"messages": turns}])
    assert answers_of(processor, batch) == ["A bell. </s> Now it is quiet. </s>"]


def test_batch_equals_its_rows(model, processor, folder):
    """Ragged frames, several kinds of items, a text alone: a batch is no more than its rows."""
    rows = [
        chat({**media("video", folder / "0.mp4"), "num_frames": 3}, media("image", folder / "image.png")),
        chat(media("video", folder / "1.mp4"), media("video", folder / "silent.mp4"), answer="Two clips of a ball."),
        chat(answer="Nothing."),
        chat(media("audio", folder / "1.mp4"), media("image", folder / "image.png")),
    ]
    collator = VideoLlamaDataCollator(processor, load_audio_from_video=True)
    together = collator(rows)
    assert together["pixel_values_videos"].shape[:2] == (3, 8)
    assert together["video_frame_mask"].sum(1).tolist() == [3, 8, 8]
    assert together["pixel_values"].shape[0] == 2
    assert together["input_features"].shape[0] == 3
    logits = model(**together).logits
    for i, row in enumerate(rows):
        single = collator([row])
        length = single["input_ids"].shape[1]
        torch.testing.assert_close(model(**single).logits[:1], logits[i : i + 1, :length], atol=1e-4, rtol=0)
        assert torch.equal(single["labels"][0], together["labels"][i, :length])
        assert (together["labels"][i, length:] == -100).all()


def test_arrow_rows(processor, folder):
    """Rows as `datasets` gives them, where every block has all keys."""
    datasets = pytest.importorskip("datasets")
    row = chat(media("video", folder / "0.mp4"))
    row["messages"][1]["content"] = [{"type": "text", "text": "A bell."}]
    (stored,) = datasets.Dataset.from_list([row])
    assert stored["messages"][0]["content"][0]["text"] is None
    collator = VideoLlamaDataCollator(processor)
    plain, through_arrow = collator([row]), collator([stored])
    assert plain.keys() == through_arrow.keys()
    assert all(torch.equal(plain[name], through_arrow[name]) for name in plain)


@pytest.mark.parametrize("own", (False, True))
def test_sound_of_videos_is_heard_as_the_call_or_the_processor_says(processor, folder, own):
    processor = copy.copy(processor)
    processor.load_audio_from_video = own
    row = chat(media("video", folder / "0.mp4"))
    heard = [
        "input_features" in VideoLlamaDataCollator(processor, load_audio_from_video=hear)([row])
        for hear in (None, False, True)
    ]
    assert heard == [own, False, True]


@pytest.mark.parametrize("own", (False, True))
def test_timestamps_are_written_as_the_call_or_the_processor_says(processor, folder, own):
    processor = copy.copy(processor)
    processor.add_timestamps = own
    row = chat(media("video", folder / "silent.mp4"))
    texts = [
        processor.tokenizer.decode(VideoLlamaDataCollator(processor, add_timestamps=add)([row])["input_ids"][0])
        for add in (None, False, True)
    ]
    assert ["frames sampled at" in text for text in texts] == [own, False, True]


def test_frames_as_sound(model, processor, folder):
    rows = [chat(media("video", folder / "0.mp4")), chat(media("image", folder / "image.png"))]
    batch = VideoLlamaDataCollator(processor, frames_as_sound=True, branches=("audio",))(rows)
    assert batch["audio_pixel_values"].shape == (2, 8, 3, 224, 224)
    assert batch["audio_clip_mask"].sum(1).tolist() == [8, 1]
    assert not {"pixel_values", "pixel_values_videos", "input_features"} & batch.keys()
    counts = (batch["input_ids"] == model.config.audio_token_id).sum(1)
    assert counts.tolist() == [processor.num_audio_tokens] * 2
    assert torch.isfinite(model(**batch).loss)


# Random frames and crops


def pixels_of(collator, dataset) -> torch.Tensor:
    return collator([dataset[0]])["pixel_values_videos"]


def test_augmentation_depends_on_seed_epoch_and_row_alone(processor, folder):
    collator = VideoLlamaDataCollator(processor)
    rows = [chat(media("video", folder / "0.mp4")), chat(media("video", folder / "0.mp4"))]
    first, again, other = (AugmentedDataset(rows, seed=seed) for seed in (0, 0, 1))
    torch.manual_seed(1)
    expected = pixels_of(collator, first)
    torch.manual_seed(2)
    assert torch.equal(pixels_of(collator, again), expected)
    assert not torch.equal(pixels_of(collator, other), expected)
    assert not torch.equal(collator([first[1]])["pixel_values_videos"], expected)
    again.set_epoch(1)
    assert not torch.equal(pixels_of(collator, again), expected)
    assert not torch.equal(collator(rows[:1])["pixel_values_videos"], expected)


def test_frames_of_a_clip_are_cropped_alike(processor):
    """A still picture stays still, and its crop is a part of it."""
    rows, columns = np.mgrid[:224, :224]
    frame = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    row = chat({"type": "video", "video": np.stack([frame] * 4)})
    pixels = pixels_of(VideoLlamaDataCollator(processor), AugmentedDataset([row]))
    assert torch.equal(pixels[0, 0], pixels[0, 3])
    whole = pixels_of(VideoLlamaDataCollator(processor), [row])
    height, width = ((pixels[0, 0, i].max() - pixels[0, 0, i].min()) for i in (0, 1))
    full_height, full_width = ((whole[0, 0, i].max() - whole[0, 0, i].min()) for i in (0, 1))
    assert 0.45 < (height / full_height) * (width / full_width) <= 1.05


def test_images_are_cropped(processor, folder):
    row = chat(media("image", folder / "image.png"))
    collator = VideoLlamaDataCollator(processor)
    cropped, whole = (collator([dataset[0]])["pixel_values"] for dataset in (AugmentedDataset([row]), [row]))
    assert cropped.shape == whole.shape
    assert not torch.equal(cropped, whole)


# Samples that cannot be used


def test_unreadable_samples_are_left_out_and_logged(processor, folder, caplog):
    good, bad = chat(media("video", folder / "0.mp4")), chat(media("video", folder / "damaged.mp4"))
    collator = VideoLlamaDataCollator(processor, max_unreadable=1)
    with caplog.at_level("WARNING"):
        batch = collator([good, bad])
    assert len(batch["input_ids"]) == 1
    assert re.search(r"left out a sample \(1 so far, at most 1\): .*damaged.mp4", caplog.text)
    with pytest.raises(ValueError, match=r"2 samples could not be used, more than max_unreadable=1; .*damaged.mp4"):
        collator([bad])


def test_the_count_is_shared_by_workers(processor, folder):
    bad = [chat(media("video", folder / "damaged.mp4"))] * 8
    collator = VideoLlamaDataCollator(processor, max_unreadable=3)
    loader = torch.utils.data.DataLoader(bad, batch_size=1, num_workers=2, collate_fn=collator)
    with pytest.raises(ValueError, match="more than max_unreadable=3"):
        list(loader)


@pytest.mark.parametrize("branch", ("video", "audio"))
@pytest.mark.parametrize("rows", ([chat(answer="Nothing.")], []), ids=("text alone", "nothing readable"))
def test_every_batch_runs_the_branch(model, processor, branch, rows):
    collator = VideoLlamaDataCollator(processor, branches=(branch,), frames_as_sound=branch == "audio")
    batch = collator(rows)
    assert len(batch["input_ids"]) == len(rows) + 1
    assert (batch["labels"][-1] == -100).all()
    count = (batch["labels"][:, 1:] != -100).sum()
    loss = model(**batch, num_items_in_batch=count).loss
    if rows:
        text_only = {name: batch[name][:1] for name in ("input_ids", "attention_mask", "labels")}
        torch.testing.assert_close(loss, model(**text_only).loss)
    else:
        assert loss == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a"}, r"must have the column 'messages', got \['text'\]"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer to learn from"),
        (chat({"type": "video", "path": "absent.mp4"}), "absent.mp4"),
        (chat({"type": "audio", "path": "absent.wav"}), "absent.wav"),
    ],
)
def test_bad_rows(processor, row, message):
    with pytest.raises(ValueError, match=message):
        VideoLlamaDataCollator(processor).encode(row)


def test_long_conversations_are_cut_unless_an_item_is_beyond(processor, folder):
    collator = VideoLlamaDataCollator(processor, load_audio_from_video=False, max_length=120)
    long = chat(media("video", folder / "0.mp4"), answer="word " * 200)
    batch = collator([long])
    assert batch["input_ids"].shape == (1, 120)
    with pytest.raises(ValueError, match="items beyond max_length=120"):
        collator.encode(chat({"type": "text", "text": "word " * 200}, media("video", folder / "0.mp4")))
    with pytest.raises(ValueError, match="no answer to learn from within max_length"):
        VideoLlamaDataCollator(processor, max_length=60).encode(chat(answer="a", question="word " * 100))


def test_captions_need_one_answer(processor, folder):
    turns = chat(media("video", folder / "0.mp4"))["messages"] * 2
    with pytest.raises(ValueError, match=r"got messages of \['user', 'assistant', 'user', 'assistant'\]"):
        VideoLlamaDataCollator(processor, text="caption").encode({"messages": turns})


def test_encoded_and_raw_items_do_not_mix(model, processor, folder):
    raw = chat(media("video", folder / "0.mp4"))
    features = model.model.get_frame_features(torch.zeros(2, 3, 224, 224)).detach()
    with pytest.raises(ValueError, match="pixel_values_videos and video_frame_features, which exclude each other"):
        VideoLlamaDataCollator(processor)([raw, chat({"type": "video", "video": EncodedMedia(features)})])


def test_sound_does_not_go_with_frames_in_its_stead(processor, folder):
    row = chat(media("video", folder / "0.mp4"), media("audio", folder / "1.mp4"))
    with pytest.raises(ValueError, match="with frames_as_sound, videos take the places of sounds: got 1 sounds"):
        VideoLlamaDataCollator(processor, frames_as_sound=True).encode(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"text": "prose"}, 'text must be "chat" or "caption"'), ({"branches": ("smell",)}, r"got \['smell'\]")],
)
def test_bad_options(processor, options, message):
    with pytest.raises(ValueError, match=message):
        VideoLlamaDataCollator(processor, **options)


# Items that are encoded before


@pytest.mark.parametrize("kind", ("image", "video", "audio"))
def test_encoded_items_give_the_same_logits(model, processor, folder, kind):
    row = chat(media(kind, folder / ("image.png" if kind == "image" else "0.mp4")))
    collator = VideoLlamaDataCollator(processor, load_audio_from_video=False, add_timestamps=False)
    batch = collator([row, row])
    base = model.model
    with torch.no_grad():
        if kind == "audio":
            features = base.audio_tower(batch["input_features"][0]).pooler_output
        elif kind == "image":
            features = base.get_frame_features(batch["pixel_values"][:1])
        else:
            features = base.get_frame_features(batch["pixel_values_videos"][0])
        expected = model(**batch).logits
        again = collator([chat({"type": kind, kind: EncodedMedia(features)})] * 2)
        torch.testing.assert_close(model(**again).logits, expected, atol=1e-5, rtol=0)


def test_questions_about_encoded_items(model, processor, folder):
    """Features computed before can be asked about with `generate`, too."""
    messages = chat(media("video", folder / "silent.mp4"))["messages"][:1]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_timestamps": False}
    inputs = processor.apply_chat_template(messages, **options)
    features = model.model.get_frame_features(inputs["pixel_values_videos"][0]).detach()
    again = processor.apply_chat_template(
        chat({"type": "video", "video": EncodedMedia(features)})["messages"][:1], **options
    )
    assert "pixel_values_videos" not in again
    tokens = [model.generate(**given, do_sample=False, max_new_tokens=5) for given in (inputs, again)]
    assert torch.equal(*tokens)


def test_media_error_names_the_file(processor, folder):
    with pytest.raises(MediaError, match=r"damaged\.mp4"):
        VideoLlamaDataCollator(processor).encode(chat(media("video", folder / "damaged.mp4")))


def test_rows_are_not_changed(processor, folder):
    row = chat(media("video", folder / "0.mp4"))
    before = json.dumps(row)
    VideoLlamaDataCollator(processor, frames_as_sound=True)([AugmentedDataset([row])[0]])
    assert json.dumps(row) == before
