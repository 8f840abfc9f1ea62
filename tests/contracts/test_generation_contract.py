"""What the library's GenerationTesterMixin asks of every model that generates, with media in the prompts."""

import inspect

import pytest
import torch
import transformers
from packaging import version
from transformers.cache_utils import DynamicCache, StaticCache
from transformers.generation import (
    GenerateBeamDecoderOnlyOutput,
    GenerateDecoderOnlyOutput,
    GenerationMixin,
)

from transformers_videollama import VideoLlamaForConditionalGeneration

from .tiny import batch, cache_of, left_padded, media, prompt, single, tiny_model


NEW = 4  # tokens of an answer
GREEDY = {"do_sample": False, "max_new_tokens": NEW}
RECORDED = dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True)
SEARCHES = {
    "greedy": {},
    "samples": {"do_sample": True, "num_return_sequences": 2, "top_k": 10, "top_p": 0.7, "temperature": 0.7},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0},
    "sampled beams": {"do_sample": True, "num_beams": 2, "num_return_sequences": 2},
}
searches = pytest.mark.parametrize("search", SEARCHES)


@pytest.fixture(scope="module")
def model() -> VideoLlamaForConditionalGeneration:
    return tiny_model()


@pytest.fixture(scope="module")
def eager_model() -> VideoLlamaForConditionalGeneration:
    """The one that can return its attention."""
    return tiny_model(attention="eager")


@pytest.fixture(scope="module")
def greedy(model) -> torch.Tensor:
    return generate(model, batch())


def generate(model, inputs: dict, **options):
    torch.manual_seed(0)
    return model.generate(**inputs, **{**GREEDY, **options})


def check_shapes(output, config, *, rows: int, length: int, use_cache: bool) -> None:
    """Of what is recorded at each step of `rows` sequences that begin with `length` tokens."""
    text, steps = config.text_config, output.sequences.shape[1] - length
    assert {scores.shape for scores in (*output.scores, *output.logits)} == {(rows, config.output_vocab_size)}
    recorded = (output.scores, output.logits, output.attentions, output.hidden_states)
    assert [len(states) for states in recorded] == [steps] * 4
    for step in range(steps):
        keys = length + step
        queries = 1 if use_cache and step else keys
        attentions = {weights.shape for weights in output.attentions[step]}
        assert attentions == {(rows, text.num_attention_heads, queries, keys)}
        assert len(output.attentions[step]) == text.num_hidden_layers
        assert {states.shape for states in output.hidden_states[step]} == {(rows, queries, text.hidden_size)}
        assert len(output.hidden_states[step]) == text.num_hidden_layers + 1


