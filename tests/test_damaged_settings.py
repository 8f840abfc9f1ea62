"""Damaged files of settings are a clear error when they are loaded, before anything is built or allocated of them."""

import copy
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import (
    AutoConfig,
    AutoProcessor,
    Blip2VisionConfig,
    LlamaConfig,
)

from transformers_videollama import (
    TINY_CHECKPOINT,
    VideoLlamaAudioConfig,
    VideoLlamaAudioVisionConfig,
    VideoLlamaConfig,
    VideoLlamaFeatureExtractor,
    VideoLlamaForConditionalGeneration,
    VideoLlamaImageProcessor,
    VideoLlamaProcessor,
    VideoLlamaResamplerConfig,
    VideoLlamaVideoProcessor,
)
from transformers_videollama.cli import main


NAN, INF = float("nan"), float("inf")
NOT_COUNTS = (None, 0, -1, 1.5, NAN, INF, 10**9, "8", "x", [], {}, True)
NOT_EPSILONS = (None, 0.0, -1e-6, 1.5, NAN, INF, "1e-6", [1e-6])
FEW = (0, 10**9, NAN)
NOT_SHARES = (-0.1, 1.0, 2, NAN, INF, "0.1", [])
NOT_FLAGS = (2, "true", [], 0.5)


def trunk(counts: tuple) -> dict[str, tuple]:
    return {
        **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers"), counts),
        "num_attention_heads": (*counts, 3),
        "hidden_act": (None, "gelo", ["gelu"]),
        "initializer_range": (-0.1, NAN, "0.02"),
        "is_encoder_decoder": (True,),
        "dtype": ("float99", "nn", "int64", 16),
        "chunk_size_feed_forward": (-1, 10**9),
        "id2label": ({"a": "b"}, []),
        "num_labels": (10**9, -1, "two"),
    }


def fuser(counts: tuple) -> dict[str, tuple]:
    return {
        **trunk(counts),
        **dict.fromkeys(("encoder_hidden_size", "cross_attention_frequency", "max_position_embeddings"), counts),
        "layer_norm_eps": (0.0, NAN),
        "attention_probs_dropout_prob": (-0.1, 1.0, NAN),
        "hidden_dropout_prob": NOT_SHARES,
        "pad_token_id": (-2, "0", 1.5),
        "use_qformer_text_input": (True, None, "no"),
        "model_type": ("llama", "", 3, [], {}),
    }


