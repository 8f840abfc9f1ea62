"""What the model promises besides the original's numbers: masks, batches, dtypes, attention, compilation, caches."""

import copy

import pytest
import torch
from accelerate import infer_auto_device_map
from transformers import AutoModelForMultimodalLM, GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from benchmarks.models import checkpoint_activations
from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration


GREEDY = {"do_sample": False, "top_p": None, "temperature": None, "max_new_tokens": 6}


def prompt(model, *kinds: str, tail: int = 5) -> list[int]:
    """BOS, the placeholders of each item, and some text."""
    config = model.config
    tokens = {
        "image": [config.image_token_id] * config.video_resampler_config.num_query_tokens,
        "video": [config.video_token_id] * config.video_resampler_config.num_query_tokens,
        "audio": [config.audio_token_id] * config.audio_resampler_config.num_query_tokens,
    }
    return [1] + [id for kind in kinds for id in [*tokens[kind], 30]] + list(range(40, 40 + tail))


def left_padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
    }


def everything(model) -> dict[str, torch.Tensor]:
    """One prompt with an image, a video and a sound."""
    return {
        **left_padded([prompt(model, "image", "video", "audio")]),
        "pixel_values": torch.randn(1, 3, 224, 224),
        "pixel_values_videos": torch.randn(1, 3, 3, 224, 224),
        "input_features": torch.randn(1, 4, 128, 204),
    }


def load(checkpoint, **kwargs):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint, **kwargs).eval()


@pytest.fixture
def own_model(model):
    """A copy that a test may change."""
    return copy.deepcopy(model)