def check_cache(cache, config, *, rows: int, length: int) -> None:
    text = config.text_config
    shape = (rows, text.num_key_value_heads, length, text.hidden_size // text.num_attention_heads)
    assert len(cache.layers) == text.num_hidden_layers
    assert {states.shape for layer in cache.layers for states in (layer.keys, layer.values)} == {shape}


@searches
@pytest.mark.parametrize("use_cache", (True, False), ids=("cache", "no cache"))
def test_all_that_can_be_recorded_has_its_shape(eager_model, search, use_cache):
    inputs, options = batch(), {**SEARCHES[search], "use_cache": use_cache}
    output = generate(eager_model, inputs, return_dict_in_generate=True, **RECORDED, **options)
    prompts, length = inputs["input_ids"].shape
    beams, answers = options.get("num_beams", 1), options.get("num_return_sequences", 1)
    rows = prompts * (beams if beams > 1 else answers)
    assert type(output) is (GenerateBeamDecoderOnlyOutput if beams > 1 else GenerateDecoderOnlyOutput)
    assert output.sequences.shape == (prompts * answers, length + NEW)
    assert output.sequences.tolist() == generate(eager_model, inputs, **options).tolist()
    check_shapes(output, eager_model.config, rows=rows, length=length, use_cache=use_cache)
    if use_cache:
        ((_, cache),) = cache_of(output).items()
        check_cache(cache, eager_model.config, rows=rows, length=length + NEW - 1)
    if beams > 1:
        scores = output.sequences_scores.unflatten(0, (prompts, answers))
        assert (scores < 0).all()
        assert (scores[:, :-1] >= scores[:, 1:]).all()


@pytest.mark.parametrize("search", ("greedy", "beams"))
def test_no_cache_makes_no_difference(model, search):
    options = SEARCHES[search]
    assert (
        generate(model, batch(), use_cache=False, **options).tolist() == generate(model, batch(), **options).tolist()
    )


def test_samples_of_the_likeliest_token_are_the_greedy_answer(model, greedy):
    samples = generate(model, batch(), do_sample=True, top_k=1, num_return_sequences=2)
    assert samples.tolist() == greedy.repeat_interleave(2, dim=0).tolist()


@searches
def test_logits_processors_are_heard(model, greedy, search):
    """The first token of every greedy answer is forbidden."""
    forbidden = greedy[:, -NEW].unique().tolist()
    options = {"repetition_penalty": 1.2, "remove_invalid_values": True, **SEARCHES[search]}
    answers = generate(model, batch(), bad_words_ids=[[token] for token in forbidden], **options)
    assert not set(forbidden) & set(answers[:, -NEW:].flatten().tolist())


def test_nothing_but_predictable_tokens_is_said(model):
    """Placeholders and padding rows of the vocabulary have no score, however flat the distribution is."""
    said = generate(model, batch(), do_sample=True, temperature=100.0, top_k=0, max_new_tokens=40)[:, -40:]
    assert said.max() < model.config.output_vocab_size < model.config.text_config.vocab_size


def test_without_any_input_an_answer_begins_with_the_first_token(model):
    answer = model.generate(**GREEDY)
    assert answer.shape == (1, 1 + NEW)
    assert answer[0, 0] == model.config.text_config.bos_token_id


@pytest.mark.parametrize("kept", ({}, {"logits_to_keep": 0}), ids=("last logits", "all logits"))
@pytest.mark.parametrize("draft", ("same", "random", "lookup"))
def test_assisted_decoding_says_what_greedy_decoding_says(eager_model, draft, kept):
    """All drafts are right, or next to none, or come from the prompt."""
    inputs, length = single(), single()["input_ids"].shape[1]
    options = {"lookup": {"prompt_lookup_num_tokens": 2}, "same": {"assistant_model": eager_model}}
    chosen = options.get(draft) or {"assistant_model": tiny_model(seed=1)}
    output = generate(eager_model, inputs, return_dict_in_generate=True, **RECORDED, **chosen, **kept)
    assert output.sequences.tolist() == generate(eager_model, inputs).tolist()
    assert len(output.scores) == len(output.logits) == output.sequences.shape[1] - length
    ((_, cache),) = cache_of(output).items()
    check_cache(cache, eager_model.config, rows=1, length=length + NEW - 1)


def test_assisted_sampling(model):
    inputs = single()
    answer = generate(model, inputs, do_sample=True, assistant_model=tiny_model(seed=1))
    assert answer.shape == (1, inputs["input_ids"].shape[1] + NEW)


def test_all_logits_or_the_last_make_no_difference(model, greedy):
    assert generate(model, batch(), logits_to_keep=0).tolist() == greedy.tolist()


def test_left_padding_makes_no_difference(model):
    plain = single()
    pad = torch.zeros(1, 32, dtype=torch.long)
    padded = {**plain, "input_ids": torch.cat((pad, plain["input_ids"]), 1)}
    padded["attention_mask"] = torch.cat((pad, plain["attention_mask"]), 1)
    positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    got, expected = model(**padded, position_ids=positions).logits[:, 32:], model(**plain).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert generate(model, padded)[:, 32:].tolist() == generate(model, plain).tolist()


def test_positions_may_be_given(model, greedy):
    positions = (batch()["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    assert generate(model, batch(), position_ids=positions).tolist() == greedy.tolist()


def test_embeddings_by_themselves_or_with_ids(model):
    for beams in (1, 2):
        inputs = batch()
        ids = inputs.pop("input_ids")
        expected = generate(model, {"input_ids": ids, **inputs}, num_beams=beams)
        embeddings = model.get_input_embeddings()(ids)
        with_ids = generate(model, inputs, input_ids=ids, inputs_embeds=embeddings, num_beams=beams)
        assert with_ids.tolist() == expected.tolist()
        alone = generate(model, inputs, inputs_embeds=embeddings, num_beams=beams)
        assert alone.tolist() == expected[:, -NEW:].tolist()


def test_embeddings_of_no_token(model):
    recorded = {"return_dict_in_generate": True, "output_logits": True}
    draws = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    first, second = (generate(model, {"inputs_embeds": draw}, **recorded) for draw in draws)
    assert first.sequences.shape == (2, NEW)
    assert not torch.allclose(first.logits[0], second.logits[0])


@pytest.mark.parametrize("given", ("ids", "embeddings"))
def test_static_cache(model, greedy, given):
    """The answers of a growing cache, and room for the prompt and the answer, which embeddings count into."""
    inputs = batch()
    prompts, length = inputs["input_ids"].shape
    if given == "embeddings":
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    output = generate(model, inputs, cache_implementation="static", return_dict_in_generate=True)
    assert output.sequences[:, -NEW:].tolist() == greedy[:, -NEW:].tolist()
    ((_, cache),) = cache_of(output).items()
    assert isinstance(cache, StaticCache)
    assert len(cache.layers) == model.config.text_config.num_hidden_layers
    (shape,) = {layer.keys.shape for layer in cache.layers}
    assert shape[:2] == (prompts, model.config.text_config.num_key_value_heads)
    assert shape[2] >= length + NEW - 1


@pytest.mark.parametrize("given", ("ids", "embeddings"))
def test_an_answer_goes_on_from_the_cache(model, given):
    """Three tokens and one more are four tokens; media are not given, nor computed, again."""
    inputs, text = single(), ("input_ids", "attention_mask")
    whole = generate(model, inputs, return_dict_in_generate=True)
    begun = generate(model, inputs, max_new_tokens=NEW - 1, return_dict_in_generate=True)
    ids = begun.sequences
    rest = {"attention_mask": torch.ones_like(ids), **cache_of(begun)}
    if given == "ids":
        rest["input_ids"] = ids
    else:
        rest["inputs_embeds"] = model.get_input_embeddings()(ids)
    assert not set(rest) & (set(inputs) - set(text))
    ended = generate(model, rest, max_new_tokens=1, return_dict_in_generate=True)
    assert ended.sequences[:, -1].tolist() == whole.sequences[:, -1].tolist()
    ((_, got),), ((_, expected),) = cache_of(ended).items(), cache_of(whole).items()
    assert isinstance(got, DynamicCache)
    for one, other in zip(got.layers, expected.layers, strict=True):
        torch.testing.assert_close((one.keys, one.values), (other.keys, other.values))


@pytest.mark.skipif(
    version.parse(transformers.__version__) < version.parse("5.23"),
    reason="older versions of the library leave media out of prompts in chunks, of every model",
)
@pytest.mark.parametrize("size", (1, 6, 100))
def test_a_prompt_may_be_read_in_chunks(model, greedy, size):
    assert generate(model, batch(), prefill_chunk_size=size).tolist() == greedy.tolist()


def test_compiled_without_a_break_it_returns_the_same(eager_model, monkeypatch):
    """Twice, because the cache of a first answer must not be in the way of a second."""
    options = {**RECORDED, "return_dict_in_generate": True, "cache_implementation": "static", "max_new_tokens": 2}
    expected = generate(eager_model, batch(), **options)
    compiled = torch.compile(eager_model.forward, backend="eager", fullgraph=True)
    monkeypatch.setattr(eager_model, "forward", compiled)
    for _ in range(2):
        output = generate(eager_model, batch(), **options)
        assert output.sequences.tolist() == expected.sequences.tolist()
        torch.testing.assert_close(output.logits, expected.logits)
        torch.testing.assert_close(output.hidden_states, expected.hidden_states)
        torch.testing.assert_close(output.attentions, expected.attentions)


@pytest.mark.parametrize("attention", ("eager", "sdpa"))
def test_packed_prompts_do_not_see_each_other(attention):
    """Two prompts in one row without padding, told apart by their positions."""
    model = tiny_model(attention)
    items = media()
    rows = [prompt("image", "video", "audio"), prompt("audio", "video", text=6)]
    ids = torch.tensor([[token for row in rows for token in row]])
    positions = torch.tensor([[position for row in rows for position in range(len(row))]])
    videos = {name: items[name] for name in ("pixel_values_videos", "video_frame_mask")}
    sounds = {name: items[name][:2] for name in ("input_features", "audio_clip_mask")}
    packed = {"input_ids": ids, "position_ids": positions, "pixel_values": items["pixel_values"], **videos, **sounds}
    logits = model(**packed, use_cache=False).logits
    padded = {**left_padded(rows), "pixel_values": items["pixel_values"], **videos, **sounds}
    positions = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    expected = model(**padded, position_ids=positions, use_cache=False).logits[padded["attention_mask"].bool()]
    torch.testing.assert_close(logits[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ("eager", "sdpa"))
def test_a_mask_of_four_dimensions_is_taken_as_it_is(attention):
    model, inputs = tiny_model(attention), single()
    length = inputs.pop("attention_mask").shape[1]
    mask = torch.ones(length, length).tril()[None, None]
    mask = (1 - mask) * torch.finfo(torch.float32).min
    torch.testing.assert_close(model(**inputs, attention_mask=mask).logits, model(**inputs).logits)


def test_media_are_encoded_once_for_an_answer(model):
    calls = []
    towers = {"vision": model.model.vision_tower, "audio": model.model.audio_tower}
    hooks = [tower.register_forward_hook(lambda *_, name=name: calls.append(name)) for name, tower in towers.items()]
    generate(model, single(), num_beams=2)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == ["audio", "vision", "vision"]  # the image and the video


def test_generation_comes_from_the_mixin_itself():
    bases = [base for base in VideoLlamaForConditionalGeneration.__bases__ if issubclass(base, GenerationMixin)]
    assert bases, "the library asks for GenerationMixin among the bases, not behind those of the network"
    taken = inspect.signature(VideoLlamaForConditionalGeneration.prepare_inputs_for_generation).parameters
    assert "inputs_embeds" in taken
