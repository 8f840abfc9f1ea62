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
ImageBind's trunks (arXiv 2305.05665): clips of sound, or frames instead of them, -> vectors of one joint space.

Shape letters in this file: N clips or frames, S positions, D width.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_video_llama import VideoLlamaAudioConfig, VideoLlamaAudioVisionConfig


__all__ = ["VideoLlamaAudioModel", "VideoLlamaAudioVisionModel", "VideoLlamaImageBindPreTrainedModel"]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The fallback of the library's attention interface: (N, heads, S, head_dim) -> (N, S, heads, head_dim)"""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class VideoLlamaImageBindAttention(nn.Module):
    """Attention of ImageBind's trunks. With `add_bias_kv`, a learned key and value follow those of the input."""

    def __init__(self, config: VideoLlamaAudioConfig | VideoLlamaAudioVisionConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.head_dim = width // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        # CODEPATH: ImageBind's audio trunk has a learned key and value in every attention, its vision trunk has none
        self.bias_k = nn.Parameter(torch.empty(1, 1, width)) if config.add_bias_kv else None
        # CODEPATH: as above
        self.bias_v = nn.Parameter(torch.empty(1, 1, width)) if config.add_bias_kv else None

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(
            self,
            self._heads(self.q_proj(hidden_states)),
            self._heads(self.k_proj(hidden_states), self.bias_k),
            self._heads(self.v_proj(hidden_states), self.bias_v),
            attention_mask=None,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.out_proj(attended.reshape(hidden_states.shape).contiguous()), weights

    def _heads(self, states: torch.Tensor, learned: torch.Tensor | None = None) -> torch.Tensor:
        """(N, S, D) -> (N, heads, S, head_dim), with the learned row after the others if there is one."""
        if learned is not None:
            states = torch.cat((states, learned.to(states.dtype).expand(len(states), -1, -1)), dim=1)
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class VideoLlamaImageBindMLP(nn.Module):
    def __init__(self, config: VideoLlamaAudioConfig | VideoLlamaAudioVisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class VideoLlamaImageBindLayer(GradientCheckpointingLayer):
    """A pre-norm transformer block."""

    def __init__(self, config: VideoLlamaAudioConfig | VideoLlamaAudioVisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VideoLlamaImageBindAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VideoLlamaImageBindMLP(config)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), **kwargs)[0]
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class VideoLlamaImageBindPreTrainedModel(PreTrainedModel):
    """The common settings of ImageBind's trunks: first weights, and the features of the library that they support."""

    supports_gradient_checkpointing = True
    _no_split_modules = ("VideoLlamaImageBindLayer",)
    _supports_attention_backend = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoLlamaImageBindAttention):
            learned = [module.bias_k, module.bias_v]
        elif isinstance(module, VideoLlamaImageBindModel):
            learned = [module.class_embedding, module.position_embedding]
        else:
            learned = []
        for parameter in learned:
            if parameter is not None:
                init.normal_(parameter, mean=0.0, std=self.config.initializer_range)


class VideoLlamaImageBindModel(VideoLlamaImageBindPreTrainedModel):
    """
    The common parts of ImageBind's trunks: class token, positions, blocks, and the head that maps the class token
    into the joint space. A subclass builds the stem, which turns its input into patch embeddings (N, patches, D).
    """

    _can_record_outputs = {
        "hidden_states": VideoLlamaImageBindLayer,
        "attentions": OutputRecorder(VideoLlamaImageBindAttention, index=1),
    }

    def __init__(self, config: VideoLlamaAudioConfig | VideoLlamaAudioVisionConfig, num_patches: int):
        super().__init__(config)
        self.class_embedding = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.empty(1, num_patches + 1, config.hidden_size))
        self.layers = nn.ModuleList([VideoLlamaImageBindLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        self._build_stem(config)
        self.post_init()

    def _build_stem(self, config: VideoLlamaAudioConfig | VideoLlamaAudioVisionConfig) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no stem; use one of the trunks that build theirs")

    def _encode(self, patches: torch.Tensor, scale: float = 1.0, **kwargs) -> BaseModelOutputWithPooling:
        """(N, patches, D) -> last_hidden_state (N, 1 + patches, D), pooler_output (N, joint width) of norm `scale`"""
        # A device map may put these two elsewhere than the stem
        class_embedding, positions = (p.to(patches.device) for p in (self.class_embedding, self.position_embedding))
        hidden_states = torch.cat((class_embedding.expand(len(patches), -1, -1), patches), dim=1)
        hidden_states = self._embed(hidden_states + positions)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        hidden_states = self.post_layernorm(hidden_states)
        embeddings = scale * nn.functional.normalize(self.projection(hidden_states[:, 0]), dim=-1)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=embeddings)

    def _embed(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Hook for a layer between the positions and the first block."""
        return embeddings


class VideoLlamaAudioModel(VideoLlamaImageBindModel):
    """
    ImageBind's audio trunk and head: a clip of sound becomes one vector of norm `config.logit_scale`.
    """

    config: VideoLlamaAudioConfig
    config_class = VideoLlamaAudioConfig
    main_input_name = "input_features"
    input_modalities = ("audio",)

    def __init__(self, config: VideoLlamaAudioConfig):
        sides = (config.num_mel_bins, config.num_mel_frames)
        rows, columns = ((side - config.patch_size) // config.patch_stride + 1 for side in sides)
        super().__init__(config, num_patches=rows * columns)

    def _build_stem(self, config: VideoLlamaAudioConfig) -> None:
        self.patch_embedding = nn.Conv2d(
            1, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_stride, bias=False
        )
        self.stem_layernorm = nn.LayerNorm(config.hidden_size, eps=config.stem_layer_norm_eps)

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embedding

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_features: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Args:
            input_features (`torch.Tensor` of shape `(N, num_mel_bins, num_mel_frames)`, float): normalised log-mel
                spectrograms of N clips.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` (N, 1 + patches, hidden_size) and `pooler_output`
            (N, projection_dim), the clips' embeddings, of norm `logit_scale`.
        """
        features = input_features.unsqueeze(1).to(self.patch_embedding.weight.dtype)
        patches = self.stem_layernorm(self.patch_embedding(features).flatten(2).transpose(1, 2))
        return self._encode(patches, scale=self.config.logit_scale, **kwargs)


class VideoLlamaAudioVisionModel(VideoLlamaImageBindModel):
    """
    ImageBind's vision trunk and head: a frame becomes one unit vector in the space of the sounds. ImageBind shows it
    every picture twice, as a two-frame clip; the kernel here is the sum of the two temporal halves, which is the same.
    """

    config: VideoLlamaAudioVisionConfig
    config_class = VideoLlamaAudioVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config: VideoLlamaAudioVisionConfig):
        super().__init__(config, num_patches=(config.image_size // config.patch_size) ** 2)

    def _build_stem(self, config: VideoLlamaAudioVisionConfig) -> None:
        self.patch_embedding = nn.Conv2d(
            3, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size, bias=False
        )
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def get_input_embeddings(self) -> nn.Module:
        return self.patch_embedding

    def _embed(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.pre_layernorm(embeddings)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, image_size, image_size)`, float): normalised frames.

        Returns:
            [`BaseModelOutputWithPooling`]: `last_hidden_state` (N, 1 + patches, hidden_size) and `pooler_output`
            (N, projection_dim), the frames' embeddings, of norm 1.
        """
        pixels = pixel_values.to(self.patch_embedding.weight.dtype)
        return self._encode(self.patch_embedding(pixels).flatten(2).transpose(1, 2), **kwargs)