# Part of config.json -> field -> values that it cannot have
CONFIGURATION = {
    "": {
        "num_query_tokens": NOT_COUNTS,
        "image_token_id": (None, -1, 1022, 1024, 10**9, "1021", 1.5, [1]),
        "video_token_id": (None, -1, 1021, NAN, {}),
        "audio_token_id": (None, -1, 1021, INF, "x"),
        "output_vocab_size": (0, -1, 1025, 10**9, "1021", 1.5),
        "encode_batch_size": (None, 0, -1, "64", 1.5),
        "initializer_range": (None, -0.1, NAN, INF, "0.02"),
        "dtype": ("float99", "nn", "bool", 16, ["float16"]),
        "tie_word_embeddings": NOT_FLAGS,
        "is_encoder_decoder": (True,),
        "num_labels": (10**9, -1, "two"),
        "id2label": ({"a": "b"}, []),
        **dict.fromkeys(("vision_config", "qformer_config", "text_config"), (3, "x", [], [{}], True, {"a": 1})),
        "video_resampler_config": (3, "x", [], None, {}),
        "audio_config": (3, "x", [], {}),
        "audio_vision_config": (3, "x", [], {}),
        "audio_resampler_config": (3, "x", []),
    },
    "vision_config": {
        **trunk(NOT_COUNTS),
        "layer_norm_eps": NOT_EPSILONS,
        "image_size": (*NOT_COUNTS, [112, 112], 10, 10**5),
        "patch_size": (*NOT_COUNTS, 113, [14, 14]),
        "attention_dropout": NOT_SHARES,
        "qkv_bias": NOT_FLAGS,
        "model_type": ("llama", "", 3, [], {}),
    },
    "qformer_config": fuser(FEW),
    "video_resampler_config": {**fuser(NOT_COUNTS), "num_query_tokens": NOT_COUNTS},
    "audio_resampler_config": {**fuser(FEW), "num_query_tokens": FEW},
    "audio_config": {
        **trunk(FEW),
        "layer_norm_eps": (0.0, NAN),
        "num_mel_bins": (*NOT_COUNTS, 15),
        "num_mel_frames": (*NOT_COUNTS, 15),
        "patch_size": (*NOT_COUNTS, 65),
        "patch_stride": NOT_COUNTS,
        "projection_dim": (*NOT_COUNTS, 65),
        "stem_layer_norm_eps": NOT_EPSILONS,
        "attention_dropout": NOT_SHARES,
        "logit_scale": (None, 0, -1.0, NAN, INF, 1e9, "20"),
        "add_bias_kv": NOT_FLAGS,
    },
    "audio_vision_config": {
        **trunk(FEW),
        "layer_norm_eps": (0.0, NAN),
        "image_size": (*FEW, 10),
        "patch_size": (*FEW, 113),
        "projection_dim": (*FEW, 65),
        "attention_dropout": (-0.1, NAN),
        "add_bias_kv": NOT_FLAGS,
    },
    "text_config": {
        **trunk(NOT_COUNTS),
        "vocab_size": (*NOT_COUNTS, 1000),
        "num_key_value_heads": (0, -1, 3, 1.5, NAN, 10**9, "4", []),
        "head_dim": (0, -1, 1.5, NAN, 10**9, "32", []),
        "max_position_embeddings": NOT_COUNTS,
        "rms_norm_eps": NOT_EPSILONS,
        "attention_dropout": NOT_SHARES,
        "pad_token_id": (-2, 1024, "0"),
        "bos_token_id": (-2, "x", 1.5),
        "eos_token_id": ("x", 1.5),
        "rope_parameters": (
            "x",
            3,
            {"rope_type": "default", "rope_theta": 0},
            {"rope_type": "default", "rope_theta": NAN},
            {"rope_type": "default", "rope_theta": "x"},
            {"rope_type": "linear", "rope_theta": 1e4, "factor": 0},
        ),
        "attention_bias": NOT_FLAGS,
        "mlp_bias": NOT_FLAGS,
        "model_type": ("nothing", "", 3, []),
    },
}
NOT_SIZES = (
    *(None, 0, -1, NAN, 10**6, "x", "112", [], [112], True),
    *({}, {"height": 112}, {"height": 112, "width": 0}, {"height": -112, "width": 112}, {"shortest_edge": 112}),
    *({"height": 10**6, "width": 10**6}, {"height": "112", "width": "112"}, {"height": 1.5, "width": 112}),
)
PICTURES = {
    "size": NOT_SIZES,
    "crop_size": ({"height": 10**6, "width": 10**6}, "x", 0),
    "image_mean": ([], [0.5], [0.5] * 4, [NAN] * 3, [INF, 0, 0], ["a", "b", "c"], "x", [None] * 3, {}),
    "image_std": ([], [1.0], [1.0] * 4, [0.0] * 3, [1, 1, 0], [-1.0] * 3, [NAN] * 3, [INF] * 3, "x", [1e-30] * 3, {}),
    "rescale_factor": (0, 0.0, -2, NAN, INF, 1e-30, 255, "1/255", [], {}),
    "resample": (-1, 6, 10**9, 1.5, "bicubic", [], {}),
    **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"), (1, "false", "", [], 0.5, {})),
    "do_center_crop": ("no", 1),
}
# Part of processor_config.json -> setting -> values that it cannot have
PROCESSOR = {
    "": {
        "num_video_tokens": NOT_COUNTS,
        "num_audio_tokens": (None, -1, 1.5, NAN, INF, 10**9, "4", [], True),
        **dict.fromkeys(("load_audio_from_video", "add_timestamps"), (None, 1, "yes", [], 0.5)),
        "stop_string": (3, "", [], True, {}),
    },
    "image_processor": PICTURES,
    "video_processor": {
        **PICTURES,
        "num_frames": (0, -1, 1.5, NAN, INF, "8", [], {}, True),
        "fps": (0, -1, NAN, INF, "2", [], True),
        "sampling": (None, "random", "", 3, []),
        "do_sample_frames": (1, "no", []),
        "return_metadata": (1, "no"),
        "model_max_frames": (0, -1, 1.5, NAN, "32", [], True),
    },
    "feature_extractor": {
        "feature_size": NOT_COUNTS,
        "sampling_rate": (*NOT_COUNTS, 1),
        "padding_value": (None, NAN, INF, "0", []),
        "num_clips": NOT_COUNTS,
        "clip_seconds": (None, 0, -2.0, NAN, INF, 1e9, 1e-9, "2", []),
        "num_mel_frames": NOT_COUNTS,
        "mean": (None, NAN, INF, "-4", [], {}),
        "std": (None, 0, 0.0, -9.1, NAN, INF, 1e-30, "9", []),
        "downmix": (None, "", "left", 0, [], True),
        "padding_side": ("middle", 3),
        "model_max_clips": (0, -1, 1.5, NAN, "8", []),
    },
}
PARTS = {
    "image_processor": VideoLlamaImageProcessor,
    "video_processor": VideoLlamaVideoProcessor,
    "feature_extractor": VideoLlamaFeatureExtractor,
}


