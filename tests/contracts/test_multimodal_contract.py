"""What the library's VLMModelTest asks of every model that sees and hears, and what a model must say of itself."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers.modeling_outputs import BaseModelOutputWithPooling

from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration

from .tiny import TOKENS, batch, left_padded, media, prompt, single, tiny_config, tiny_model


INPUTS = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
modalities = pytest.mark.parametrize("modality", INPUTS)


@pytest.fixture(scope="module")
def model() -> VideoLlamaForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module", params=("whole model", "base model"))
def any_model(request, model):
    return model if request.param == "whole model" else model.model


def items(modality: str, number: int) -> dict[str, torch.Tensor]:
    return {INPUTS[modality]: media()[INPUTS[modality]][:1].repeat_interleave(number, dim=0)}


@modalities
@pytest.mark.parametrize(("prompts", "given"), ((1, 2), (2, 1), (3, 2)))
def test_placeholders_without_items_and_items_without_placeholders(any_model, modality, prompts, given):
    text = left_padded([prompt(modality)] * prompts)
    any_model(**text, **items(modality, prompts))
    tokens = TOKENS[modality][1]
    counts = f"tokens: {prompts * tokens}, features: {given * tokens}"
    with pytest.raises(ValueError, match=f"{modality} tokens do not match, {counts}"):
        any_model(**text, **items(modality, given))


@modalities
def test_several_items_of_a_prompt_are_those_of_several_prompts(model, modality):
    """The features of two items do not depend on whose they are."""
    text = left_padded([prompt(modality, modality)])
    states = model(**text, **items(modality, 2), output_hidden_states=True).hidden_states[0][0, 1:-4]
    token, length = TOKENS[modality]
    assert (text["input_ids"][0, 1:-4] == token).all()
    torch.testing.assert_close(states[:length], states[length:])


@modalities
@pytest.mark.parametrize("return_dict", (True, False, None))
def test_features_are_an_output_or_a_tuple(any_model, modality, return_dict):
    inputs = items(modality, 2)
    output = getattr(any_model, f"get_{modality}_features")(**inputs, return_dict=return_dict)
    length, width = TOKENS[modality][1], any_model.config.text_config.hidden_size
    if return_dict is False:
        assert isinstance(output, tuple)
        last, pooled = output[:2]
    else:
        assert isinstance(output, BaseModelOutputWithPooling)
        last, pooled = output.last_hidden_state, output.pooler_output
    assert pooled.shape == (2, length, width)
    assert last.shape[:2] == (2, length)


@modalities
def test_features_have_no_inner_states_unless_asked_for(any_model, modality):
    get_features = getattr(any_model, f"get_{modality}_features")
    assert {"hidden_states", "attentions"}.isdisjoint(get_features(**items(modality, 1)))
    assert "hidden_states" in get_features(**items(modality, 1), output_hidden_states=True)


def test_text_alone(any_model):
    """Neither the towers nor the resamplers are asked."""
    text = left_padded([prompt(text=7), prompt(text=3)])
    calls = []
    parts = [module for name, module in any_model.named_modules() if name.endswith(("tower", "resampler", "qformer"))]
    hooks = [part.register_forward_hook(lambda part, *_: calls.append(type(part))) for part in parts]
    output = any_model(**text)
    for hook in hooks:
        hook.remove()
    assert parts
    assert not calls
    assert output[0].shape[:2] == text["input_ids"].shape


def test_a_tuple_has_what_an_output_has(any_model):
    output, values = any_model(**single()), any_model(**single(), return_dict=False)
    assert isinstance(values, tuple)
    torch.testing.assert_close(values[0], output[0])
    assert len(values) == len(output.to_tuple())


def test_each_part_is_where_the_library_looks_for_it(any_model):
    base = any_model.base_model
    assert base.base_model is base
    towers = {"image": base.vision_tower, "video": base.vision_tower, "audio": base.audio_tower}
    for modality, tower in towers.items():
        assert any_model.get_encoder(modality=modality) is tower
    assert any_model.get_decoder() is base.language_model
    assert any_model.get_input_embeddings() is base.language_model.embed_tokens
    assert any_model.config.get_text_config() is any_model.config.get_text_config(decoder=True)
    assert any_model.config.get_text_config() is any_model.config.text_config


def test_each_part_has_the_attention_that_it_is_given():
    model = tiny_model()
    given = {
        "text_config": "eager",
        "vision_config": "sdpa",
        "qformer_config": "eager",
        "video_resampler_config": "sdpa",
        "audio_config": "eager",
        "audio_resampler_config": "sdpa",
    }
    expected = tiny_model("eager")(**batch()).logits
    model.set_attn_implementation(given)
    base = model.model
    parts = (
        base.language_model,
        base.vision_tower,
        base.qformer,
        base.video_resampler.qformer,
        base.audio_tower,
        base.audio_resampler.qformer,
    )
    assert [part.config._attn_implementation for part in parts] == list(given.values())
    torch.testing.assert_close(model(**batch()).logits, expected, rtol=1e-5, atol=1e-5)


def test_modules_that_no_device_map_may_split_exist(model):
    names = {type(module).__name__ for module in model.modules()}
    assert set(type(model)._no_split_modules) <= names


@pytest.mark.parametrize("size", (99 + 13, 83))
def test_resized_embeddings_keep_what_is_said(size, tmp_path):
    """Rows are added behind the placeholders, or those behind them are cut off; neither can be predicted."""
    model = tiny_model()
    expected = model(**batch()).logits
    model.resize_token_embeddings(size)
    assert model.config.text_config.vocab_size == model.get_input_embeddings().num_embeddings == size
    assert model.lm_head.out_features == size
    torch.testing.assert_close(model(**batch()).logits, expected)
    model.save_pretrained(tmp_path)
    again = VideoLlamaForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch()).logits, expected)


def test_embeddings_are_not_cut_below_the_placeholders(tmp_path):
    model = tiny_model()
    model.resize_token_embeddings(TOKENS["audio"][0])
    with pytest.raises(StrictDataclassClassValidationError, match="resize its embeddings first"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("fields", ({"output_vocab_size": None}, {"tie_word_embeddings": True}))
def test_saved_and_loaded_unchanged(fields, tmp_path):
    torch.manual_seed(0)
    config = VideoLlamaConfig.from_dict({**tiny_config().to_dict(), **fields})
    model = VideoLlamaForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    again, report = VideoLlamaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(again(**batch()).logits, model(**batch()).logits)
