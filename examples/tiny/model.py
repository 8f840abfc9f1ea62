"""The parts of the tiny model: its sizes, its tokenizer, its processor, and how it is saved."""

import copy
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from transformers_videollama import VideoLlamaConfig, VideoLlamaForConditionalGeneration, VideoLlamaProcessor
from transformers_videollama.convert.processor_files import build_generation_config, build_processor
from transformers_videollama.convert.tokenizer import build_tokenizer


STYLE = "llama-2"
IMAGE_SIZE = 112
NUM_FRAMES = 8
NUM_CLIPS = 4
VIDEO_TOKENS = 8
AUDIO_TOKENS = 4
FRAME_QUERIES = 4  # one for each shape
WIDTH = 128  # of all towers and of the language model
INITIALIZER_RANGE = 0.08  # about 1 / sqrt(width); the defaults of the library are for models ten times as wide
JOINT_WIDTH = 64  # of ImageBind's space
MEL_BINS = 64
VOCABULARY, PLACEHOLDERS = 1021, 3

# The phases of the training, and the parameters that each trains
PARTS = {
    "language": ("model.language_model.", "lm_head."),
    "frames": ("model.vision_tower.", "model.qformer.", "model.query_tokens"),
    "imagebind": ("model.audio_tower.", "model.audio_vision_tower."),
    "vl1": ("model.video_resampler.",),
    "vl2": ("model.video_resampler.",),
    "al1": ("model.audio_resampler.",),
    "al2": ("model.audio_resampler.",),
}


def train_tokenizer(sentences: list[str], folder: Path) -> PreTrainedTokenizerFast:
    """Train LLaMA's kind of tokenizer (SentencePiece BPE, bytes for what is unknown) and add the placeholders."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "legacy": true, "model_max_length": 2048, '
        '"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}\n'
    )
    return build_tokenizer(folder, first_placeholder_id=VOCABULARY)


def tiny_config() -> VideoLlamaConfig:
    """Sizes of all parts. Embeddings of sounds have the norm of those of pictures, 1: one stands for the other."""
    trunk = {
        "initializer_range": INITIALIZER_RANGE,
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": JOINT_WIDTH,
    }
    fuser = {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH, "num_attention_heads": 4, "vocab_size": 1}
    fuser |= {"initializer_range": INITIALIZER_RANGE}
    fuser |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 32}
    return VideoLlamaConfig(
        vision_config={
            "initializer_range": INITIALIZER_RANGE,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 14,
        },
        qformer_config={
            **fuser,
            "num_hidden_layers": 2,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": WIDTH,
        },
        num_query_tokens=FRAME_QUERIES,
        video_resampler_config={**fuser, "encoder_hidden_size": WIDTH, "num_query_tokens": VIDEO_TOKENS},
        audio_config={
            **trunk,
            "num_mel_bins": MEL_BINS,
            "patch_stride": 12,
            "logit_scale": 1.0,
        },
        audio_vision_config={**trunk, "image_size": IMAGE_SIZE},
        audio_resampler_config={**fuser, "encoder_hidden_size": JOINT_WIDTH, "num_query_tokens": AUDIO_TOKENS},
        text_config={
            "model_type": "llama",
            "initializer_range": INITIALIZER_RANGE,
            "vocab_size": VOCABULARY + 3,
            "hidden_size": WIDTH,
            "intermediate_size": 3 * WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        image_token_id=VOCABULARY,
        video_token_id=VOCABULARY + 1,
        audio_token_id=VOCABULARY + 2,
        output_vocab_size=VOCABULARY,
        initializer_range=INITIALIZER_RANGE,
    )


def new_model(
    tokenizer: PreTrainedTokenizerFast, seed: int
) -> tuple[VideoLlamaForConditionalGeneration, VideoLlamaProcessor]:
    """A model with random weights, and its processor."""
    torch.manual_seed(seed)
    config = tiny_config()
    processor = build_processor(tokenizer, config, STYLE)
    processor.video_processor.num_frames = NUM_FRAMES
    processor.feature_extractor.num_clips = NUM_CLIPS
    model = VideoLlamaForConditionalGeneration(config)
    # Positions are as large as the features that they are added to where order matters, as it does for how things move
    torch.nn.init.normal_(model.model.video_resampler.position_embedding.weight, std=0.7)
    torch.nn.init.zeros_(model.model.audio_resampler.position_embedding.weight)
    # What ImageBind gives has the norm 1, and not the root of its width as what comes from a norm layer
    for name, weight in model.model.audio_resampler.named_parameters():
        if name.endswith(("crossattention.attention.key.weight", "crossattention.attention.value.weight")):
            weight.data *= JOINT_WIDTH**0.5
    # Its answers are right or wrong, so that it takes the likeliest token
    model.generation_config = build_generation_config(config, tokenizer, STYLE)
    model.generation_config.update(do_sample=False, temperature=None, top_p=None)
    return model, processor


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return build_tokenizer(folder, first_placeholder_id=VOCABULARY)


def save_part(model: VideoLlamaForConditionalGeneration, path: Path) -> None:
    """Save the weights of one part: a key of `PARTS`, with which the name of the file begins."""
    prefixes = PARTS[path.stem.split("-")[0]]
    weights = {name: w.contiguous() for name, w in model.state_dict().items() if name.startswith(prefixes)}
    save_file(weights, path)


def load_part(model: VideoLlamaForConditionalGeneration, path: Path) -> None:
    model.load_state_dict(load_file(path), strict=False)


def save_model(model: VideoLlamaForConditionalGeneration, processor: VideoLlamaProcessor, folder: Path) -> None:
    """Save everything that `from_pretrained` needs, the weights in half precision."""
    copy.deepcopy(model).to(torch.float16).save_pretrained(folder)
    processor.save_pretrained(folder)
