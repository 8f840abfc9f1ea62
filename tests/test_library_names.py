"""What versions of the library call by several names: the cache, and the outputs of encoders."""

import pytest
import torch
import transformers
from interpreters import run_python, told
from packaging import version
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast

from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.generation_video_llama import CACHE_NAME, named_cache


MODALITIES = ("image", "video", "audio")

choosing_layers = pytest.mark.skipif(
    version.parse(transformers.__version__) < version.parse("5.23"),
    reason="transformers 5.23 brings it",
)

ALL_WAYS_TO_CALL = """
import sys, warnings
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor, Trainer, TrainingArguments, pipeline
from transformers_videollama import VideoLlamaConversation

checkpoint, folder = sys.argv[1:]
model = AutoModelForMultimodalLM.from_pretrained(checkpoint).eval()
processor = AutoProcessor.from_pretrained(checkpoint)
picture = {"type": "image", "image": torch.zeros(3, 56, 56, dtype=torch.uint8)}
chat = [{"role": "user", "content": [picture, {"type": "text", "text": "What do you see?"}]}]
inputs = processor.apply_chat_template(
    chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
)
ids = inputs["input_ids"]
inputs = dict(inputs, labels=ids.masked_fill(ids >= model.config.output_vocab_size, -100))
answering = pipeline("image-text-to-text", model=model, processor=processor)
arguments = TrainingArguments(folder, max_steps=1, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True)
trainer = Trainer(model, arguments, lambda rows: rows[0], train_dataset=[inputs], eval_dataset=[inputs])

warnings.simplefilter("error", FutureWarning)
warnings.simplefilter("error", DeprecationWarning)
model(**inputs)
prompt = {name: value for name, value in inputs.items() if name != "labels"}
for options in ({}, {"num_beams": 2}, {"cache_implementation": "static", "disable_compile": True}):
    model.generate(**prompt, max_new_tokens=3, **options)
conversation = VideoLlamaConversation(model, processor)
for content in (chat[0]["content"], "How many objects are there?"):
    conversation.ask(content, max_new_tokens=3)
answering(text=chat, max_new_tokens=3)
trainer.train()
print(trainer.predict([inputs]).predictions.shape)
"""


@pytest.fixture
def inputs(model) -> dict:
    """One item of every modality, in one prompt."""
    config = model.config
    ids = [1, 5, *[config.image_token_id] * 5, 6, *[config.video_token_id] * 5, *[config.audio_token_id] * 3, 7]
    return {
        "input_ids": torch.tensor([ids]),
        "pixel_values": torch.randn(1, 3, 224, 224),
        "pixel_values_videos": torch.randn(1, 3, 3, 224, 224),
        "input_features": torch.randn(1, 2, 128, 204),
    }


@pytest.mark.parametrize("name", ("cache", "past_key_values"))
@pytest.mark.parametrize("base", (True, False), ids=("without head", "with head"))
def test_forward_takes_the_cache_by_either_name(model, base, name):
    called = model.model if base else model
    ids = torch.arange(10, 18)[None]
    cache = DynamicCache(config=model.config.get_text_config())
    first = called(ids[:, :5], **{name: cache})
    second = called(ids[:, 5:], **{name: cache})
    assert cache.get_seq_length() == 8
    assert getattr(first, CACHE_NAME) is getattr(second, CACHE_NAME) is cache
    torch.testing.assert_close(second[0], called(ids)[0][:, 5:], rtol=0, atol=1e-5)


def test_a_cache_by_both_names_is_an_error(model):
    caches = {"cache": DynamicCache(), "past_key_values": DynamicCache()}
    with pytest.raises(ValueError, match="two names of one argument, but both were given; give one"):
        model(torch.arange(10, 18)[None], **caches)


def test_a_cache_is_handed_on_by_the_name_that_the_library_knows():
    cache = DynamicCache()
    assert named_cache(cache) == named_cache(cache=cache) == {CACHE_NAME: cache}
    assert named_cache() == {CACHE_NAME: None}
    assert CACHE_NAME in BaseModelOutputWithPast(**{CACHE_NAME: cache})


def test_outputs_are_the_librarys_with_those_of_the_encoders(model, inputs):
    whole, base = model(**inputs), model.model(**inputs)
    assert isinstance(whole, CausalLMOutputWithPast)
    assert isinstance(base, BaseModelOutputWithPast)
    for output in (whole, base):
        assert list(output)[-3:] == [f"{modality}_outputs" for modality in MODALITIES]
        for modality in MODALITIES:
            media = output[f"{modality}_outputs"]
            assert isinstance(media, BaseModelOutputWithPooling)
            assert getattr(output, f"{modality}_hidden_states") is media.pooler_output
            assert media.hidden_states is media.attentions is None
    assert model(inputs["input_ids"][:, :2]).image_outputs is None
    assert model(inputs["input_ids"][:, :2]).image_hidden_states is None


def test_outputs_of_encoders_have_inner_states_on_request(model, inputs):
    output = model(**inputs, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.text_config.num_hidden_layers + 1
    parts = dict(zip(MODALITIES, ("vision_config", "vision_config", "audio_config"), strict=True))
    for modality, config in parts.items():
        layers = getattr(model.config, config).num_hidden_layers
        assert len(output[f"{modality}_outputs"].hidden_states) == layers + 1


@choosing_layers
def test_layers_of_the_language_model_can_be_chosen(model, inputs):
    every = model(**inputs, output_hidden_states=True).hidden_states
    chosen = model(**inputs, output_hidden_states=[1])
    assert [states is not None for states in chosen.hidden_states] == [i == 1 for i in range(len(every))]
    torch.testing.assert_close(chosen.hidden_states[1], every[1], rtol=0, atol=1e-5)
    assert chosen.video_outputs.hidden_states is None


@choosing_layers
def test_layers_of_an_encoder_can_be_chosen(model, inputs):
    frames = inputs["pixel_values_videos"]
    every = model.get_video_features(frames, output_hidden_states=True).hidden_states
    chosen = model.get_video_features(frames, output_hidden_states=[1]).hidden_states
    assert [states is not None for states in chosen] == [i == 1 for i in range(len(every))]
    torch.testing.assert_close(chosen[1], every[1], rtol=0, atol=1e-5)


def test_features_that_engines_have_split_by_item_are_joined(model, inputs):
    expected = model(**inputs)
    encoded = model.encode_media(inputs)
    split = {
        modality: BaseModelOutputWithPooling(pooler_output=list(output.pooler_output))
        for modality, output in encoded.items()
    }
    output = model(inputs["input_ids"], mm_encoder_outputs=split)
    torch.testing.assert_close(output.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.video_hidden_states, expected.video_hidden_states, rtol=0, atol=1e-5)


def test_tuples_have_tuples_in_the_place_of_the_outputs_of_encoders(model, inputs):
    output, parts = model(**inputs), model(**inputs, return_dict=False)
    assert [type(part) for part in parts[-3:]] == [tuple] * 3
    assert len(parts) == len(output)
    torch.testing.assert_close(parts[0], output.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(parts[-1], output.audio_outputs.to_tuple(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_no_deprecated_name_is_used(tmp_path):
    result = run_python(ALL_WAYS_TO_CALL, str(TINY_CHECKPOINT), str(tmp_path))
    assert result.returncode == 0, result.stderr[-4000:]
    # The pipelines of transformers before 5.20 warn of their own call of `generate`
    names = [line for line in told(result.stderr, "deprecated") if "Passing `generation_config`" not in line]
    assert not names, names
    assert result.stdout.splitlines()[-1].startswith("(1, ")
