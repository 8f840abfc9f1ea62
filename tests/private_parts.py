"""
The private parts of other packages that this one overrides or reads: each is a debt, and stands here. A release that
moves one fails in `test_private_parts.py`, with the reason why it is needed.
"""

import importlib
import inspect
from dataclasses import dataclass
from typing import Any


__all__ = ["PRIVATE_PARTS", "PrivatePart", "fault_of"]


@dataclass(frozen=True)
class PrivatePart:
    """
    Attributes:
        package (`str`): What must be installed for it to be there.
        path (`str`): Module, names in it, and at the end the private name.
        why (`str`)
        parameters (`tuple` of `str`, *optional*): Names of a function's parameters, as it is called or overridden
            here. `None`: it is not a function.
    """

    package: str
    path: str
    why: str
    parameters: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The part of the path that is private: the last, or a module's in its middle."""
        return next(name for name in reversed(self.path.split(".")) if name.startswith("_"))


def _of_models(name: str, why: str, parameters: tuple[str, ...] | None = None) -> PrivatePart:
    return PrivatePart("transformers", f"transformers.PreTrainedModel.{name}", why, parameters)


def _of_generation(name: str, why: str, *parameters: str) -> PrivatePart:
    return PrivatePart("transformers", f"transformers.GenerationMixin.{name}", why, ("self", *parameters))


def _of_processors(name: str, why: str, *parameters: str) -> PrivatePart:
    return PrivatePart("transformers", f"transformers.ProcessorMixin.{name}", why, ("self", *parameters, "kwargs"))


def _of_torch(path: str, why: str, parameters: tuple[str, ...] | None = None) -> PrivatePart:
    return PrivatePart("torch", f"torch.{path}", why, parameters)


def _of_trl(path: str, why: str, *parameters: str) -> PrivatePart:
    return PrivatePart("trl", f"trl.{path}", why, ("self", *parameters))


def _of_vllm(name: str, why: str, *parameters: str) -> PrivatePart:
    path = f"vllm.model_executor.models.transformers.MultiModalProcessor.{name}"
    return PrivatePart("vllm", path, why, ("self", *parameters))


