"""Labels that cannot be predicted, and items without a real step, are errors that say which, in every way in."""

import re

import pytest
import torch
from test_modeling import GREEDY, everything, prompt
from transformers import AutoModelForMultimodalLM

from transformers_videollama.generation_video_llama import CACHE_NAME
from transformers_videollama.modeling_video_llama import VideoLlamaResampler


NO_FRAME = r"video 1 has no real frame \(of 3, counted from 0\): video_frame_mask must be True for at least one frame"
NO_CLIP = r"sounds 0, 2 have no real clip \(of 3, counted from 0\): audio_clip_mask must be True for at least one clip"


def test_labels_that_are_the_prompt_are_refused(model):
    inputs = everything(model)
    ids = [getattr(model.config, f"{kind}_token_id") for kind in ("image", "video", "audio")]
    message = (
        f"ids that the model can predict, 0 to {model.config.output_vocab_size - 1}; got {ids[0]} (image placeholder) "
        f"5 times, {ids[1]} (video placeholder) 5 times, {ids[2]} (audio placeholder) 3 times, in the rows [0], "
        "first at labels[0, 1]; set labels of placeholders and of padding to -100"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**inputs, labels=inputs["input_ids"].clone())


@pytest.mark.parametrize("wrong", (-1, -101, 10_000))
def test_labels_out_of_range_are_refused(model, wrong):
    text = torch.tensor([[1, 5, 6], [1, 7, 8]])
    labels = text.clone()
    labels[1, 2] = wrong
    with pytest.raises(ValueError, match=rf"got {wrong} 1 times, in the rows \[1\], first at labels\[1, 2\]"):
        model(text, labels=labels)


def test_a_message_lists_few_of_many_wrong_labels(model):
    text = torch.full((1, 9), 5)
    with pytest.raises(ValueError, match=r"-9 1 times, -8 1 times, .*, -5 1 times, 4 ids more, in the rows"):
        model(text, labels=-torch.arange(1, 10)[None])


def test_every_id_that_can_be_predicted_may_be_a_label(model):
    text = torch.tensor([[1, 5, 6, 7]])
    last = model.config.output_vocab_size - 1
    assert model(text, labels=torch.tensor([[-100, 0, last, -100]])).loss.isfinite()
    assert model(text, labels=torch.tensor([[-1, 0, last, -1]]), ignore_index=-1).loss.isfinite()


@torch.no_grad()
def test_a_loss_that_is_compiled_reads_no_labels(model):
    text, labels = torch.tensor([[1, 5, 6, 7]]), torch.tensor([[-100, 5, 6, 7]])
    compiled = torch.compile(model, fullgraph=True, backend="eager")(text, labels=labels)
    torch.testing.assert_close(compiled.loss, model(text, labels=labels).loss, rtol=0, atol=1e-4)


@pytest.fixture(scope="module", params=("sdpa", "eager", "flex_attention"))
def any_model(request, checkpoint):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint, attn_implementation=request.param).eval()


def videos_without_frames(model, *names: str) -> dict[str, torch.Tensor]:
    """Three videos, of which the second has padding alone, and a prompt with all of them."""
    given = {
        "input_ids": torch.tensor([prompt(model, "video", "video", "video")]),
        "pixel_values_videos": torch.zeros(3, 2, 3, 224, 224),
        "video_frame_features": torch.zeros(3, 2, model.config.num_query_tokens, 32),
        "video_frame_mask": torch.tensor([[True, True], [False, False], [False, True]]),
    }
    return {name: given[name] for name in (*names, "video_frame_mask")}


def sounds_without_clips(model, *names: str) -> dict[str, torch.Tensor]:
    """Three sounds, of which only the second has a clip, and a prompt with all of them."""
    given = {
        "input_ids": torch.tensor([prompt(model, "audio", "audio", "audio")]),
        "input_features": torch.zeros(3, 2, 128, 204),
        "audio_pixel_values": torch.zeros(3, 2, 3, 224, 224),
        "audio_clip_features": torch.zeros(3, 2, model.config.audio_config.projection_dim),
        "audio_clip_mask": torch.tensor([[False, False], [False, True], [False, False]]),
    }
    return {name: given[name] for name in (*names, "audio_clip_mask")}


@pytest.mark.parametrize("name", ("pixel_values_videos", "video_frame_features"))
def test_a_video_without_a_frame_is_refused(any_model, name):
    given = videos_without_frames(any_model, name)
    for get_features in (any_model.get_video_features, any_model.model.get_video_features):
        with pytest.raises(ValueError, match=NO_FRAME):
            get_features(**given)
    given = videos_without_frames(any_model, "input_ids", name)
    for call in (any_model, any_model.model, lambda **inputs: any_model.generate(**inputs, **GREEDY)):
        with pytest.raises(ValueError, match=NO_FRAME):
            call(**given)
    with pytest.raises(ValueError, match=NO_FRAME):
        any_model.encode_media(given)


@pytest.mark.parametrize("name", ("input_features", "audio_pixel_values", "audio_clip_features"))
def test_a_sound_without_a_clip_is_refused(any_model, name):
    given = sounds_without_clips(any_model, name)
    for get_features in (any_model.get_audio_features, any_model.model.get_audio_features):
        with pytest.raises(ValueError, match=NO_CLIP):
            get_features(**given)
    given = sounds_without_clips(any_model, "input_ids", name)
    for call in (any_model, any_model.model, lambda **inputs: any_model.generate(**inputs, **GREEDY)):
        with pytest.raises(ValueError, match=NO_CLIP):
            call(**given)


