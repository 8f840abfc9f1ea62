"""Models and front ends of the sizes that are measured; all but the tiny one have random weights."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    BatchFeature,
    LlamaConfig,
    PreTrainedModel,
)

from transformers_videollama import (
    TINY_CHECKPOINT,
    VideoLlamaConfig,
    VideoLlamaFeatureExtractor,
    VideoLlamaForConditionalGeneration,
    VideoLlamaImageProcessor,
    VideoLlamaModel,
    VideoLlamaProcessor,
    VideoLlamaVideoProcessor,
    load_chat_template,
)

from .measure import Options


__all__ = [
    "SIZES",
    "checkpoint_activations",
    "config_of",
    "model_of",
    "processor_of",
    "questions_about_noise",
    "save_training_model",
    "vision_model_of",
]

SIZES = ("tiny", "small", "7b")
# A ViT-B for frames and sounds, the Q-Formers of the released size, and a LLaMA of 0.2 billion parameters
VIT_B = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SMALL = {"vision_config": VIT_B, "audio_config": VIT_B, "qformer_config": {"encoder_hidden_size": 768}}
SMALL_LLAMA = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
VOCABULARY = 32064


def processor_of(size: str) -> VideoLlamaProcessor:
    """The released front ends, with the tokenizer of the tiny model, whose ids any vocabulary has."""
    tiny = AutoProcessor.from_pretrained(TINY_CHECKPOINT)
    if size == "tiny":
        return tiny
    return VideoLlamaProcessor(
        VideoLlamaImageProcessor(),
        VideoLlamaVideoProcessor(),
        VideoLlamaFeatureExtractor(),
        tiny.tokenizer,
        chat_template=load_chat_template("llama-2"),
    )


def config_of(size: str) -> VideoLlamaConfig:
    if size == "tiny":
        return AutoConfig.from_pretrained(TINY_CHECKPOINT)
    processor = processor_of(size)
    ids = {f"{kind}_token_id": getattr(processor, f"{kind}_token_id") for kind in ("image", "video", "audio")}
    parts, llama = (SMALL, SMALL_LLAMA) if size == "small" else ({"audio_config": {}}, {})
    # Ids beyond the tokenizer's are never answered
    text_config = LlamaConfig(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=0, **llama)
    return VideoLlamaConfig(text_config=text_config, output_vocab_size=min(ids.values()), **parts, **ids)


def vision_model_of(options: Options) -> VideoLlamaModel:
    """What encodes videos, of the size that is measured, with a small language model that is not used."""
    config = config_of(options.size)
    if options.size != "tiny":
        small = {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": VOCABULARY}
        config.text_config = LlamaConfig(hidden_size=config.text_config.hidden_size, **small)
    config.audio_config = config.audio_vision_config = config.audio_resampler_config = None
    torch.manual_seed(0)
    with options.device:
        model = AutoModel.from_config(config, dtype=options.dtype)
    return model.requires_grad_(False).eval()


def model_of(options: Options, **kwargs) -> VideoLlamaForConditionalGeneration:
    """On the device and in the dtype that are measured, with random weights."""
    if options.size == "tiny":
        model = AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT, dtype=options.dtype, **kwargs)
        return model.to(options.device).requires_grad_(False).eval()
    torch.manual_seed(0)
    with options.device:
        model = AutoModelForMultimodalLM.from_config(config_of(options.size), dtype=options.dtype, **kwargs)
    model.generation_config.update(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model.requires_grad_(False).eval()


def save_training_model(folder: Path, size: str) -> None:
    """Random weights without audio branch; at 7b, the language model is that of the small size."""
    config = config_of(size)
    config.audio_config = config.audio_vision_config = config.audio_resampler_config = None
    if size == "7b":
        config.text_config = config_of("small").text_config
    torch.manual_seed(0)
    AutoModelForMultimodalLM.from_config(config).save_pretrained(folder)
    processor_of(size).save_pretrained(folder)


def questions_about_noise(processor: VideoLlamaProcessor, number: int) -> BatchFeature:
    """A batch of questions, each about a silent video of its own."""
    rng = np.random.default_rng(0)
    videos = [rng.integers(0, 256, (8, 240, 320, 3), dtype=np.uint8) for _ in range(number)]
    question = {"type": "text", "text": "What do you see?"}
    chats = [[{"role": "user", "content": [{"type": "video", "video": video}, question]}] for video in videos]
    return processor.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def checkpoint_activations(model: PreTrainedModel) -> None:
    """By the name that the installed version of the library has for it; it is another from transformers 5.24 on."""
    new_name = hasattr(model, "activation_checkpointing_enable")
    enable = model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable
    enable()