def rows(table: dict) -> list[tuple[str, str, tuple]]:
    return [(part, name, values) for part, fields in table.items() for name, values in fields.items()]


def label(value: object) -> str:
    return repr(value)[:30]


@pytest.fixture(scope="module")
def saved() -> dict[str, dict]:
    names = ("config.json", "processor_config.json")
    return {name: json.loads((Path(TINY_CHECKPOINT) / name).read_text(encoding="utf-8")) for name in names}


def damaged(saved: dict, part: str, name: str, value: object) -> dict:
    values = copy.deepcopy(saved)
    (values[part] if part else values)[name] = value
    return values


def refusal(load: Callable, settings: dict) -> str:
    try:
        load(settings)
    except (ValueError, StrictDataclassError) as error:
        return str(error)
    return "it was taken"


@pytest.mark.parametrize(("part", "name", "values"), rows(CONFIGURATION))
def test_configuration(saved, part, name, values):
    """The message has the field, or the two that do not go together."""
    said = {"num_attention_heads": "num_attention_heads|number of attention heads", "rope_parameters": "rope_"}
    for value in values:
        message = refusal(VideoLlamaConfig.from_dict, damaged(saved["config.json"], part, name, value))
        assert re.search(said.get(name, name), message), (value, message)


@pytest.mark.parametrize(("part", "name", "values"), rows(PROCESSOR))
def test_processors(saved, part, name, values):
    for value in values:
        settings = damaged(saved["processor_config.json"], part, name, value)[part] if part else {name: value}
        message = refusal(PARTS[part].from_dict if part else lambda given: VideoLlamaProcessor(**given), settings)
        assert name in message, (value, message)


def test_there_are_many():
    assert sum(len(values) for table in (CONFIGURATION, PROCESSOR) for *_, values in rows(table)) > 700


@pytest.mark.parametrize("part", ("vision_config", "video_resampler_config", "text_config"))
@pytest.mark.parametrize("name", ("hidden_size", "num_hidden_layers", "num_labels"))
def test_nothing_large_is_allocated(saved, part, name):
    values = damaged(saved["config.json"], part, name, 10**9)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"{part}: got {name}=1000000000"):
            VideoLlamaConfig.from_dict(values)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("own", ("audio", "vision", "resampler"))
def test_parts_by_themselves(own):
    classes = {"audio": VideoLlamaAudioConfig, "vision": VideoLlamaAudioVisionConfig}
    config_class = classes.get(own, VideoLlamaResamplerConfig)
    for name, value in (("hidden_size", 0), ("num_hidden_layers", 10**9), ("num_labels", 10**9), ("dtype", "x")):
        with pytest.raises(ValueError, match=f"{name}="):
            config_class(**{name: value})


