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

"""
The network of Video-LLaMA (arXiv 2306.02858).

    frames -> vision_tower -> qformer -> video_resampler -> 32 tokens a video ─┐
    sound  -> audio_tower ------------> audio_resampler -> 8 tokens a sound ───┤ in the place of the placeholders
    text   -> embeddings of the language model ────────────────────────────────┴-> language_model -> lm_head

Shape letters in this file: B items (videos, sounds) or prompts, T steps of an item (frames or clips), N frames or
clips of all items, Q queries of the image Q-Former, R queries of a resampler, S positions, D width.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import AutoModel, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
    ModelOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import is_flash_attention_requested

from .configuration_video_llama import VideoLlamaConfig, VideoLlamaResamplerConfig
from .encoder_steps import encode_steps
from .generation_video_llama import CACHE_NAME, VideoLlamaGenerationMixin, begins_text, named_cache
from .input_checks import (
    check_autocast,
    check_labels,
    check_no_placeholders,
    check_pixels,
    check_spectrograms,
    check_step_mask,
    check_steps,
)
from .messages import ITEM_ARGUMENTS, group_inputs
from .modeling_imagebind import VideoLlamaAudioModel, VideoLlamaAudioVisionModel


__all__ = [
    "VideoLlamaCausalLMOutputWithPast",
    "VideoLlamaForConditionalGeneration",
    "VideoLlamaMediaOutput",
    "VideoLlamaModel",
    "VideoLlamaModelOutputWithPast",
    "VideoLlamaPreTrainedModel",
    "VideoLlamaResampler",
    "VideoLlamaVisionModel",
]

# Norm after EVA-ViT-g. The library's BLIP-2 gives it the epsilon of the blocks (1e-6); the released weights were
# trained with torch's default.
POST_LAYERNORM_EPS = 1e-5


@dataclass
class VideoLlamaMediaOutput(ModelOutput):
    """
    What an output has besides that of the language model: the outputs of the encoders of every modality.

    Args:
        image_outputs, video_outputs, audio_outputs (`BaseModelOutputWithPooling`, *optional*): What
            [`~VideoLlamaModel.get_image_features`] and its siblings returned. `None` for a modality without items.

    Properties:
        image_hidden_states, video_hidden_states, audio_hidden_states (`torch.Tensor` of shape `(items, R, text hidden
            size)`, *optional*): The features that took the placeholders' places, the `pooler_output` of the above.
    """

    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None
    audio_outputs: BaseModelOutputWithPooling | None = None

    @property
    def image_hidden_states(self) -> torch.Tensor | None:
        return _pooled(self.image_outputs)

    @property
    def video_hidden_states(self) -> torch.Tensor | None:
        return _pooled(self.video_outputs)

    @property
    def audio_hidden_states(self) -> torch.Tensor | None:
        return _pooled(self.audio_outputs)

    def to_tuple(self) -> tuple:
        """All that is not `None`, with the outputs of encoders as tuples, too."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


@dataclass
class VideoLlamaModelOutputWithPast(VideoLlamaMediaOutput, BaseModelOutputWithPast):
    """
    Output of [`VideoLlamaModel`]: that of the language model, with the cache under the name that the installed
    version of the library has for it (`cache`, or `past_key_values` before 5.24), and [`VideoLlamaMediaOutput`].
    """


@dataclass
class VideoLlamaCausalLMOutputWithPast(VideoLlamaMediaOutput, CausalLMOutputWithPast):
    """
    Output of [`VideoLlamaForConditionalGeneration`]: as [`VideoLlamaModelOutputWithPast`], with `loss` and `logits`
    instead of `last_hidden_state`.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Next-token loss, given `labels`.
        logits (`torch.Tensor` of shape `(B, S or logits_to_keep, output_vocab_size)`): The logits of the tokens that
            can be predicted; placeholders and padding rows of the vocabulary have none.
    """