@pytest.mark.parametrize("side", ("right", "left"))
def test_padded_videos_have_the_features_of_single_calls(model, side):
    videos = [torch.randn(length, 3, 224, 224) for length in (3, 8, 16)]
    mask = torch.arange(16) < torch.tensor([[len(video)] for video in videos])
    padded = torch.nn.utils.rnn.pad_sequence(videos, batch_first=True, padding_side=side)
    features = model.get_video_features(padded, mask if side == "right" else mask.flip(1)).pooler_output
    for video, feature in zip(videos, features, strict=True):
        torch.testing.assert_close(feature, model.get_video_features(video[None]).pooler_output[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", ("input_features", "audio_pixel_values"))
def test_padded_sounds_have_the_features_of_single_calls(model, given):
    shape = (128, 204) if given == "input_features" else (3, 224, 224)
    sounds = [torch.randn(length, *shape) for length in (2, 5)]
    mask = torch.arange(5) < torch.tensor([[2], [5]])
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    features = model.get_audio_features(**{given: padded}, audio_clip_mask=mask).pooler_output
    for sound, feature in zip(sounds, features, strict=True):
        single = model.get_audio_features(**{given: sound[None]}).pooler_output[0]
        torch.testing.assert_close(feature, single, rtol=0, atol=1e-5)


def test_padding_is_not_looked_at(model):
    frames, mask = torch.randn(1, 5, 3, 224, 224), torch.tensor([[True, True, True, False, False]])
    changed = frames.clone()
    changed[:, 3:] = torch.randn(1, 2, 3, 224, 224)
    features = (model.get_video_features(pixels, mask).pooler_output for pixels in (frames, changed))
    torch.testing.assert_close(*features, rtol=0, atol=0)


def test_order_of_frames_matters(model):
    frames = torch.randn(1, 4, 3, 224, 224)
    forwards, backwards = (model.get_video_features(pixels).pooler_output for pixels in (frames, frames.flip(1)))
    assert (forwards - backwards).abs().max() > 1e-3


def test_batch_equals_single_prompts(model):
    """Greedy answers of a left-padded batch that mixes kinds and lengths are those of the prompts alone."""
    rows = [("video", "audio"), ("image",), (), ("audio", "video", "video")]
    lengths = iter((3, 8, 16))
    videos = [[torch.randn(next(lengths), 3, 224, 224) for kind in row if kind == "video"] for row in rows]
    sounds = [[torch.randn(3, 128, 204) for kind in row if kind == "audio"] for row in rows]
    image = torch.randn(1, 3, 224, 224)
    prompts = [prompt(model, *row, tail=3 + i) for i, row in enumerate(rows)]

    def media(indices):
        inputs = {"pixel_values": image} if 1 in indices else {}
        if frames := [video for i in indices for video in videos[i]]:
            inputs["pixel_values_videos"] = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
            lengths = torch.tensor([[len(video)] for video in frames])
            inputs["video_frame_mask"] = torch.arange(int(lengths.max())) < lengths
        if clips := [sound for i in indices for sound in sounds[i]]:
            inputs["input_features"] = torch.stack(clips)
        return inputs

    batch = model.generate(**left_padded(prompts), **media(range(len(rows))), **GREEDY)
    for i, ids in enumerate(prompts):
        single = model.generate(**left_padded([ids]), **media([i]), **GREEDY)
        assert batch[i, -GREEDY["max_new_tokens"] :].tolist() == single[0, len(ids) :].tolist(), rows[i]


@pytest.mark.parametrize("options", ({"num_beams": 3}, {"num_return_sequences": 3, "do_sample": True, "top_k": 1}))
def test_every_copy_of_a_prompt_sees_its_own_media(model, options):
    """Beams and several answers repeat the prompts; one prompt has two sounds, the other has one."""
    prompts = [prompt(model, "audio", "video", "audio"), prompt(model, "audio")]
    sounds, video = torch.randn(3, 2, 128, 204), torch.randn(1, 2, 3, 224, 224)
    options = {**GREEDY, **options}
    together = model.generate(**left_padded(prompts), input_features=sounds, pixel_values_videos=video, **options)[
        :, -GREEDY["max_new_tokens"] :
    ]
    first = model.generate(**left_padded(prompts[:1]), input_features=sounds[:2], pixel_values_videos=video, **options)
    second = model.generate(**left_padded(prompts[1:]), input_features=sounds[2:], **options)
    apart = [row[-GREEDY["max_new_tokens"] :].tolist() for row in (*first, *second)]
    assert together.tolist() == apart


def test_features_computed_before_give_the_same(model):
    inputs = everything(model)
    logits, answer = model(**inputs).logits, model.generate(**inputs, **GREEDY)
    computed = {
        "image": model.get_image_features(inputs.pop("pixel_values")),
        "video": model.get_video_features(inputs.pop("pixel_values_videos")),
        "audio": model.get_audio_features(inputs.pop("input_features")),
    }
    given = dict(computed)
    torch.testing.assert_close(model(**inputs, mm_encoder_outputs=given).logits, logits)
    assert model.generate(**inputs, mm_encoder_outputs=given, **GREEDY).tolist() == answer.tolist()
    assert given == computed  # the caller's features are not changed


@pytest.mark.parametrize("kind", ("image", "video", "audio"))
def test_raw_input_and_features_of_one_kind_are_refused(model, kind):
    names = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
    inputs = {name: value for name, value in everything(model).items() if name in ("input_ids", names[kind])}
    computed = {kind: BaseModelOutputWithPooling(pooler_output=torch.zeros(1, 5, 64))}
    with pytest.raises(ValueError, match=f"{names[kind]} and mm_encoder_outputs"):
        model(**inputs, mm_encoder_outputs=computed)


def test_embeddings_instead_of_ids(model):
    inputs = everything(model)
    expected = model(**inputs).logits
    embeddings = model.get_input_embeddings()(inputs.pop("input_ids"))
    torch.testing.assert_close(model(**inputs, inputs_embeds=embeddings).logits, expected)


def test_added_rows_have_no_probability(model):
    logits = model(torch.tensor([[1, 5, 6]])).logits
    assert logits.shape[-1] == model.config.output_vocab_size < model.config.text_config.vocab_size


def test_transition_scores(model):
    inputs = {"input_ids": torch.tensor([[1, 5, 6]]), "return_dict_in_generate": True, "output_scores": True}
    for options in ({}, {"num_beams": 2}):
        outputs = model.generate(**inputs, **options, do_sample=False, max_new_tokens=3)
        beams = getattr(outputs, "beam_indices", None)
        arguments = (outputs.sequences, outputs.scores, beams)
        scores = model.compute_transition_scores(*arguments, normalize_logits=not options)
        total = scores.sum() / (outputs.sequences.shape[1] - 3)
        if options:
            torch.testing.assert_close(total, outputs.sequences_scores[0], atol=1e-4, rtol=0)
        else:
            log_probs = model(outputs.sequences).logits.log_softmax(-1)[0, 2:-1]
            expected = log_probs.gather(1, outputs.sequences[0, 3:, None]).mean()
            torch.testing.assert_close(total, expected, atol=1e-4, rtol=0)


def test_logits_to_keep(model):
    inputs = everything(model)
    every = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, every[:, -2:])
    torch.testing.assert_close(model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits, every[:, [0, 3]])


def test_loss_is_the_mean_of_what_num_items_says(model):
    inputs = everything(model)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 1000, -100)
    mean = model(**inputs, labels=labels).loss
    count = (labels[:, 1:] != -100).sum()
    halved = model(**inputs, labels=labels, num_items_in_batch=2 * count).loss
    torch.testing.assert_close(halved, mean / 2)


