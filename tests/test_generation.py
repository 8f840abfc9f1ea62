"""What `generate` promises of any model of the library, with images, videos and sound in the prompts."""

from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor, TextStreamer
from transformers.cache_utils import DynamicCache, StaticCache
from transformers.generation import LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList

from examples.tiny import world
from examples.tiny.render import draw_things
from examples.tiny.sounds import SAMPLING_RATE, synthesise
from transformers_videollama import TINY_CHECKPOINT


NEW = 12  # tokens of an answer, at most


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(TINY_CHECKPOINT)


def load(dtype: torch.dtype = torch.float32, **options):
    model = AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT, dtype=dtype, **options).eval()
    model.generation_config.update(do_sample=False, max_new_tokens=NEW)
    return model


def conversations() -> list[list[dict]]:
    """Questions about a video with sound, an image, two videos of 8 and 3 frames, and nothing."""
    rng = np.random.default_rng(3)
    things = [world.random_things(rng, number, held_out=None) for number in (1, 2, 1)]
    videos = [{"type": "video", "video": draw_things(shown, rng)} for shown in things]
    videos[2]["video"] = videos[2]["video"][:3]
    sound = {"type": "audio", "audio": synthesise("bell", 3.0, rng), "sampling_rate": SAMPLING_RATE}
    image = {"type": "image", "image": videos[0]["video"][0]}
    questions = (
        ([sound, videos[0]], "What do you see and hear?"),
        ([image], "What colour is the object?"),
        (videos[1:], "How many objects are there?"),
        ([], "What do you hear?"),
    )
    return [[{"role": "user", "content": [*media, {"type": "text", "text": text}]}] for media, text in questions]


def prepare(processor, chats: list) -> dict[str, torch.Tensor]:
    options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
    return dict(processor.apply_chat_template(chats, tokenize=True, processor_kwargs={"padding": True}, **options))


@pytest.fixture(scope="module")
def batch(processor) -> dict[str, torch.Tensor]:
    return prepare(processor, conversations())


@pytest.fixture(scope="module")
def singles(processor) -> list[dict[str, torch.Tensor]]:
    return [prepare(processor, [chat]) for chat in conversations()]


@pytest.fixture(scope="module")
def answers(model, singles) -> list[list[int]]:
    """Of each conversation by itself, greedily: new tokens without padding."""
    return [new_tokens(model, inputs)[0] for inputs in singles]


def new_tokens(model, inputs: dict, **options) -> list[list[int]]:
    """Generated ids of each row up to its end token; behind that, beam search pads with more of them."""
    rows = model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
    end = model.generation_config.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def test_a_padded_batch_answers_as_single_prompts(model, batch, answers):
    assert len({len(answer) for answer in answers}) > 1  # so that some rows end before others
    assert new_tokens(model, batch) == answers


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the library offloads caches from a GPU alone")


@pytest.mark.parametrize(
    "cache",
    ("dynamic", "static", pytest.param("offloaded", marks=ON_A_GPU), pytest.param("offloaded_static", marks=ON_A_GPU)),
)
def test_caches_make_no_difference(model, batch, answers, cache):
    assert new_tokens(model, batch, cache_implementation=cache) == answers


def test_no_cache_makes_no_difference(model, batch, answers):
    assert new_tokens(model, batch, use_cache=False) == answers


@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("options", ({"prompt_lookup_num_tokens": 3}, "assistant"))
def test_assisted_decoding_says_what_greedy_decoding_says(model, singles, answers, row, options):
    if options == "assistant":  # the model itself, of which all drafts are right
        options = {"assistant_model": model}
    assert new_tokens(model, singles[row], **options) == [answers[row]]


def test_one_beam_is_greedy_and_more_are_not_less_likely(model, batch):
    scored = {"return_dict_in_generate": True, "output_scores": True, "length_penalty": 0.0}
    greedy = new_tokens(model, batch)
    assert new_tokens(model, batch, num_beams=1) == greedy
    best = model.generate(**batch, num_beams=4, **scored)
    two = model.generate(**batch, num_beams=2, **scored)
    assert best.sequences_scores.shape == (4,)
    assert (best.sequences_scores >= two.sequences_scores - 1e-4).all()