def test_parts_that_are_objects():
    with pytest.raises(ValueError, match="vision_config: got patch_size=0"):
        VideoLlamaConfig(vision_config=Blip2VisionConfig(patch_size=0))
    with pytest.raises(ValueError, match="text_config: got rms_norm_eps=nan"):
        VideoLlamaConfig(text_config=LlamaConfig(vocab_size=32064, rms_norm_eps=NAN))


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("vision_config", "attention_dropout", 0.5),
        ("vision_config", "dtype", "bfloat16"),
        ("text_config", "pad_token_id", -1),
        ("text_config", "num_key_value_heads", 2),
        ("text_config", "num_key_value_heads", None),
        ("text_config", "head_dim", None),
        ("text_config", "eos_token_id", [2, 3]),
        ("text_config", "attention_dropout", None),
        ("audio_config", "logit_scale", 20.0),
        ("", "output_vocab_size", None),
        ("", "audio_vision_config", None),
        ("", "id2label", None),
        ("", "num_labels", 3),
        ("", "torch_dtype", "float32"),
    ],
    ids=label,
)
def test_values_that_are_right_build_a_model(saved, part, name, value):
    config = VideoLlamaConfig.from_dict(damaged(saved["config.json"], part, name, value))
    with torch.device("meta"):
        VideoLlamaForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("video_processor", "size", 112),
        ("video_processor", "size", [112, 112]),
        ("video_processor", "num_frames", None),
        ("video_processor", "fps", 0.5),
        ("video_processor", "sampling", "headtail"),
        ("video_processor", "resample", 3),
        ("video_processor", "image_mean", (0, 0, 0)),
        ("image_processor", "image_std", [1, 1, 1]),
        ("image_processor", "rescale_factor", 1 / 127.5),
        ("feature_extractor", "clip_seconds", 1),
        ("feature_extractor", "downmix", "first"),
    ],
    ids=label,
)
def test_settings_that_are_right_load(saved, part, name, value):
    values = damaged(saved["processor_config.json"], part, name, value)
    loaded = PARTS[part].from_dict(values[part])
    assert type(loaded).from_dict(loaded.to_dict()).to_dict() == loaded.to_dict()


@pytest.mark.parametrize(
    ("file", "part", "name", "value"),
    [
        ("config.json", "text_config", "hidden_size", "x"),
        ("config.json", "audio_resampler_config", "max_position_embeddings", 10**8),
        ("processor_config.json", "video_processor", "image_std", [0, 0, 0]),
        ("processor_config.json", "feature_extractor", "num_clips", 10**9),
    ],
)
def test_the_command_says_it(saved, tmp_path, capsys, file, part, name, value):
    for path in Path(TINY_CHECKPOINT).iterdir():
        if path.name != file and path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / file).write_text(json.dumps(damaged(saved[file], part, name, value)), encoding="utf-8")
    picture = str(tmp_path / "picture.png")
    Image.new("RGB", (8, 8)).save(picture)
    with pytest.raises(SystemExit) as ended:
        main(["ask", picture, "What is it?", "--model", str(tmp_path)])
    assert ended.value.code == 2
    assert re.search(rf"cannot be loaded: .*{name}", capsys.readouterr().err, flags=re.DOTALL)


def test_what_was_saved_loads_unchanged(saved, tmp_path):
    """Settings that are new since have their defaults; older releases of the library leave defaults of parts out."""
    for loader, name in ((AutoConfig, "config.json"), (AutoProcessor, "processor_config.json")):
        loader.from_pretrained(TINY_CHECKPOINT).save_pretrained(tmp_path)
        again = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        before = {key: value for key, value in saved[name].items() if key != "transformers_version"}
        for key, value in before.items():
            if isinstance(value, dict):
                assert {name: value[name] for name in value if name in again[key]}.items() <= again[key].items()
            else:
                assert value == again[key]
