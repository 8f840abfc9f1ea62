"""A tiny model with random weights, and what it is asked."""

import torch

from conformance.model_tester import AUDIO, IMAGE, IMAGE_SIZE, MEL_FRAMES, MELS, VIDEO, VideoLlamaModelTester
from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration


TOKENS = {"image": (IMAGE, 4), "video": (VIDEO, 4), "audio": (AUDIO, 3)}  # placeholder, and how many an item takes
CACHE_NAMES = ("cache", "past_key_values")  # newer versions of the library know both, older ones the second
PARTS = ("text", "vision", "qformer", "video_resampler", "audio", "audio_resampler")


def tiny_config() -> VideoLlamaConfig:
    """No end token, so that lengths are known; weights so large that answers differ from prompt to prompt."""
    config = VideoLlamaModelTester().get_config()
    config.output_vocab_size = min(token for token, _ in TOKENS.values())
    config.text_config.eos_token_id = None
    for part in (config, *(getattr(config, f"{name}_config") for name in PARTS)):
        part.initializer_range = 0.2
    return config


def tiny_model(attention: str = "sdpa", seed: int = 0) -> VideoLlamaForConditionalGeneration:
    torch.manual_seed(seed)
    config = tiny_config()
    config._attn_implementation = attention
    return VideoLlamaForConditionalGeneration(config).eval()


def prompt(*kinds: str, text: int = 4) -> list[int]:
    """A first token, the placeholders of each item, and text that depends on its length."""
    media = [token for kind in kinds for token in [TOKENS[kind][0]] * TOKENS[kind][1]]
    return [1, *media, *range(10 + text, 10 + 2 * text)]


def left_padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
    }


def media() -> dict[str, torch.Tensor]:
    """An image, two videos of 3 and 2 frames, and three sounds of 2, 1 and 2 clips."""
    draw = torch.Generator().manual_seed(5)
    return {
        "pixel_values": torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draw),
        "pixel_values_videos": torch.randn(2, 3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draw),
        "video_frame_mask": torch.tensor([[True, True, True], [True, True, False]]),
        "input_features": torch.randn(3, 2, MELS, MEL_FRAMES, generator=draw),
        "audio_clip_mask": torch.tensor([[True, True], [True, False], [True, True]]),
    }


def batch() -> dict[str, torch.Tensor]:
    """Four prompts, of all kinds of items, of two, of two of one kind, and of none, padded on the left."""
    rows = [prompt("image", "video", "audio"), prompt("audio", "video", text=6), prompt("audio"), prompt(text=7)]
    return {**left_padded(rows), **media()}


def single() -> dict[str, torch.Tensor]:
    """One prompt with an item of every kind."""
    items = {name: tensor[:1] for name, tensor in media().items()}
    return {**left_padded([prompt("image", "video", "audio")]), **items}


def cache_of(output) -> dict:
    """The cache of an output, under the name that the installed version of the library has for it."""
    name = next(name for name in CACHE_NAMES if name in output)
    return {name: output[name]}