class VideoLlamaPreTrainedModel(PreTrainedModel):
    """What the two models have in common: how weights begin, and what of the library works with them."""

    config: VideoLlamaConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("VideoLlamaImageBindLayer", "VideoLlamaResampler", "Blip2QFormerLayer")
    _skip_keys_device_placement = ("cache", "past_key_values")
    _supports_attention_backend = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoLlamaResampler | VideoLlamaModel):
            init.normal_(module.query_tokens, mean=0.0, std=self.config.initializer_range)


class VideoLlamaVisionModel(Blip2VisionModel):
    """EVA-ViT-g of BLIP-2, with the epsilon that the released weights' last norm was trained with."""

    def __init__(self, config: Blip2VisionConfig):
        super().__init__(config)
        self.post_layernorm.eps = POST_LAYERNORM_EPS


class VideoLlamaQFormerModel(Blip2QFormerModel):
    """
    BLIP-2's Q-Former, open to flash attention. BLIP-2 keeps its own in fp32, which rules flash attention out; here
    the Q-Formers have the dtype of the model.
    """

    _supports_flash_attn = True


class VideoLlamaResampler(nn.Module):
    """
    Fuses the steps of an item, the frames of a video or the clips of a sound track, into a fixed number of tokens in
    the language model's space: learned positions, learned queries that attend to all steps, and a projection.

    Args:
        config ([`VideoLlamaResamplerConfig`])
        output_size (`int`): Width of the language model's embeddings.
    """

    def __init__(self, config: VideoLlamaResamplerConfig, output_size: int):
        super().__init__()
        self.config = config
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.encoder_hidden_size)
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, config.hidden_size))
        self.qformer = VideoLlamaQFormerModel._from_config(config)
        self.projection = nn.Linear(config.hidden_size, output_size)

    def forward(self, steps: torch.Tensor, step_mask: torch.Tensor | None = None) -> BaseModelOutputWithPooling:
        """
        Args:
            steps (`torch.Tensor` of shape `(B, T, tokens per step, encoder_hidden_size)`): features of the steps.
            step_mask (`torch.Tensor` of shape `(B, T)`, bool, *optional*): `True` for real steps; padding may stand
                before or after them. All are real by default.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` (B, R, hidden_size) of the Q-Former and
            `pooler_output` (B, R, output_size).

        Raises:
            ValueError: where an item has no real step, or more steps than the position table has rows.
        """
        check_step_mask(steps, step_mask, "step_mask", "item", "step")
        precision = self._precision_for_flash_attention(steps)
        steps = steps.to(self.query_tokens.dtype)  # a branch that is trained may be kept in a wider type
        num_steps, limit = steps.shape[1], self.config.max_position_embeddings
        if num_steps > limit:
            raise ValueError(
                f"got {num_steps} frames or clips in one item, but the position table has {limit} rows; "
                f"sample at most {limit}"
            )
        if step_mask is None:
            positions = torch.arange(num_steps, device=steps.device)[None]
        else:  # counted from the first real step
            positions = (step_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        steps = steps + self.position_embedding(positions).unsqueeze(2)
        with precision:
            if step_mask is not None and is_flash_attention_requested(self.config):
                hidden_states = self._fuse_by_length(steps, step_mask)
            else:
                hidden_states = self._fuse(steps, step_mask)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=self.projection(hidden_states)
        )

    def _precision_for_flash_attention(self, steps: torch.Tensor) -> AbstractContextManager:
        """
        Flash attention has no kernels for float32, so a branch that is kept in it, for training, attends in the half
        precision of the rest of the model: that of its input, or the one that the model was loaded in.
        """
        device_type, half = steps.device.type, (torch.float16, torch.bfloat16)
        dtype = next((dtype for dtype in (steps.dtype, self.config.dtype) if dtype in half), None)
        if (
            dtype is None
            or self.query_tokens.dtype != torch.float32
            or not is_flash_attention_requested(self.config)
            or torch.is_autocast_enabled(device_type)
        ):
            return nullcontext()
        return torch.autocast(device_type, dtype)

    def _fuse(self, steps: torch.Tensor, step_mask: torch.Tensor | None = None) -> torch.Tensor:
        if step_mask is not None:
            step_mask = step_mask.repeat_interleave(steps.shape[2], dim=1)  # (B, T * tokens per step)
        return self.qformer(
            query_embeds=self.query_tokens.expand(len(steps), -1, -1),
            encoder_hidden_states=steps.flatten(1, 2),
            encoder_attention_mask=step_mask,
        ).last_hidden_state

    def _fuse_by_length(self, steps: torch.Tensor, step_mask: torch.Tensor) -> torch.Tensor:
        """The library's flash attention has no mask for keys alone, so items of one length go through together."""
        step_mask = step_mask.bool()
        lengths = step_mask.sum(dim=1)
        hidden_states = steps.new_empty(len(steps), self.config.num_query_tokens, self.config.hidden_size)
        for length in lengths.unique().tolist():
            rows = lengths == length
            real = steps[rows][step_mask[rows]].unflatten(0, (-1, length))
            hidden_states[rows] = self._fuse(real)
        return hidden_states


