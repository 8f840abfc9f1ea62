"""From files to answers: a batch of clips of several lengths, with and without sound, against single calls."""

import pytest
import torch
from render_clip import render_clip


GREEDY = {"do_sample": False, "top_p": None, "temperature": None, "max_new_tokens": 8}
NUM_FRAMES = (3, 8, 16)


@pytest.mark.parametrize("sounds", ((False, False, False), (True, True, True), (True, False, True)))
@pytest.mark.parametrize("style", ("llama-2", "vicuna"))
def test_batch_of_clips_equals_single_calls(processors, model, tmp_path, sounds, style):
    processor = processors[style]
    chats = []
    for seed, (num_frames, sound) in enumerate(zip(NUM_FRAMES, sounds, strict=True)):
        clip = render_clip(tmp_path / f"{seed}.mp4", seconds=1.0 + seed, sound=sound, seed=seed)
        video = {"type": "video", "path": str(clip), "num_frames": num_frames}
        chats.append([{"role": "user", "content": [video, {"type": "text", "text": "What is it?" * (seed + 1)}]}])

    def prepare(conversation):
        return processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )

    def features(inputs) -> list[torch.Tensor]:
        """Of all videos, then of all sounds."""
        found = [*model.get_video_features(inputs["pixel_values_videos"], inputs["video_frame_mask"]).pooler_output]
        if "input_features" in inputs:
            found += [*model.get_audio_features(inputs["input_features"]).pooler_output]
        return found

    batch, singles = prepare(chats), [prepare(chat) for chat in chats]
    assert batch["video_frame_mask"].sum(dim=1).tolist() == list(NUM_FRAMES)
    apart = [features(single) for single in singles]
    expected = [video for video, *_ in apart] + [sound for _, *sounds_of in apart for sound in sounds_of]
    assert len(expected) == len(chats) + sum(sounds)
    for feature, single in zip(features(batch), expected, strict=True):
        torch.testing.assert_close(feature, single, rtol=0, atol=1e-5)
    answers = model.generate(**batch, **GREEDY)[:, batch["input_ids"].shape[1] :]
    for answer, single in zip(answers, singles, strict=True):
        assert answer.tolist() == model.generate(**single, **GREEDY)[0, single["input_ids"].shape[1] :].tolist()