def test_a_resampler_refuses_items_without_steps(any_model):
    resampler: VideoLlamaResampler = any_model.model.video_resampler
    steps = torch.zeros(2, 3, 4, resampler.config.encoder_hidden_size)
    with pytest.raises(ValueError, match=r"item 0 has no real step .* step_mask must be True"):
        resampler(steps, torch.tensor([[False] * 3, [True] * 3]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.get_video_features(torch.zeros(1, 0, 3, 224, 224)),
            r"video must have at least one frame, .* \(1, 0",
        ),
        (lambda m: m.get_audio_features(torch.zeros(1, 0, 128, 204)), r"sound must have at least one clip, .* \(1, 0"),
        (
            lambda m: m.get_video_features(torch.zeros(1, 2, 3, 224, 224), torch.ones(1, 3)),
            r"video_frame_mask must have shape \(videos, frames\), here \(1, 2\), got \(1, 3\)",
        ),
        (
            lambda m: m.get_audio_features(torch.zeros(2, 2, 128, 204), torch.ones(4)),
            r"audio_clip_mask must have shape \(sounds, clips\), here \(2, 2\), got \(4,\)",
        ),
    ],
)
def test_masks_and_items_of_another_shape_are_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("weights", "used"), [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16), (torch.float32, None)]
)
def test_two_16_bit_types_on_a_cpu_are_refused(checkpoint, weights, used):
    """Which torch cannot mix there; float32 goes with both."""
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint, dtype=weights)
    inputs = everything(model)
    if used is None:
        for used in (torch.float16, torch.bfloat16):
            with torch.no_grad(), torch.autocast("cpu", used):
                assert model(**inputs).logits.isfinite().all()
    else:
        message = f"got weights in {weights} on a CPU under autocast in {used}, which torch cannot mix there"
        with torch.autocast("cpu", used), pytest.raises(ValueError, match=re.escape(message)):
            model(**inputs)


def without(inputs: dict, *names: str) -> dict:
    return {name: value for name, value in inputs.items() if name not in names}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "modality", "count", "advice"),
    [
        ("pixel_values", "image", 5, "pixel_values or image_frame_features"),
        ("pixel_values_videos", "video", 5, "pixel_values_videos or video_frame_features"),
        ("input_features", "audio", 3, "input_features or audio_pixel_values or audio_clip_features"),
    ],
)
def test_placeholders_without_items_are_refused(model, name, modality, count, advice):
    """The model would read their own embeddings, and no loss would reach the branch."""
    inputs = without(everything(model), name)
    message = (
        f"{modality.capitalize()} features and {modality} tokens do not match, tokens: {count}, in the rows [0] of "
        f"input_ids, features: 0; pass what the processor returns with these tokens ({advice}), or leave them out of "
        "the text"
    )
    labels = torch.full_like(inputs["input_ids"], -100)
    for call in (
        model,
        model.model,
        lambda **inputs: model(**inputs, labels=labels),
        lambda **inputs: model(**inputs, use_cache=True),
        lambda **inputs: model.generate(**inputs, **GREEDY),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(**inputs)


def test_placeholders_without_items_are_refused_with_a_static_cache(model):
    with pytest.raises(ValueError, match="Video features and video tokens do not match, tokens: 5"):
        model.generate(**without(everything(model), "pixel_values_videos"), **GREEDY, cache_implementation="static")


def test_placeholders_of_the_rows_of_text_are_named(model):
    ids = torch.tensor([[1, 5, 6, 7], [1, 5, model.config.video_token_id, 7], [1, 5, 6, 7]])
    with pytest.raises(ValueError, match=r"video tokens do not match, tokens: 1, in the rows \[1\] of input_ids"):
        model(ids)


@torch.no_grad()
def test_what_begins_no_text_is_not_searched_for_placeholders(model):
    """Steps behind a cached prefix, embeddings, and what engines place themselves."""
    inputs = everything(model)
    ids = inputs["input_ids"]
    whole = model(**inputs).logits[:, -1]
    for cut in (1, 3):
        cached = model(**{**inputs, "input_ids": ids[:, :-cut]}, use_cache=True)[CACHE_NAME]
        step = model(ids[:, -cut:], **{CACHE_NAME: cached}).logits[:, -1]
        torch.testing.assert_close(step, whole, rtol=0, atol=1e-4)
    embeddings = model.get_input_embeddings()(ids)
    model(inputs_embeds=embeddings)


@torch.no_grad()
@pytest.mark.parametrize("new_tokens", (1, 3))
def test_steps_of_decoding_read_nothing_back(model, monkeypatch, new_tokens):
    cached = model(torch.tensor([[1, 5, 6, 7]]), use_cache=True)[CACHE_NAME]
    monkeypatch.setattr(torch, "isin", None)
    model(torch.full((1, new_tokens), 8), **{CACHE_NAME: cached})


@torch.no_grad()
def test_a_compiled_model_searches_no_placeholders(model):
    text = torch.tensor([[1, 5, 6, 7]])
    torch.compile(model, fullgraph=True, backend="eager")(text)


def test_typed_placeholders_are_text(model, processor):
    typed = "Is <video> or <image> a tag, and <audio>?"
    chat = [{"role": "user", "content": typed}, {"role": "assistant", "content": typed}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert typed in processor.decode(inputs["input_ids"][0])
    assert model(**inputs).logits.isfinite().all()