def test_hidden_states_and_attentions(checkpoint):
    model = load(checkpoint, attn_implementation="eager")
    outputs = model(**everything(model), output_hidden_states=True, output_attentions=True)
    layers = model.config.text_config.num_hidden_layers
    assert len(outputs.hidden_states) == layers + 1
    assert len(outputs.attentions) == layers
    assert outputs.video_hidden_states.shape == (1, 5, 64)
    sound = model.model.audio_tower(torch.randn(2, 128, 204), output_hidden_states=True, output_attentions=True)
    assert len(sound.hidden_states) == model.config.audio_config.num_hidden_layers + 1
    assert sound.attentions[0].shape == (2, 4, 229, 230)  # one learned key more than queries
    assert model(**everything(model), return_dict=False)[0].shape[0] == 1


@pytest.mark.parametrize(
    ("features", "config", "inputs", "steps"),
    (
        ("image", "vision_config", {"pixel_values": torch.zeros(2, 3, 224, 224)}, 2),
        (
            "video",
            "vision_config",
            {
                "pixel_values_videos": torch.zeros(1, 3, 3, 224, 224),
                "video_frame_mask": torch.tensor([[True, True, False]]),
            },
            2,
        ),
        ("audio", "audio_config", {"input_features": torch.zeros(1, 4, 128, 204)}, 4),
        ("audio", "audio_vision_config", {"audio_pixel_values": torch.zeros(1, 2, 3, 224, 224)}, 2),
    ),
    ids=("image", "padded video", "sound", "frames as sound"),
)
def test_features_come_with_the_inner_states_of_the_encoder_on_request(checkpoint, features, config, inputs, steps):
    model = load(checkpoint, attn_implementation="eager")
    get_features = getattr(model, f"get_{features}_features")
    layers = getattr(model.config, config).num_hidden_layers
    plain = get_features(**inputs)
    full = get_features(**inputs, output_hidden_states=True, output_attentions=True)
    assert plain.hidden_states is plain.attentions is None
    assert len(full.hidden_states) == layers + 1
    assert len(full.attentions) == layers
    assert {len(states) for states in (*full.hidden_states, *full.attentions)} == {steps}  # none for padding
    torch.testing.assert_close(full.pooler_output, plain.pooler_output)


def test_gradient_checkpointing_gives_the_same_gradients(own_model):
    inputs = everything(own_model)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 1000, -100)

    def gradients():
        own_model.zero_grad()
        torch.manual_seed(1)
        own_model(**inputs, labels=labels).loss.backward()
        return {name: p.grad.clone() for name, p in own_model.named_parameters() if p.grad is not None}

    own_model.train()
    expected = gradients()
    checkpoint_activations(own_model)
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], msg=name)
    assert {"model.video_resampler.query_tokens", "model.audio_resampler.projection.weight"} <= expected.keys()