@pytest.mark.parametrize(
    "options", ({"num_beams": 3}, {"do_sample": True, "temperature": 0.2}), ids=("beams", "samples")
)
def test_every_one_of_several_answers_sees_the_media_of_its_prompt(model, batch, singles, options):
    def generate(inputs):
        torch.manual_seed(0)
        return new_tokens(model, inputs, num_return_sequences=3, **options)

    together = generate(batch)
    assert len(together) == 12
    if "num_beams" in options:  # samples depend on the order of draws
        assert together == [answer for inputs in singles for answer in generate(inputs)]
    else:
        assert together == generate(batch)
        greedy = new_tokens(model, batch)
        same = [answer == greedy[i // 3] for i, answer in enumerate(together)]
        assert np.mean(same) > 0.5  # at a temperature as low as this


def test_embeddings_answer_as_ids(model, singles, answers):
    for inputs, answer in zip(singles, answers, strict=True):
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        said = model.generate(inputs_embeds=embeddings, **rest)  # new tokens alone
        assert said[0].tolist() == answer


@pytest.mark.parametrize("new_cache", (DynamicCache, partial(StaticCache, max_cache_len=400)))
def test_a_second_question_goes_on_from_the_cache(model, processor, new_cache):
    """Neither the clip nor the first answer is computed again, and the second answer is the same."""
    chat = conversations()[0]
    first = prepare(processor, [chat])
    cache = new_cache(config=model.config.get_text_config())
    said = model.generate(**first, past_key_values=cache)
    answer = processor.decode(said[0, first["input_ids"].shape[1] :], skip_special_tokens=True)
    chat += [
        {"role": "assistant", "content": answer.strip()},
        {"role": "user", "content": "How many objects are there?"},
    ]
    second = prepare(processor, [chat])
    known = cache.get_seq_length()
    assert second["input_ids"][0, :known].tolist() == said[0, :known].tolist()
    text = {name: second[name] for name in ("input_ids", "attention_mask")}
    assert new_tokens(model, text, past_key_values=cache) == new_tokens(model, second)


def test_everything_that_is_returned_has_its_shape(processor, singles):
    model = load(attn_implementation="eager")
    inputs = singles[0]
    names = ("scores", "logits", "attentions", "hidden_states")
    wanted = dict.fromkeys((f"output_{name}" for name in names), True)
    output = model.generate(**inputs, return_dict_in_generate=True, **wanted)
    steps, length = output.sequences.shape[1] - inputs["input_ids"].shape[1], inputs["input_ids"].shape[1]
    text = model.config.text_config
    assert {len(output[name]) for name in names} == {steps}
    assert {scores.shape for scores in (*output.scores, *output.logits)} == {(1, model.config.output_vocab_size)}
    assert len(output.attentions[0]) == text.num_hidden_layers
    assert output.attentions[0][0].shape == (1, text.num_attention_heads, length, length)
    assert output.attentions[1][0].shape == (1, text.num_attention_heads, 1, length + 1)
    assert len(output.hidden_states[0]) == text.num_hidden_layers + 1
    assert output.hidden_states[0][-1].shape == (1, length, text.hidden_size)
    transitions = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    assert transitions.shape == (1, steps)
    assert (transitions <= 0).all()


def test_streamed_text_is_the_text(model, processor, singles, answers, capsys):
    streamer = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(**singles[0], streamer=streamer)
    assert capsys.readouterr().out.strip() == processor.decode(answers[0], skip_special_tokens=True).strip()


def test_stop_strings_end_an_answer(model, processor, singles, answers):
    words = processor.decode(answers[0], skip_special_tokens=True).split()
    (stopped,) = new_tokens(model, singles[0], stop_strings=[words[2]], tokenizer=processor.tokenizer)
    assert processor.decode(stopped, skip_special_tokens=True).split() == words[:3]


@pytest.mark.parametrize("modality", ("image", "video", "audio"))
def test_features_computed_before_answer_as_raw_media(model, singles, answers, modality, monkeypatch):
    row = {"image": 1, "video": 0, "audio": 0}[modality]
    inputs = dict(singles[row])
    names = {
        "image": ("pixel_values",),
        "video": ("pixel_values_videos", "video_frame_mask"),
        "audio": ("input_features", "audio_clip_mask"),
    }
    computed = {modality: getattr(model, f"get_{modality}_features")(**{n: inputs.pop(n) for n in names[modality]})}
    # Nothing is encoded a second time, neither by generate nor by forward
    monkeypatch.setattr(model, f"get_{modality}_features", partial(pytest.fail, "encoded again"))
    monkeypatch.setattr(model.model, f"get_{modality}_features", partial(pytest.fail, "encoded again"))
    assert new_tokens(model, inputs, mm_encoder_outputs=computed) == [answers[row]]
    logits = model(**inputs, mm_encoder_outputs=computed, logits_to_keep=1).logits
    assert logits[0, -1].argmax().item() == answers[row][0]


SLOW_FLEX = pytest.param("flex_attention", marks=pytest.mark.slow)  # it is compiled


@pytest.fixture(scope="module", params=("eager", "sdpa", SLOW_FLEX))
def attention(request) -> str:
    return request.param


@pytest.mark.parametrize("cache", ("dynamic", "static"))
@pytest.mark.parametrize("kind", ("single", "batch"))
def test_every_attention_answers_alike_in_float32(attention, cache, kind, batch, singles, answers):
    model = load(attn_implementation=attention)
    inputs, expected = (singles[0], answers[:1]) if kind == "single" else (batch, answers)
    assert new_tokens(model, inputs, cache_implementation=cache) == expected


@pytest.mark.parametrize("cache", ("dynamic", "static"))
@pytest.mark.parametrize("kind", ("single", "batch"))
def test_every_attention_is_close_in_bfloat16(attention, cache, kind, model, batch, singles):
    """Logits of the first new token of every row, within 2 % of their norm in float32."""
    inputs = singles[0] if kind == "single" else batch
    scored = {"return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 1}
    expected = model.generate(**inputs, **scored).logits[0]
    rough = load(attn_implementation=attention, dtype=torch.bfloat16)
    got = rough.generate(**inputs, cache_implementation=cache, **scored).logits[0].float()
    assert ((got - expected).norm(dim=-1) / expected.norm(dim=-1) < 2e-2).all()


# --------------------------------------------------------------------------------------------------- invalid logits


WAYS = ({}, {"do_sample": True}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 3}, {"num_return_sequences": 2})


@pytest.fixture
def spoilt():
    """A model and a way to make its logits invalid from a step on."""
    model = load()
    model.generation_config.eos_token_id = None
    steps = []

    def spoil(value: float, row: int = 0, step: int = 0) -> list:
        def change(module, args, logits):
            steps.append(logits.shape)
            if len(steps) > step:
                logits[row, :, 7] = value
            return logits

        model.lm_head.register_forward_hook(change)
        return steps

    return model, spoil


@pytest.mark.parametrize("value", (torch.nan, torch.inf))
@pytest.mark.parametrize("options", WAYS)
def test_invalid_logits_are_no_answer(spoilt, singles, options, value):
    model, spoil = spoilt
    options = {"do_sample": options.get("num_return_sequences", 1) > 1, **options}
    steps = spoil(value)
    with pytest.raises(ValueError, match=r"NaN or infinite logits .* in torch.float32, in rows \[.*\] of .*weights"):
        model.generate(**singles[0], **options)
    assert len(steps) <= 2  # it ends there


@pytest.mark.parametrize("step", (0, 4))
def test_the_rows_are_named_and_generation_ends(spoilt, batch, step):
    model, spoil = spoilt
    steps = spoil(torch.nan, row=2, step=step)
    with pytest.raises(ValueError, match=r"in rows \[2\] of 4, expected finite ones"):
        model.generate(**batch)
    assert len(steps) == step + 1


def test_excluded_tokens_are_no_invalid_logits(spoilt, singles):
    model, spoil = spoilt
    spoil(-torch.inf)
    assert 7 not in new_tokens(model, singles[0])[0]


def test_invalid_logits_can_be_put_up_with_as_the_library_says(spoilt, singles):
    model, spoil = spoilt
    spoil(torch.nan)
    assert model.generate(**singles[0], remove_invalid_values=True).shape[1] == singles[0]["input_ids"].shape[1] + NEW


def test_processors_and_criteria_of_the_caller_apply(model, singles):
    inputs = singles[0]
    length = inputs["input_ids"].shape[1]
    by_position = model.generate(inputs["input_ids"], None, LogitsProcessorList([force_7]), **without_ids(inputs))
    assert by_position[0, length:].tolist() == [7] * NEW
    stop = StoppingCriteriaList([MaxLengthCriteria(length + 2)])
    assert model.generate(**inputs, stopping_criteria=stop).shape[1] == length + 2


def force_7(input_ids, scores):
    """With +inf, as some do."""
    return scores.index_fill(1, torch.tensor([7]), torch.inf)


def without_ids(inputs: dict) -> dict:
    return {name: value for name, value in inputs.items() if name != "input_ids"}
