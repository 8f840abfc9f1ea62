"""Processor and generation settings of a converted checkpoint."""

from transformers import GenerationConfig, PreTrainedTokenizerFast

from ..chat_templates import PromptStyle, load_chat_template
from ..configuration_video_llama import VideoLlamaConfig
from ..feature_extraction_video_llama import VideoLlamaFeatureExtractor
from ..image_processing_video_llama import VideoLlamaImageProcessor
from ..processing_video_llama import VideoLlamaProcessor
from ..video_processing_video_llama import VideoLlamaVideoProcessor


__all__ = ["build_generation_config", "build_processor"]

STOP_STRINGS = {"llama-2": None, "vicuna": "###"}


def build_processor(
    tokenizer: PreTrainedTokenizerFast, config: VideoLlamaConfig, style: PromptStyle
) -> VideoLlamaProcessor:
    """
    Makes the processor that fits a configuration.

    Args:
        tokenizer: from [`~convert.tokenizer.build_tokenizer`].
        config ([`VideoLlamaConfig`])
        style (`str`): "llama-2" or "vicuna".

    Returns:
        [`VideoLlamaProcessor`]
    """
    side = config.vision_config.image_size
    has_audio = config.audio_config is not None
    audio = config.audio_config
    sound = {}
    if has_audio:
        clips = config.audio_resampler_config.max_position_embeddings
        sound = {"feature_size": audio.num_mel_bins, "num_mel_frames": audio.num_mel_frames, "model_max_clips": clips}
    return VideoLlamaProcessor(
        image_processor=VideoLlamaImageProcessor(size={"height": side, "width": side}),
        video_processor=VideoLlamaVideoProcessor(
            size={"height": side, "width": side},
            model_max_frames=config.video_resampler_config.max_position_embeddings,
        ),
        feature_extractor=VideoLlamaFeatureExtractor(**sound),
        tokenizer=tokenizer,
        chat_template=load_chat_template(style),
        num_video_tokens=config.video_resampler_config.num_query_tokens,
        num_audio_tokens=config.audio_resampler_config.num_query_tokens if has_audio else 0,
        load_audio_from_video=has_audio,
        stop_string=STOP_STRINGS[style],
    )


def build_generation_config(
    config: VideoLlamaConfig, tokenizer: PreTrainedTokenizerFast, style: PromptStyle
) -> GenerationConfig:
    """
    Makes the original's generation settings: sampling with top_p 0.9, at most 300 new tokens, ended by the end token
    or, in the vicuna style, by "###", whichever way it is tokenised. The rows that the conversion added to the
    vocabulary are suppressed.

    Args:
        config ([`VideoLlamaConfig`])
        tokenizer: from [`~convert.tokenizer.build_tokenizer`].
        style (`str`): "llama-2" or "vicuna".

    Returns:
        `GenerationConfig`; `stop_sequences` is read by [`VideoLlamaForConditionalGeneration`].
    """
    num_rows = config.text_config.vocab_size
    added = range(num_rows if config.output_vocab_size is None else config.output_vocab_size, num_rows)
    stop_string = STOP_STRINGS[style]
    return GenerationConfig(
        do_sample=True,
        top_p=0.9,
        temperature=1.0,
        max_new_tokens=300,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=list(added) or None,
        **({"stop_sequences": _token_runs(tokenizer, stop_string)} if stop_string else {}),
    )


def _token_runs(tokenizer: PreTrainedTokenizerFast, text: str) -> list[list[int]]:
    """Token ids of `text` at the start of a piece and within one: [835] and [2277, 29937] for LLaMA's "###"."""
    start = tokenizer.encode(text, add_special_tokens=False)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    within = tokenizer.encode("\n" + text, add_special_tokens=False)[len(newline) :]
    return [start] if start == within else [start, within]