def test_every_parameter_gets_a_gradient(own_model):
    inputs = everything(own_model)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 1000, -100)
    own_model(**inputs, labels=labels).loss.backward()
    without = {name for name, p in own_model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in own_model.named_parameters() if "audio_vision_tower" in name}


@torch.no_grad()  # flex attention has no backward pass on a CPU
@pytest.mark.parametrize("implementation", ("eager", pytest.param("flex_attention", marks=pytest.mark.slow)))
def test_attention_implementations_agree(checkpoint, model, implementation):
    other = load(checkpoint, attn_implementation=implementation)
    inputs = everything(model)
    for name, towers in (("pixel_values_videos", "get_video_features"), ("input_features", "get_audio_features")):
        features = (getattr(each, towers)(inputs[name]).pooler_output for each in (other, model))
        torch.testing.assert_close(*features, rtol=0, atol=1e-5)
    frames, mask = torch.randn(2, 4, 3, 224, 224), torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    features = (each.get_video_features(frames, mask).pooler_output for each in (other, model))
    torch.testing.assert_close(*features, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        other(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-4
    )  # the tolerance of golden logits


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16))
def test_half_precision(checkpoint, model, dtype):
    half = load(checkpoint, dtype=dtype)
    assert {p.dtype for p in half.parameters()} == {dtype}
    inputs = everything(model)
    expected = model(**inputs).logits[..., :1000]
    logits = half(**{name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()})
    assert (logits.logits[..., :1000].float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("batch_size", (1, 2, 3))
def test_frames_and_clips_are_encoded_so_many_at_once(checkpoint, model, batch_size):
    small = load(checkpoint, encode_batch_size=batch_size)
    sizes: list[int] = []
    for tower in (small.model.vision_tower, small.model.qformer, small.model.audio_tower):
        tower.register_forward_hook(lambda module, args, output: sizes.append(len(output[0])))
    inputs = everything(model)
    torch.testing.assert_close(small(**inputs).logits, model(**inputs).logits)
    assert max(sizes) == batch_size
    asked = {"output_hidden_states": True, "output_attentions": True}
    videos = inputs["pixel_values_videos"], inputs.get("video_frame_mask")
    got, expected = (part.get_video_features(*videos, **asked) for part in (small, model))
    torch.testing.assert_close(got.hidden_states, expected.hidden_states)
    torch.testing.assert_close(got.attentions, expected.attentions)


def test_device_map_auto(checkpoint, model):
    placed = load(checkpoint, device_map="auto")
    torch.manual_seed(0)
    inputs = everything(model)
    torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits)


def test_parts_on_disk(checkpoint, model, tmp_path):
    """Offloading moves parts in and out of memory while the model runs."""
    places = {name: "cpu" for name, _ in model.model.named_children()}
    device_map = {f"model.{name}": place for name, place in places.items()} | {
        "lm_head": "cpu",
        "model.query_tokens": "cpu",
    }
    device_map |= {"model.vision_tower": "disk", "model.audio_tower": "disk", "model.video_resampler": "disk"}
    placed = load(checkpoint, device_map=device_map, offload_folder=tmp_path)
    inputs = everything(model)
    torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits)


def test_where_memory_ends_the_rest_goes_to_disk(checkpoint, model, tmp_path):
    placed = load(checkpoint, device_map="auto", max_memory={"cpu": "0.7MB"}, offload_folder=tmp_path)
    assert set(placed.hf_device_map.values()) == {"cpu", "disk"}
    inputs = everything(model)
    torch.testing.assert_close(placed(**inputs).logits, model(**inputs).logits)


