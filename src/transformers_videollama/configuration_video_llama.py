# Copyright 2026 The transformers_videollama authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Configuration of Video-LLaMA (arXiv 2306.02858). The defaults are those of the released 7B checkpoints."""

from huggingface_hub.dataclasses import strict
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    LlamaConfig,
)
from transformers.configuration_utils import PreTrainedConfig

from .configuration_checks import check_fields, check_grid, check_heads, check_text
from .media.checks import Check, check_value, shown


__all__ = [
    "VideoLlamaAudioConfig",
    "VideoLlamaAudioVisionConfig",
    "VideoLlamaConfig",
    "VideoLlamaResamplerConfig",
]

LLAMA_VOCAB_SIZE = 32000
# The rows of LLaMA's vocabulary and of the placeholders, rounded up to a multiple of 64.
PADDED_LLAMA_VOCAB_SIZE = 32064

MODEL_TYPE = Check("a model type of the library", lambda value: isinstance(value, str) and value in CONFIG_MAPPING)


class _CheckedConfig:
    """Checks the values of fields before the library works with them; their types, it checks itself."""

    base_config_key: str

    def __post_init__(self, **kwargs):
        check_fields({**vars(self), **kwargs}, self.base_config_key)
        super().__post_init__(**kwargs)


@strict
class VideoLlamaResamplerConfig(_CheckedConfig, Blip2QFormerConfig):
    """
    Configuration of a [`VideoLlamaResampler`], the Q-Former that fuses the steps of a video or of a sound track.

    In addition to the fields of `Blip2QFormerConfig`:

    Args:
        num_query_tokens (`int`, defaults to 32): Learned queries, which is also the number of tokens that an item
            takes in the language model's sequence (the released audio branch has 8).
        max_position_embeddings (`int`, defaults to 32): Rows of the position table: the most frames of a video, or
            clips of a sound track, that one item can have (the released audio branch has 8).
        encoder_hidden_size (`int`, defaults to 768): Width of the step features that are fused.
        num_hidden_layers (`int`, defaults to 2): Q-Former layers.
        cross_attention_frequency (`int`, defaults to 1): Every how many layers there is cross-attention.
    """

    model_type = "video_llama_resampler"
    base_config_key = "video_resampler_config"

    num_hidden_layers: int = 2
    cross_attention_frequency: int = 1
    encoder_hidden_size: int = 768
    max_position_embeddings: int = 32
    num_query_tokens: int = 32


@strict
class VideoLlamaAudioConfig(_CheckedConfig, PreTrainedConfig):
    """
    Configuration of a [`VideoLlamaAudioModel`], ImageBind's audio trunk and head (arXiv 2305.05665).

    Args:
        num_mel_bins (`int`, defaults to 128): Height of a clip's log-mel spectrogram.
        num_mel_frames (`int`, defaults to 204): Width of a clip's log-mel spectrogram (2 s at a 10 ms shift, padded).
        patch_size (`int`, defaults to 16): Side of a patch of the spectrogram.
        patch_stride (`int`, defaults to 10): Step from one patch to the next; patches overlap.
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, hidden_act: of the trunk.
        layer_norm_eps (`float`, defaults to 1e-6): of the blocks and the head.
        stem_layer_norm_eps (`float`, defaults to 1e-5): of the norm after the patch embedding.
        attention_dropout (`float`, defaults to 0.0): Share of attention weights that training drops.
        add_bias_kv (`bool`, defaults to `True`): Whether every attention appends one learned key and value.
        projection_dim (`int`, defaults to 1024): Width of ImageBind's joint space.
        logit_scale (`float`, defaults to 20.0): Norm of the embeddings of sound.
        initializer_range (`float`, defaults to 0.02): Standard deviation of weights that are not loaded.
        max_source_positions (`int`, defaults to 8): Tokens that one sound takes in the language model's sequence.
            [`VideoLlamaConfig`] keeps it equal to the audio resampler's `num_query_tokens`; serving engines read it.
    """

    model_type = "video_llama_audio"
    base_config_key = "audio_config"

    num_mel_bins: int = 128
    num_mel_frames: int = 204
    patch_size: int = 16
    patch_stride: int = 10
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    stem_layer_norm_eps: float = 1e-5
    attention_dropout: float | int = 0.0
    add_bias_kv: bool = True
    projection_dim: int = 1024
    logit_scale: float = 20.0
    initializer_range: float = 0.02
    max_source_positions: int = 8


