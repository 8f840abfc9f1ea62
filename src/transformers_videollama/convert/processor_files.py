"""Tokenizer, processor and generation settings of a converted checkpoint."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from ..chat_templates import PromptStyle, load_chat_template
from ..configuration_video_llama import VideoLlamaConfig
from ..feature_extraction_video_llama import VideoLlamaFeatureExtractor
from ..image_processing_video_llama import VideoLlamaImageProcessor
from ..processing_video_llama import PLACEHOLDER_TOKENS, VideoLlamaProcessor
from ..video_processing_video_llama import VideoLlamaVideoProcessor
from .language_model import library_arguments


__all__ = ["build_generation_config", "build_processor", "build_tokenizer"]

PLACEHOLDERS = tuple(PLACEHOLDER_TOKENS.values())
# The chat templates break typed tokens up with this noncharacter, so that they stay text.
BREAK = "\ufdd0"
STOP_STRINGS = {"llama-2": None, "vicuna": "###"}


def build_tokenizer(llama: Path, first_placeholder_id: int) -> PreTrainedTokenizerFast:
    """
    Makes the tokenizer of a converted checkpoint from that of its language model.

    Args:
        llama (`Path`): a folder that has `tokenizer.model` or `tokenizer.json`, or a GGUF file.
        first_placeholder_id (`int`): id of `<image>`; `<video>` and `<audio>` follow.

    Returns:
        `PreTrainedTokenizerFast`: pads on the left with `<unk>` where the source names no padding token.

    Raises:
        ValueError: where the placeholders cannot get these ids.
    """
    source = AutoTokenizer.from_pretrained(**library_arguments(llama))
    backend = Tokenizer.from_str(source.backend_tokenizer.to_str())
    _set_original_spaces(backend)
    missing = first_placeholder_id - backend.get_vocab_size()
    # Rows of the embedding table that no token of the source has, so that ids are those of the table
    fillers = [AddedToken(f"<unused_{i}>", special=True) for i in range(missing)]
    backend.add_special_tokens([*fillers, *(AddedToken(token, special=True) for token in PLACEHOLDERS)])
    ids = [backend.token_to_id(token) for token in PLACEHOLDERS]
    if ids != list(range(first_placeholder_id, first_placeholder_id + len(PLACEHOLDERS))):
        raise ValueError(
            f"{llama}: the placeholders {PLACEHOLDERS} got the token ids {ids}, expected them to start at "
            f"{first_placeholder_id}; the tokenizer has {source.vocab_size} tokens and holds some of them already"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=source.bos_token,
        eos_token=source.eos_token,
        unk_token=source.unk_token,
        pad_token=source.pad_token or source.unk_token or source.eos_token,
        additional_special_tokens=list(PLACEHOLDERS),
        add_bos_token=source.bos_token is not None,
        padding_side="left",
        model_max_length=source.model_max_length,
        clean_up_tokenization_spaces=False,
    )


def _set_original_spaces(backend: Tokenizer) -> None:
    """
    Every piece of text between media gets SentencePiece's leading space, as in the original, whatever the source's
    `legacy` says: `Metaspace` would leave it out where a piece starts with a space already. A tokenizer that is not
    LLaMA's, or puts no space before a text, keeps its own way.
    """
    steps: list[normalizers.Normalizer] = [normalizers.Replace(BREAK, "")]
    if getattr(backend.model, "byte_fallback", False) and _puts_a_space_before(backend):
        backend.pre_tokenizer = None
        steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", left=1)]
        )
    elif backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)


def _puts_a_space_before(backend: Tokenizer) -> bool:
    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        return backend.pre_tokenizer.prepend_scheme != "never"
    return "Prepend" in repr(backend.normalizer)


def build_processor(
    tokenizer: PreTrainedTokenizerFast, config: VideoLlamaConfig, style: PromptStyle
) -> VideoLlamaProcessor:
    """
    Makes the processor that fits a configuration.

    Args:
        tokenizer: from [`build_tokenizer`].
        config ([`VideoLlamaConfig`])
        style (`str`): "llama-2" or "vicuna".

    Returns:
        [`VideoLlamaProcessor`]
    """
    side = config.vision_config.image_size
    has_audio = config.audio_config is not None
    audio = config.audio_config
    sound = {"feature_size": audio.num_mel_bins, "num_mel_frames": audio.num_mel_frames} if has_audio else {}
    return VideoLlamaProcessor(
        image_processor=VideoLlamaImageProcessor(size={"height": side, "width": side}),
        video_processor=VideoLlamaVideoProcessor(size={"height": side, "width": side}),
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
        tokenizer: from [`build_tokenizer`].
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
