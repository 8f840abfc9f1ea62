"""More frames or clips than the model has positions for are refused before one of them is decoded."""

import json
from unittest import mock

import numpy as np
import pytest
import torch
from render_clip import render_clip
from transformers import AutoProcessor, pipeline

from transformers_videollama import TINY_CHECKPOINT, VideoLlamaConfig, load_video
from transformers_videollama.cli import main
from transformers_videollama.convert.processor_files import build_processor
from transformers_videollama.media.frames import VideoFile


LIMIT = 16  # of the checkpoint that the tests convert
FRAMES = np.zeros((40, 8, 8, 3), dtype=np.uint8)
MESSAGE = r"{} frames are asked for, but the model takes at most {}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=3.0)  # 75 frames


@pytest.fixture
def nothing_is_decoded():
    with mock.patch.object(VideoFile, "read", side_effect=AssertionError("frames were decoded")):
        yield


def chat(**fields) -> list[dict]:
    return [{"role": "user", "content": [{"type": "video", **fields}, {"type": "text", "text": "What is it?"}]}]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"num_frames": 17}, 17),
        ({"num_frames": 10**9}, 75),
        ({"fps": 10}, 30),
        ({"fps": 1000}, 75),
        ({"do_sample_frames": False}, 75),
        ({"num_frames": 40, "start": 1, "end": 2.5}, 38),
    ],
)
def test_a_file(processor, clip, nothing_is_decoded, options, count):
    message = f"clip.mp4: {MESSAGE.format(count, LIMIT)}"
    calls = [
        lambda: processor.apply_chat_template(chat(path=str(clip), **options)),
        lambda: processor.apply_chat_template(chat(path=str(clip)), processor_kwargs=options),
        lambda: processor(text="<video>", videos=[clip], **options),
        lambda: processor.video_processor([clip], **options),
        lambda: processor.open_media(chat(path=str(clip), **options)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("options", ({"num_frames": 16}, {"fps": 5}, {"num_frames": 40, "start": 1, "end": 1.5}))
def test_as_many_as_the_model_takes(processor, clip, options):
    inputs = processor.apply_chat_template(
        chat(path=str(clip), **options), tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert inputs["video_frame_mask"].shape[1] <= LIMIT


def test_what_comes_decoded(processor):
    video = load_video(FRAMES, num_frames=20)
    with pytest.raises(ValueError, match=MESSAGE.format(20, LIMIT)):
        processor.apply_chat_template(chat(video=video), tokenize=True)
    with pytest.raises(ValueError, match=MESSAGE.format(20, LIMIT)):
        processor.apply_chat_template(chat(video=FRAMES, num_frames=20))
    assert processor(videos=[FRAMES], num_frames=16, return_tensors="pt")["video_frame_mask"].shape == (1, 16)


def test_short_videos_give_all_that_they_have(processor):
    inputs = processor(videos=[FRAMES[:12]], num_frames=64, return_tensors="pt")
    assert inputs["video_frame_mask"].shape == (1, 12)


def test_clips_of_sound(processor, clip):
    limit = processor.feature_extractor.model_max_clips
    sound = np.sin(np.arange(48000)).astype(np.float32)
    assert processor.feature_extractor(sound, num_clips=limit, return_tensors="pt")["audio_clip_mask"].sum() == limit
    for call in (processor.feature_extractor, lambda sound, **given: processor(audio=[sound], **given)):
        with pytest.raises(ValueError, match=f"got num_clips={limit + 1}, but the model takes at most {limit} clips"):
            call(sound, num_clips=limit + 1)


def test_frames_that_stand_in_for_sound_have_the_positions_of_sounds(processor, clip, nothing_is_decoded):
    limit = processor.feature_extractor.model_max_clips
    options = {"frames_as_sound": True, "num_frames": limit + 1}
    with pytest.raises(ValueError, match=MESSAGE.format(limit + 1, limit)):
        processor(videos=[clip], **options)
    with pytest.raises(ValueError, match=MESSAGE.format(limit + 1, limit)):
        processor.apply_chat_template(chat(path=str(clip)), load_audio_from_video=False, processor_kwargs=options)


def test_the_limits_come_from_the_tables_of_positions(processor, model, tmp_path):
    config = model.config
    assert processor.video_processor.model_max_frames == config.video_resampler_config.max_position_embeddings
    assert processor.feature_extractor.model_max_clips == config.audio_resampler_config.max_position_embeddings
    released = build_processor(processor.tokenizer, VideoLlamaConfig(audio_config={}), "llama-2")
    released.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (loaded.video_processor.model_max_frames, loaded.feature_extractor.model_max_clips) == (32, 8)


def test_a_processor_that_was_saved_without_limits_knows_none(processor, tmp_path):
    """Older folders load as they are; the model itself refuses what it has no positions for."""
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    del saved["video_processor"]["model_max_frames"], saved["feature_extractor"]["model_max_clips"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.video_processor.model_max_frames is loaded.feature_extractor.model_max_clips is None
    assert loaded(videos=[FRAMES], num_frames=40, return_tensors="pt")["video_frame_mask"].shape == (1, 40)


def test_the_command(clip, nothing_is_decoded, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["ask", str(clip), "What is it?", "--num-frames", "64"])
    assert ended.value.code == 2
    assert MESSAGE.format(64, 32) in capsys.readouterr().err


def test_the_pipeline(clip, nothing_is_decoded):
    ask = pipeline("any-to-any", model=TINY_CHECKPOINT, dtype=torch.float32)
    with pytest.raises(ValueError, match=MESSAGE.format(64, 32)):
        ask(text=chat(path=str(clip), num_frames=64), max_new_tokens=2)
