"""What DeepSpeed's ZeRO-3 asks for: every process runs the same parts in every step, or training does not begin."""

import pytest
import torch
from training_run import conversations, make_trainer, tiny_model

from transformers_videollama.messages import MEDIA_INPUTS
from transformers_videollama.training import STAGES, CheckpointCallback, VideoLlamaDataCollator, sharding


def items(batch) -> set[str]:
    return {given.name for given in MEDIA_INPUTS} & batch.keys()


def shared_out(model):
    """As ZeRO-3 marks what it shares out."""
    for i, parameter in enumerate(model.parameters()):
        parameter.ds_id = i
    return model


@pytest.mark.parametrize("kind", ("text", "image", "video", "audio"))
def test_every_batch_has_every_kind_of_item_and_the_same_loss(model, processor, kind):
    rows = conversations(2, kinds=(kind,))
    plain, full = (VideoLlamaDataCollator(processor, every_kind=every)(rows) for every in (False, True))
    assert items(full) == {"pixel_values", "pixel_values_videos", "input_features"}
    assert items(plain) < items(full)
    with torch.no_grad():
        assert model(**full).loss.item() == pytest.approx(model(**plain).loss.item(), abs=1e-5)


def test_frames_that_stand_in_for_sound_are_one_kind(processor):
    collator = STAGES["al2"].collator(processor, every_kind=True)
    for kind in ("text", "video", "image"):
        assert items(collator(conversations(2, kinds=(kind,)))) == {"audio_pixel_values"}


@pytest.mark.parametrize("every", (False, True))
def test_blank_items_of_rows_that_were_encoded_before_are_encoded_too(model, processor, every):
    config = model.config
    frame = torch.zeros(1, config.num_query_tokens, config.qformer_config.hidden_size)
    blank = {"image": frame, "video": frame, "audio": torch.zeros(1, config.audio_config.projection_dim)}
    rows = [{**row, "blank_features": blank} for row in conversations(2, kinds=("text",))]
    batch = VideoLlamaDataCollator(processor, every_kind=every)(rows)
    more = {"image_frame_features", "audio_clip_features"} if every else set()
    assert items(batch) == {"video_frame_features", *more}
    with torch.no_grad():
        assert torch.isfinite(model(**batch).loss)


@pytest.mark.parametrize(("shared", "calls"), ((False, 4), (True, 1)))
def test_an_encoder_that_is_shared_out_runs_once_for_any_number_of_frames(checkpoint, shared, calls):
    model = tiny_model(checkpoint)
    model.config.encode_batch_size = 2
    if shared:
        shared_out(model)
    seen = []
    model.model.vision_tower.register_forward_hook(lambda *_: seen.append(1))
    size = model.config.vision_config.image_size
    with torch.no_grad():
        model.get_video_features(torch.zeros(1, 8, 3, size, size))
    assert len(seen) == calls


@pytest.mark.parametrize(
    ("collator", "flash", "message"),
    (
        ({}, False, "the collator has every_kind=False; make it after the TrainingArguments, pass every_kind=True"),
        ({"every_kind": True}, True, 'flash attention runs a branch once for .* attn_implementation="sdpa"'),
    ),
)
def test_training_does_not_begin_where_processes_may_run_different_parts(
    checkpoint, processor, tmp_path, monkeypatch, collator, flash, message
):
    monkeypatch.setattr(sharding, "is_flash_attention_requested", lambda config: flash)
    trainer = make_trainer(checkpoint, tmp_path, callbacks=[CheckpointCallback()])
    trainer.data_collator = STAGES["vl2"].collator(processor, **collator)
    shared_out(trainer.model)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0