PRIVATE_PARTS = (
    _of_models("_from_config", "parts are built with the attention and the dtype of the whole", ("config", "kwargs")),
    _of_models(
        "_init_weights", "learned queries, and ImageBind's layers, begin as the original's", ("self", "module")
    ),
    _of_models("_no_split_modules", "`device_map` keeps a layer on one device"),
    _of_models("_skip_keys_device_placement", "`device_map` does not move the cache"),
    _of_models("_supports_attention_backend", "says that attention goes through the library's interface"),
    _of_models("_supports_flash_attn", "says so, of the Q-Formers too"),
    _of_models("_supports_sdpa", "says so"),
    _of_models("_supports_flex_attn", "says so"),
    _of_models("_can_compile_fullgraph", "`generate` compiles the decoding with a static cache"),
    _of_models("_can_record_outputs", "ImageBind's inner states are recorded by the library's hooks"),
    _of_models("_tied_weights_keys", "a language model may tie its head to its embeddings"),
    _of_models("_tp_plan", "the head is cut for tensor parallelism"),
    _of_models("_keys_to_ignore_on_load_unexpected", "weights that a model of the library leaves out when it loads"),
    _of_models("_keys_to_ignore_on_save", "a checkpoint of training has no frozen weights"),
    PrivatePart(
        "transformers",
        "transformers.PreTrainedConfig._attn_implementation",
        "which function of the library's interface computes attention; models of the library read it",
    ),
    _of_generation(
        "_prepare_multimodal_encoder_kwargs_for_generation",
        "the library's encodes ahead neither sound nor features of frames",
        "model_kwargs",
    ),
    _of_generation(
        "_expand_multimodal_outputs",
        "the library's counts no sound when it repeats items for beams",
        "input_ids",
        "mm_encoder_output",
        "expand_size",
        "inputs_embeds",
    ),
    _of_generation(
        "_get_stopping_criteria",
        "answers end at a run of tokens that `stop_strings` cannot name",
        "generation_config",
        "stopping_criteria",
        "tokenizer",
    ),
    _of_processors("_process_images", "an item's placeholders are counted where its pixels are made", "images"),
    _of_processors("_process_videos", "as above, and videos are given opened", "videos"),
    _of_processors("_process_audio", "as above, and sounds have rates of their own", "audio"),
    PrivatePart(
        "transformers",
        "transformers.processing_utils.ProcessingKwargs._defaults",
        "defaults of a processor's keywords; the public way begins with transformers 5.23",
    ),
    PrivatePart(
        "transformers",
        "transformers.LlavaProcessor._get_num_multimodal_tokens",
        "vLLM asks processors of the library, and ours, how many placeholders an item has",
        ("self", "image_sizes", "kwargs"),
    ),
    PrivatePart(
        "transformers",
        "transformers.video_processing_utils.BaseVideoProcessor._preprocess",
        "videos of several lengths become one tensor with a mask",
        (
            *("self", "videos", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale"),
            *("rescale_factor", "do_normalize", "image_mean", "image_std", "return_tensors", "kwargs"),
        ),
    ),
    _of_torch(
        "utils._python_dispatch.is_traceable_wrapper_subclass",
        "finds the parts of a quantised tensor, whose bytes are counted",
        ("t",),
    ),
    _of_torch("utils._python_dispatch.TorchDispatchMode", "benchmarks count the bytes that are alive"),
    _of_torch("utils._pytree.tree_iter", "as above", ("tree", "is_leaf")),
    _of_torch("_subclasses.fake_tensor.FakeTensorMode", "benchmarks count the bytes of the large model without them"),
    _of_torch("UntypedStorage._cdata", "tells storages of tensors without data apart"),
    _of_trl(
        "DPOTrainer._prepare_dataset",
        "TRL's opens all media to tokenise the prompts, and keeps only the tokens",
        *("dataset", "processing_class", "args", "dataset_name"),
    ),
    _of_trl(
        "GRPOTrainer._tokenize_prompts", "the media of a prompt are opened once, and kept for the loss", "prompts"
    ),
    _of_trl("GRPOTrainer._generate_and_score_completions", "the media go with their answers to the loss", "inputs"),
    _of_trl(
        "GRPOTrainer._get_per_token_logps_and_entropies",
        "TRL's gives the model images alone",
        *("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"),
        *("compute_aux_loss", "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask"),
        *("spatial_shapes", "num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
    ),
    _of_vllm("_get_hf_mm_inputs", "a video with too many frames would stop the engine", "mm_items", "hf_kwargs"),
    _of_vllm("_unpad_images", "a video is encoded without the padding of a longer one", "hf_inputs"),
)


def fault_of(part: PrivatePart) -> str | None:
    """What does not hold of it in the installed version of its package, and what it is needed for."""
    try:
        found = _resolve(part.path)
    except AttributeError as error:
        return f"{part.path} is gone ({error}); it was needed because: {part.why}"
    if part.parameters is None:
        return None
    parameters = tuple(inspect.signature(found).parameters)
    if parameters == part.parameters:
        return None
    return f"{part.path} takes {parameters}, not {part.parameters}; it is needed because: {part.why}"


def _resolve(path: str) -> Any:
    """The object of that path: its module is the longest part of it that can be imported."""
    names = path.split(".")
    found = importlib.import_module(names[0])
    for i, name in enumerate(names[1:], start=2):
        if not hasattr(found, name) and inspect.ismodule(found):
            try:
                importlib.import_module(".".join(names[:i]))
            except ModuleNotFoundError as error:
                raise AttributeError(str(error)) from error
        found = getattr(found, name)
    return found
