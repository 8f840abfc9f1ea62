"""The model as vLLM runs it: vLLM's Transformers backend over this package's modules."""

from collections.abc import Mapping

import torch
from transformers import BatchFeature
from vllm.model_executor.models.transformers import (
    MultiModalDummyInputsBuilder,
    MultiModalProcessingInfo,
    MultiModalProcessor,
    TransformersMultiModalForCausalLM,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.parse import MultiModalDataItems


__all__ = ["VideoLlamaForCausalLM", "VideoLlamaMultiModalProcessor"]


class VideoLlamaMultiModalProcessor(MultiModalProcessor):
    """
    Gives the engine each video on its own, without the padding that it has next to a longer one. Refuses videos that
    would stop the engine, and with it the requests of all others.
    """

    def _get_hf_mm_inputs(self, mm_items: MultiModalDataItems, hf_kwargs: Mapping[str, object]):
        inputs = super()._get_hf_mm_inputs(mm_items, hf_kwargs)
        limit = self.info.get_hf_config().video_resampler_config.max_position_embeddings
        for i, frames in enumerate(inputs.hf_data.get("videos", ())):
            if len(frames) > limit:
                raise ValueError(
                    f"video {i} has {len(frames)} frames, but the model has positions for {limit}; ask for fewer, "
                    'such as with media_io_kwargs={"video": {"num_frames": 8}}'
                )
        return inputs

    def _unpad_images(self, hf_inputs: BatchFeature) -> None:
        super()._unpad_images(hf_inputs)
        mask = hf_inputs.pop("video_frame_mask", None)
        if mask is not None:
            videos = zip(hf_inputs["pixel_values_videos"], mask, strict=True)
            hf_inputs["pixel_values_videos"] = [frames[real] for frames, real in videos]


@MULTIMODAL_REGISTRY.register_processor(
    VideoLlamaMultiModalProcessor, info=MultiModalProcessingInfo, dummy_inputs=MultiModalDummyInputsBuilder
)
class VideoLlamaForCausalLM(TransformersMultiModalForCausalLM):
    """Never answers with a placeholder: vLLM does not read `suppress_tokens` of the generation config."""

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        logits = super().compute_logits(hidden_states)
        if logits is not None and self.config.output_vocab_size is not None:
            logits[..., self.config.output_vocab_size :] = -torch.inf
        return logits