def test_the_released_size_is_spread_over_two_gpus_by_whole_layers():
    with torch.device("meta"):
        large = AutoModelForMultimodalLM.from_config(VideoLlamaConfig(audio_config={}), dtype=torch.bfloat16)
    whole = list(large._no_split_modules)
    devices = infer_auto_device_map(large, {0: "9GiB", 1: "9GiB"}, no_split_module_classes=whole)
    assert set(devices.values()) == {0, 1}
    layers = [name for name, module in large.named_modules() if type(module).__name__ in whole]
    for layer in layers:
        assert not [name for name in devices if name.startswith(f"{layer}.")], layer
    assert any(name.startswith("model.language_model.layers.") for name in devices)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_prefill_and_decode(own_model):
    """No graph breaks: with media in the prefill, and with a static cache while decoding."""
    inputs = everything(own_model)
    expected = own_model(**inputs).logits
    answer = own_model.generate(**inputs, **GREEDY)
    compiled = torch.compile(own_model, fullgraph=True)
    torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=0, atol=1e-4)
    own_model.forward = torch.compile(own_model.forward, fullgraph=True)
    static = own_model.generate(**inputs, **GREEDY, cache_implementation="static")
    assert static.tolist() == answer.tolist()


@pytest.mark.parametrize("kind", ("image", "video", "audio"))
def test_placeholders_and_features_must_be_equally_many(model, kind):
    inputs = everything(model)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(
        inputs["input_ids"] == getattr(model.config, f"{kind}_token_id"), 7
    )
    count = 3 if kind == "audio" else 5
    with pytest.raises(ValueError, match=f"tokens do not match, tokens: 0, features: {count}"):
        model(**inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.get_video_features(torch.zeros(1, 17, 3, 224, 224)), "got 17 frames or clips .* has 16 rows"),
        (lambda m: m.get_audio_features(torch.zeros(1, 9, 128, 204)), "got 9 frames or clips .* has 8 rows"),
        (lambda m: m.get_video_features(torch.zeros(1, 2, 3, 32, 32)), r"must have shape .* got \(1, 2, 3, 32, 32\)"),
        (lambda m: m.get_image_features(torch.zeros(1, 2, 3, 224, 224)), "must have shape"),
        (lambda m: m.get_audio_features(torch.zeros(1, 8, 1, 128, 204)), "input_features must have shape"),
        (lambda m: m.get_audio_features(), "exactly one of input_features, audio_pixel_values"),
        (lambda m: m(), "exactly one of input_ids and inputs_embeds"),
    ],
)
def test_bad_tensors(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("absent", "call", "message"),
    [
        (["audio_config", "audio_vision_config"], {"input_features": torch.zeros(1, 8, 128, 204)}, "no audio branch"),
        (["audio_vision_config"], {"audio_pixel_values": torch.zeros(1, 1, 3, 224, 224)}, "--with-imagebind-vision"),
    ],
)
def test_absent_branches(model, absent, call, message):
    config = VideoLlamaConfig.from_dict({**model.config.to_dict(), **dict.fromkeys(absent)})
    smaller = VideoLlamaForConditionalGeneration(config).eval()
    state = model.state_dict()
    smaller.load_state_dict({name: state[name] for name in smaller.state_dict()})
    text = torch.tensor([[1, 5, 6, 7]])
    torch.testing.assert_close(smaller(text).logits, model(text).logits)
    with pytest.raises(ValueError, match=message):
        smaller.get_audio_features(**call)


def test_stop_sequences_end_an_answer(model):
    text = torch.tensor([[1, 5, 6, 7]])
    greedy = model.generate(text, **GREEDY)[0, 4:].tolist()
    assert len(greedy) == GREEDY["max_new_tokens"]
    settings = GenerationConfig(**GREEDY, pad_token_id=0, stop_sequences=[[999, 998], greedy[1:3]])
    stopped = model.generate(text, generation_config=settings)
    assert stopped[0, 4:].tolist() == greedy[:3]


@pytest.mark.slow
def test_tiny_checkpoint_overfits_a_batch(own_model):
    inputs = everything(own_model)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] >= 1000, -100)
    trained = [p for name, p in own_model.named_parameters() if "video_resampler" in name or "language_model" in name]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    first = own_model(**inputs, labels=labels).loss.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = own_model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