class VideoLlamaModel(VideoLlamaPreTrainedModel):
    """
    The encoders and the language model without its head. See [`VideoLlamaConfig`] for the parts that may be absent.
    """

    def __init__(self, config: VideoLlamaConfig):
        super().__init__(config)
        width = config.text_config.hidden_size
        self.vision_tower = VideoLlamaVisionModel._from_config(config.vision_config)
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, config.qformer_config.hidden_size))
        self.qformer = VideoLlamaQFormerModel._from_config(config.qformer_config)
        self.video_resampler = VideoLlamaResampler(config.video_resampler_config, width)
        self.audio_tower = self.audio_vision_tower = self.audio_resampler = None
        # CODEPATH: the released checkpoints of the vision-language branch alone have no audio branch
        if config.audio_config is not None:
            self.audio_tower = VideoLlamaAudioModel._from_config(config.audio_config)
            self.audio_resampler = VideoLlamaResampler(config.audio_resampler_config, width)
        # CODEPATH: checkpoints to train the audio branch from have the trunk that frames go through; others have none
        if config.audio_vision_config is not None:
            self.audio_vision_tower = VideoLlamaAudioVisionModel._from_config(config.audio_vision_config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def train(self, mode: bool = True):
        """
        As torch's, but encoders and branches that are frozen as a whole stay in evaluation mode, as in the original:
        frozen parts have no dropout. The language model follows `mode`, since its checkpointing asks for it.
        """
        super().train(mode)
        for name, part in self.named_children():
            if name != "language_model" and not _is_trained(part):
                part.eval()
        return self

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor | None = None,
        image_frame_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Encodes images, each as a video of one frame. Like its siblings it accepts, and does not use, the other
        keywords that engines pass along.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, 3, H, W)`, float, *optional*): normalised images.
            image_frame_features (`torch.Tensor` of shape `(images, Q, image Q-Former width)`, float, *optional*):
                their features from [`~VideoLlamaModel.get_frame_features`]. Exactly one of the two must be given.

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output` (images, R, text hidden size), the input of the language
            model, and `last_hidden_state` (images, R, resampler width).

        Raises:
            ValueError: for pixels of another shape than the vision tower takes.
        """
        given = {"pixel_values": pixel_values, "image_frame_features": image_frame_features}
        shapes = ("(images, 3, H, W)", "(images, Q, D)")
        for (name, images), shape in zip(given.items(), shapes, strict=True):
            if images is not None and images.ndim != shape.count(",") + 1:
                raise ValueError(f"{name} of images must have shape {shape}, got {tuple(images.shape)}")
        pixels, features = (None if images is None else images.unsqueeze(1) for images in given.values())
        return self.get_video_features(pixels, video_frame_features=features, return_dict=True, **kwargs)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        video_frame_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Encodes videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(videos, T, 3, H, W)`, float, *optional*): normalised frames.
            video_frame_mask (`torch.Tensor` of shape `(videos, T)`, bool, *optional*): which frames are real, and not
                padding. All are by default.
            video_frame_features (`torch.Tensor` of shape `(videos, T, Q, image Q-Former width)`, float, *optional*):
                from [`~VideoLlamaModel.get_frame_features`] for the frames. Exactly one of the two must be given.

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output` (videos, R, text hidden size), the input of the language
            model, and `last_hidden_state` (videos, R, resampler width). With `output_hidden_states=True` or
            `output_attentions=True` also those of the vision tower, for the real frames of all videos.

        Raises:
            ValueError: for pixels of another shape than the vision tower takes, more frames than positions, or a
                video without a real frame.
        """
        if (pixel_values_videos is None) == (video_frame_features is None):
            raise ValueError("exactly one of pixels and frame features must be given")
        if video_frame_features is not None:
            check_steps(video_frame_features, self.config.num_query_tokens, self.config.qformer_config.hidden_size)
            check_step_mask(video_frame_features, video_frame_mask, "video_frame_mask", "video", "frame")
            seen = BaseModelOutputWithPooling(pooler_output=video_frame_features)
        else:
            check_pixels(pixel_values_videos, self.config.vision_config.image_size)
            check_step_mask(pixel_values_videos, video_frame_mask, "video_frame_mask", "video", "frame")
            encode = partial(self._encode_frames, **_recorded(kwargs))
            seen = encode_steps(encode, pixel_values_videos, video_frame_mask, self._at_once(self.vision_tower))
        fused = self.video_resampler(seen.pooler_output, video_frame_mask)
        fused.hidden_states, fused.attentions = seen.hidden_states, seen.attentions
        return fused

    def get_frame_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        The features of single frames from the frozen encoders: the vision tower and the image Q-Former. They are the
        same in every stage of training, so they can be computed once.

        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, H, W)`, float): normalised frames.

        Returns:
            `torch.Tensor` of shape `(N, Q, image Q-Former width)`.
        """
        features: torch.Tensor = self._encode_frames(pixel_values).pooler_output
        return features

    def _encode_frames(self, pixel_values: torch.Tensor, **recorded: bool) -> BaseModelOutputWithPooling:
        """The vision tower's output for frames (N, 3, H, W), with the image Q-Former's as `pooler_output` (N, Q, D)"""
        trained = _is_trained(self.vision_tower) or _is_trained(self.qformer) or self.query_tokens.requires_grad
        with _autograd_where_needed(trained, pixel_values):
            seen = self.vision_tower(pixel_values, return_dict=True, **recorded)
            patches = seen.last_hidden_state
            seen.pooler_output = self.qformer(
                query_embeds=self.query_tokens.expand(len(patches), -1, -1).to(patches.device),
                encoder_hidden_states=patches,
            ).last_hidden_state
        return seen

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        audio_clip_mask: torch.Tensor | None = None,
        audio_pixel_values: torch.Tensor | None = None,
        audio_clip_features: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Encodes sound tracks, or frames instead of them: the audio branch is trained in this way.

        Args:
            input_features (`torch.Tensor` of shape `(sounds, T, mel bins, mel frames)`, float, *optional*):
                normalised log-mel spectrograms of the clips of each sound.
            audio_clip_mask (`torch.Tensor` of shape `(sounds, T)`, bool, *optional*): which clips (or frames) are
                real, and not padding. All are by default.
            audio_pixel_values (`torch.Tensor` of shape `(sounds, T, 3, H, W)`, float, *optional*): normalised frames,
                for ImageBind's vision trunk.
            audio_clip_features (`torch.Tensor` of shape `(sounds, T, projection_dim)`, float, *optional*): the
                `pooler_output` of one of ImageBind's trunks for the clips or frames. Exactly one of the three inputs
                must be given.

        Returns:
            [`BaseModelOutputWithPooling`]: `pooler_output` (sounds, R, text hidden size), the input of the language
            model, and `last_hidden_state` (sounds, R, resampler width). With `output_hidden_states=True` or
            `output_attentions=True` also those of the trunk of ImageBind, for the real clips of all sounds.

        Raises:
            ValueError: where the model lacks the branch or the trunk that is asked for, where several inputs or none
                are given, for other shapes than the trunk takes, more steps than positions, or a sound without a real
                clip.
        """
        if sum(given is not None for given in (input_features, audio_pixel_values, audio_clip_features)) != 1:
            raise ValueError("exactly one of input_features, audio_pixel_values and audio_clip_features must be given")
        if self.audio_tower is None:
            raise ValueError(
                "this checkpoint has no audio branch (config.audio_config is None), so it cannot take sound; convert "
                "the original with its AL_*.pth and imagebind_huge.pth, and without --no-audio"
            )
        if audio_clip_features is not None:
            check_steps(audio_clip_features.unsqueeze(2), 1, self.config.audio_config.projection_dim)
            check_step_mask(audio_clip_features, audio_clip_mask, "audio_clip_mask", "sound", "clip")
            heard = BaseModelOutputWithPooling(pooler_output=audio_clip_features)
        else:
            heard = self._embed_clips(input_features, audio_pixel_values, audio_clip_mask, **_recorded(kwargs))
        fused = self.audio_resampler(heard.pooler_output.unsqueeze(2), audio_clip_mask)
        fused.hidden_states, fused.attentions = heard.hidden_states, heard.attentions
        return fused

    def _embed_clips(
        self,
        input_features: torch.Tensor | None,
        pixels: torch.Tensor | None,
        mask: torch.Tensor | None,
        **recorded: bool,
    ) -> BaseModelOutputWithPooling:
        """Clips or frames (B, T, ...) -> `pooler_output` in ImageBind's joint space (B, T, projection_dim)"""
        if input_features is not None:
            audio = self.config.audio_config
            check_spectrograms(input_features, audio.num_mel_bins, audio.num_mel_frames)
            steps, tower = input_features, self.audio_tower
        else:
            if self.audio_vision_tower is None:
                raise ValueError(
                    "this checkpoint lacks ImageBind's vision trunk (config.audio_vision_config is None), which "
                    "audio_pixel_values need; convert the original with --with-imagebind-vision"
                )
            check_pixels(pixels, self.config.audio_vision_config.image_size)
            steps, tower = pixels, self.audio_vision_tower
        check_step_mask(steps, mask, "audio_clip_mask", "sound", "clip")
        with _autograd_where_needed(_is_trained(tower), steps):
            encode = partial(tower, return_dict=True, **recorded)
            return encode_steps(encode, steps, mask, self._at_once(tower))

    def _at_once(self, part: nn.Module) -> int | None:
        """
        How many frames or clips go through a part at once; `None` for all. DeepSpeed's ZeRO-3 gathers the weights of a
        part in each call, and so all processes must make equally many, however many frames they have.
        """
        # CODEPATH: parameters that ZeRO-3 shares out have an identifier; no others do
        if not torch.compiler.is_compiling() and hasattr(next(part.parameters()), "ds_id"):
            return None
        return self.config.encode_batch_size

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        features: torch.Tensor,
        modality: str,
    ) -> torch.Tensor:
        """
        Finds the placeholders of one modality.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`, *optional*): `None` if only embeddings are known; they
                are then compared with the placeholder's embedding.
            inputs_embeds (`torch.Tensor` of shape `(B, S, D)`, *optional*): Not needed if `input_ids` are given.
            features (`torch.Tensor` of shape `(items, R, D)`): the features that are to take their places.
            modality (`str`): "image", "video" or "audio".

        Returns:
            `torch.Tensor` of shape `(B, S, 1)`, bool.

        Raises:
            ValueError: if placeholders and features are not equally many; the message has both counts.
        """
        token_id = getattr(self.config, f"{modality}_token_id")
        if input_ids is None:
            token = torch.full((), token_id, dtype=torch.long, device=inputs_embeds.device)
            mask = (inputs_embeds == self.get_input_embeddings()(token)).all(-1)
        else:
            mask = input_ids == token_id
        num_features = features.shape[0] * features.shape[1]
        # A compiled graph cannot depend on the count without a break; a mismatch ends in the scatter's own error there
        if not torch.compiler.is_compiling() and (num_tokens := int(mask.sum())) != num_features:
            raise ValueError(
                f"{modality.capitalize()} features and {modality} tokens do not match, tokens: {num_tokens}, "
                f"features: {num_features} ({features.shape[0]} items of {features.shape[1]})"
            )
        return mask.unsqueeze(-1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_clip_mask: torch.Tensor | None = None,
        audio_pixel_values: torch.Tensor | None = None,
        image_frame_features: torch.Tensor | None = None,
        video_frame_features: torch.Tensor | None = None,
        audio_clip_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | VideoLlamaModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, S)`, *optional*): Tokens, with as many placeholders in a row as
                each item has features. Exactly one of `input_ids` and `inputs_embeds` must be given.
            pixel_values (`torch.Tensor` of shape `(images, 3, H, W)`, *optional*): of all prompts, in their order.
            image_frame_features (*optional*): see [`~VideoLlamaModel.get_image_features`].
            pixel_values_videos, video_frame_mask, video_frame_features (*optional*): see
                [`~VideoLlamaModel.get_video_features`].
            input_features, audio_clip_mask, audio_pixel_values, audio_clip_features (*optional*): see
                [`~VideoLlamaModel.get_audio_features`].
            attention_mask (`torch.Tensor` of shape `(B, S)`, *optional*): 0 for padding.
            position_ids (`torch.LongTensor` of shape `(B, S)`, *optional*)
            past_key_values, cache (`Cache`, *optional*): Two names of one thing; every version of the library knows
                one of them, this model both.
            inputs_embeds (`torch.Tensor` of shape `(B, S, D)`, *optional*)
            mm_encoder_outputs (`dict` from "image", "video", "audio" to outputs of `get_*_features`, *optional*):
                Features computed before, used instead of pixels or sound of that modality. Not changed.

        Returns:
            [`VideoLlamaModelOutputWithPast`]

        Raises:
            ValueError: where raw input and features of one modality are both given, where placeholders and features
                are not equally many, where two caches are given, for weights in float16 under autocast in bfloat16 on
                a CPU or the other way round, and as the `get_*_features`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds must be given")
        check_autocast(self.get_input_embeddings().weight)
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        given = {
            "pixel_values": pixel_values,
            "image_frame_features": image_frame_features,
            "pixel_values_videos": pixel_values_videos,
            "video_frame_mask": video_frame_mask,
            "video_frame_features": video_frame_features,
            "input_features": input_features,
            "audio_clip_mask": audio_clip_mask,
            "audio_pixel_values": audio_pixel_values,
            "audio_clip_features": audio_clip_features,
        }
        # Single layers, which the library lets callers choose, are those of the language model
        recorded = {name: True for name, wanted in _recorded(kwargs).items() if wanted is True}
        encoded = self._encoded(given, mm_encoder_outputs or {}, **recorded)
        caches = named_cache(past_key_values, cache)
        if input_ids is not None and not torch.compiler.is_compiling() and begins_text(input_ids, caches[CACHE_NAME]):
            check_no_placeholders(input_ids, encoded, self.config)
        for modality, media in encoded.items():
            states = _pooled(media)
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, states, modality)
            states = states.to(inputs_embeds.device, inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter(mask.to(inputs_embeds.device), states)

        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **caches,
            **kwargs,
        )
        return VideoLlamaModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
            **{f"{modality}_outputs": media for modality, media in encoded.items()},
        )

    def _encoded(self, inputs: dict, computed: dict, **recorded: bool) -> dict[str, BaseModelOutputWithPooling]:
        """What there is of each modality that there are items of, from raw inputs or computed before."""
        encoded = {modality: output for modality, output in computed.items() if output is not None}
        for modality, given in group_inputs(inputs).items():
            if modality in encoded:
                (name, *_) = [name for name in ITEM_ARGUMENTS[modality] if given[name] is not None]
                raise ValueError(f"{name} and mm_encoder_outputs[{modality!r}] cannot both be given")
            encoded[modality] = getattr(self, f"get_{modality}_features")(**given, return_dict=True, **recorded)
        return encoded


class VideoLlamaForConditionalGeneration(VideoLlamaPreTrainedModel, VideoLlamaGenerationMixin):
    """Video-LLaMA with its language modelling head: loss, `generate`, and the features of [`VideoLlamaModel`]."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: VideoLlamaConfig):
        super().__init__(config)
        self.model = VideoLlamaModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The head, of all rows of the vocabulary."""
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]):
        """See [`VideoLlamaModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ):
        """See [`VideoLlamaModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, video_frame_mask, **kwargs)

    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        audio_clip_mask: torch.Tensor | None = None,
        audio_pixel_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ):
        """See [`VideoLlamaModel.get_audio_features`]."""
        return self.model.get_audio_features(input_features, audio_clip_mask, audio_pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        audio_clip_mask: torch.Tensor | None = None,
        audio_pixel_values: torch.Tensor | None = None,
        image_frame_features: torch.Tensor | None = None,
        video_frame_features: torch.Tensor | None = None,
        audio_clip_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        cache: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | VideoLlamaCausalLMOutputWithPast:
        """
        In addition to the arguments of [`VideoLlamaModel.forward`]:

        Args:
            labels (`torch.LongTensor` of shape `(B, S)`, *optional*): Tokens to predict, not shifted; -100 for tokens
                without loss.
            logits_to_keep (`int` or `torch.Tensor`, defaults to 0): How many of the last positions get logits, or
                which positions; 0 is all.
            kwargs: The rest goes to the language model and, such as `num_items_in_batch`, to the loss function.

        Returns:
            [`VideoLlamaCausalLMOutputWithPast`]

        Raises:
            ValueError: as [`VideoLlamaModel.forward`], and for labels that are neither -100 nor below
                `output_vocab_size`, such as those of placeholders.
        """
        if labels is not None:
            check_labels(labels, self.config, kwargs.get("ignore_index", -100))
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            pixel_values_videos=pixel_values_videos,
            video_frame_mask=video_frame_mask,
            input_features=input_features,
            audio_clip_mask=audio_clip_mask,
            audio_pixel_values=audio_pixel_values,
            image_frame_features=image_frame_features,
            video_frame_features=video_frame_features,
            audio_clip_features=audio_clip_features,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            cache=cache,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])[..., : self.config.output_vocab_size]
        loss = None
        if labels is not None:
            if isinstance(items := kwargs.pop("num_items_in_batch", None), torch.Tensor):
                items = items.clamp(min=1)  # a step of masked tokens alone has the loss 0, not 0 / 0
            loss = self.loss_function(logits, labels, logits.shape[-1], num_items_in_batch=items, **kwargs)
        return VideoLlamaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_outputs=outputs.image_outputs,
            video_outputs=outputs.video_outputs,
            audio_outputs=outputs.audio_outputs,
            **{CACHE_NAME: getattr(outputs, CACHE_NAME)},
        )


def _pooled(outputs: BaseModelOutputWithPooling | None) -> torch.Tensor | None:
    """The features (items, R, D) of an encoder's output, which engines may have split by item."""
    features = None if outputs is None else outputs.pooler_output
    return features if features is None or isinstance(features, torch.Tensor) else torch.stack(list(features))


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _autograd_where_needed(trained: bool, inputs: torch.Tensor):
    """
    Keeps a frozen encoder out of autograd, which would store its activations as soon as a hook makes its embeddings
    require gradients, as the library's checkpointing with adapters does.
    """
    return torch.set_grad_enabled(torch.is_grad_enabled() and (trained or inputs.requires_grad))


def _recorded(kwargs: dict) -> dict[str, bool]:
    """The keywords that ask for an encoder's inner states; other keywords of engines are not meant for it."""
    return {name: kwargs[name] for name in ("output_hidden_states", "output_attentions") if name in kwargs}