@strict
class VideoLlamaAudioVisionConfig(_CheckedConfig, PreTrainedConfig):
    """
    Configuration of a [`VideoLlamaAudioVisionModel`], ImageBind's vision trunk and head, which stands in for the
    audio trunk while the audio branch is trained.

    Args:
        image_size (`int`, defaults to 224): Height and width of a frame in pixels.
        patch_size (`int`, defaults to 14): Side of a patch.
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, hidden_act: of the trunk.
        layer_norm_eps (`float`, defaults to 1e-6): of the blocks, the norm before them and the head.
        attention_dropout (`float`, defaults to 0.0): Share of attention weights that training drops.
        add_bias_kv (`bool`, defaults to `False`): Whether every attention appends one learned key and value.
        projection_dim (`int`, defaults to 1024): Width of ImageBind's joint space.
        initializer_range (`float`, defaults to 0.02): Standard deviation of weights that are not loaded.
    """

    model_type = "video_llama_audio_vision"
    base_config_key = "audio_vision_config"

    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    add_bias_kv: bool = False
    projection_dim: int = 1024
    initializer_range: float = 0.02


@strict
class VideoLlamaConfig(PreTrainedConfig):
    """
    Configuration of a [`VideoLlamaForConditionalGeneration`]. `VideoLlamaConfig()` is the vision-language branch of
    Video-LLaMA-2-7B; `VideoLlamaConfig(audio_config={})` has its audio branch too.

    Args:
        vision_config (`Blip2VisionConfig` or `dict`, *optional*): EVA-ViT-g, the frame encoder.
        qformer_config (`Blip2QFormerConfig` or `dict`, *optional*): BLIP-2's Q-Former, which turns a frame into
            `num_query_tokens` tokens.
        video_resampler_config (`VideoLlamaResamplerConfig` or `dict`, *optional*): The Video Q-Former.
        audio_config (`VideoLlamaAudioConfig` or `dict`, *optional*): ImageBind's audio trunk. `None`: the model has
            no audio branch.
        audio_vision_config (`VideoLlamaAudioVisionConfig` or `dict`, *optional*): ImageBind's vision trunk, needed
            only to train the audio branch on frames. `None`: the model has none.
        audio_resampler_config (`VideoLlamaResamplerConfig` or `dict`, *optional*): The Audio Q-Former. Ignored
            without an `audio_config`.
        text_config (`PreTrainedConfig` or `dict`, *optional*): The language model, LLaMA by default; any causal
            language model of the library.
        num_query_tokens (`int`, defaults to 32): Learned queries of the image Q-Former.
        image_token_id, video_token_id, audio_token_id (`int`, default 32000, 32001, 32002): The placeholders, rows of
            the language model's vocabulary. Features are put in their places.
        output_vocab_size (`int`, *optional*, defaults to 32000): Token ids from here on (placeholders and padding
            rows) cannot be predicted: the model gives no logits for them. `None`: all rows can.
        encode_batch_size (`int`, defaults to 64): Frames, or clips of sound, that an encoder takes at once. More than
            that are encoded in several steps, so that their number does not matter to the memory that it takes.
        initializer_range (`float`, defaults to 0.02): Standard deviation of learned queries that are not loaded.
        tie_word_embeddings (`bool`, defaults to `False`): Whether the head has the weights of the input embeddings.

    Raises:
        ValueError: where a part's configuration is of another kind than the part.
        StrictDataclassClassValidationError: if sizes that must agree do not; the message has both.
    """

    model_type = "video_llama"
    # Trainers gather all other outputs of an evaluation; caches, and features of ragged batches, cannot be gathered
    keys_to_ignore_at_inference = [
        "cache",
        "past_key_values",
        *(f"{kind}_outputs" for kind in ("image", "video", "audio")),
    ]
    sub_configs = {
        "vision_config": Blip2VisionConfig,
        "qformer_config": Blip2QFormerConfig,
        "video_resampler_config": VideoLlamaResamplerConfig,
        "audio_config": VideoLlamaAudioConfig,
        "audio_vision_config": VideoLlamaAudioVisionConfig,
        "audio_resampler_config": VideoLlamaResamplerConfig,
        "text_config": AutoConfig,
    }

    vision_config: dict | PreTrainedConfig | None = None
    qformer_config: dict | PreTrainedConfig | None = None
    video_resampler_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    audio_vision_config: dict | PreTrainedConfig | None = None
    audio_resampler_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_query_tokens: int = 32
    image_token_id: int = LLAMA_VOCAB_SIZE
    video_token_id: int = LLAMA_VOCAB_SIZE + 1
    audio_token_id: int = LLAMA_VOCAB_SIZE + 2
    output_vocab_size: int | None = LLAMA_VOCAB_SIZE
    encode_batch_size: int = 64
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        check_fields({**vars(self), **kwargs})
        for name in ("vision_config", "qformer_config", "video_resampler_config"):
            setattr(self, name, self._part(name, getattr(self, name) or {}))
        self.audio_config = self._part("audio_config", self.audio_config)
        self.audio_vision_config = self._part("audio_vision_config", self.audio_vision_config)
        self.text_config = _text_config(self.text_config)
        if self.audio_config is None:
            self.audio_resampler_config = None
        else:
            sizes = {"encoder_hidden_size": 1024, "max_position_embeddings": 8, "num_query_tokens": 8}
            given = self.audio_resampler_config or {}
            given = sizes | given if isinstance(given, dict) else given
            self.audio_resampler_config = self._part("audio_resampler_config", given)
            self.audio_config.max_source_positions = self.audio_resampler_config.num_query_tokens
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """
        As the library's, which reads files by it.

        Raises:
            ValueError: where the library has saved the fields of a part, and they are gone.
        """
        for name in ("vision_config", "qformer_config", "video_resampler_config", "text_config"):
            part = config_dict.get(name)
            gone = part is None or (isinstance(part, dict) and "model_type" not in part)
            if gone and "transformers_version" in config_dict:
                raise ValueError(
                    f"{name} is {shown(part)}, expected the fields of the part, with 'model_type'; the file is damaged"
                )
        return super().from_dict(config_dict, **kwargs)

    def _part(self, name: str, value: dict | PreTrainedConfig | None) -> PreTrainedConfig | None:
        """The configuration of the part `name`, of the one kind that the part can have; `None` stays `None`."""
        config_class = self.sub_configs[name]
        if value is None:
            return None
        given = value if isinstance(value, dict) else {"model_type": value.model_type}
        kind = given.get("model_type", config_class.model_type)
        if kind != config_class.model_type:
            raise ValueError(
                f"{name} must be a {config_class.__name__} or a dict of its fields (model_type "
                f"{config_class.model_type!r}), got a {type(value).__name__} of model_type {kind!r}; this part of the "
                "network has no other architecture"
            )
        check_fields(value if isinstance(value, dict) else vars(value), name)
        return config_class(**value) if isinstance(value, dict) else value

    def validate_architecture(self):
        """Checks that the parts fit together; part of the strict dataclass, run on creation and on saving."""
        _check_equal(self, "qformer_config.encoder_hidden_size", "vision_config.hidden_size")
        _check_equal(self, "video_resampler_config.encoder_hidden_size", "qformer_config.hidden_size")
        if self.audio_config is not None:
            _check_equal(self, "audio_resampler_config.encoder_hidden_size", "audio_config.projection_dim")
        if self.audio_vision_config is not None:
            if self.audio_config is None:
                raise ValueError("audio_vision_config is set, but audio_config is None: there is no branch to train")
            _check_equal(self, "audio_vision_config.projection_dim", "audio_config.projection_dim")
        if self.encode_batch_size < 1:
            raise ValueError(f"encode_batch_size must be 1 or more, got {self.encode_batch_size}")
        placeholders = (self.image_token_id, self.video_token_id, self.audio_token_id)
        names = "image_token_id, video_token_id and audio_token_id"
        if len(set(placeholders)) != len(placeholders):
            raise ValueError(f"{names} must be three different placeholder ids, got {placeholders}")
        if max(placeholders) >= self.text_config.vocab_size:
            raise ValueError(
                f"{names}, {placeholders}, must be rows of the language model's vocabulary (text_config.vocab_size), "
                f"which has {self.text_config.vocab_size}; resize its embeddings first"
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """Checks that each part can be built and run."""
        vision, audio, standing_in = self.vision_config, self.audio_config, self.audio_vision_config
        check_grid(vision, "vision_config", ("image_size", "image_size"), vision.patch_size)
        if audio is not None:
            check_grid(audio, "audio_config", ("num_mel_bins", "num_mel_frames"), audio.patch_stride)
        if standing_in is not None:
            check_grid(standing_in, "audio_vision_config", ("image_size", "image_size"), standing_in.patch_size)
        for name in self.sub_configs:
            part = getattr(self, name)
            if part is not None and name != "text_config":  # which may have heads of another width
                check_heads(part, name)
        check_text(self.text_config, self.output_vocab_size)


def _text_config(value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    if value is None:
        return LlamaConfig(vocab_size=PADDED_LLAMA_VOCAB_SIZE)
    if isinstance(value, dict):
        values = dict(value)
        check_fields(values, "text_config")
        check_value("model_type", values.get("model_type", "llama"), MODEL_TYPE, "text_config: ")
        value = AutoConfig.for_model(values.pop("model_type", "llama"), **values)
    if type(value) not in MODEL_FOR_CAUSAL_LM_MAPPING or not hasattr(value, "vocab_size"):
        raise ValueError(
            f"text_config must be of a causal language model that AutoModelForCausalLM knows, got a "
            f"{type(value).__name__} (model_type {value.model_type!r})"
        )
    check_fields(vars(value), "text_config")
    return value


def _check_equal(config, left: str, right: str) -> None:
    values = {}
    for path in (left, right):
        values[path] = config
        for name in path.split("."):
            values[path] = getattr(values[path], name)
    if values[left] != values[right]:
        raise ValueError(f"{left} is {values[left]}, but {right} is {values[right]}: they must be equal")
