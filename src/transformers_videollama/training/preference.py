"""
Video-LLaMA in TRL's trainers of preferences (DPO) and of rewards (GRPO). By themselves these know images alone: the
loss would not see videos and sounds.

Needs the extra `train`: `pip install 'transformers-videollama[train]'`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..processing_video_llama import VideoLlamaProcessor
from .collator import join_items
from .prompts import OpenedPrompt, VideoLlamaPreferenceCollator, open_prompt, prompt_of


try:
    from trl import DPOTrainer, GRPOTrainer
except ImportError as error:
    raise ImportError("DPO and GRPO need TRL: pip install 'transformers-videollama[train]'") from error

__all__ = ["VideoLlamaDPOTrainer", "VideoLlamaGRPOTrainer", "VideoLlamaPreferenceCollator"]

Rows = Sequence[Mapping[str, torch.Tensor]]
IMAGE_COLUMNS = ("image", "images")  # which TRL would put into the prompts itself


class VideoLlamaDPOTrainer(DPOTrainer):
    """
    TRL's `DPOTrainer` for rows with images, videos and sounds, in any mixture: the collator opens the media of a row
    when its turn has come. The model and the reference model, or the log probabilities that are computed ahead, see
    the same.

    Args:
        model: A Video-LLaMA, as TRL takes it.
        args (`trl.DPOConfig`): With `remove_unused_columns=False`.
        processing_class ([`VideoLlamaProcessor`])
        data_collator (*optional*): [`VideoLlamaPreferenceCollator`] with `args.max_length` by default.
        kwargs: The other arguments of `trl.DPOTrainer`, such as `train_dataset`, whose rows have `prompt`, `chosen`,
            `rejected`; `ref_model`; `peft_config`.

    Raises:
        ValueError: for settings with which the media would not be seen.
    """

    def __init__(
        self,
        model: Any,
        *,
        args: Any,
        processing_class: VideoLlamaProcessor,
        data_collator: Callable | None = None,
        **kwargs: Any,
    ):
        _check_settings(args, remove_unused_columns=False, truncation_mode="keep_start", pad_to_multiple_of=None)
        if data_collator is None:
            data_collator = VideoLlamaPreferenceCollator(processing_class, max_length=args.max_length)
        super().__init__(model, args=args, processing_class=processing_class, data_collator=data_collator, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """The rows as they are. TRL would open all media to tokenise the prompts, and keep only the tokens."""
        return dataset

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return _with_gradient(super().compute_loss(*args, **kwargs))


class VideoLlamaGRPOTrainer(GRPOTrainer):
    """
    TRL's `GRPOTrainer` for prompts with images, videos and sounds, in any mixture. The media of a prompt are opened
    once, for all answers to it; the answers, their log probabilities and those of the reference model are computed
    from the same tensors.

    Args:
        model: A Video-LLaMA, as TRL takes it.
        args (`trl.GRPOConfig`)
        processing_class ([`VideoLlamaProcessor`])
        kwargs: The other arguments of `trl.GRPOTrainer`, such as `reward_funcs`; `train_dataset`, whose rows have
            `prompt`, a list of messages; `peft_config`.

    Raises:
        ValueError: for settings with which the media would not be seen, and a prompt style whose answers end in
            another way than TRL knows.
    """

    def __init__(self, model: Any, *, args: Any, processing_class: VideoLlamaProcessor, **kwargs: Any):
        _check_settings(args, use_vllm=False)
        if refused := [name for name in ("tools", "environment_factory", "rollout_func") if kwargs.get(name)]:
            raise ValueError(f"got {', '.join(refused)}, with which the loss would not see the media; leave them out")
        if processing_class.stop_string is not None:
            raise ValueError(
                f"answers of this prompt style end in {processing_class.stop_string!r}, where TRL expects the end "
                f"token {processing_class.tokenizer.eos_token!r}; use a checkpoint of Video-LLaMA-2"
            )
        self._media: Rows = ()  # the items of the prompts that are worked on
        super().__init__(model, args=args, processing_class=processing_class, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, Any]:
        rows = [
            {**{name: value for name, value in row.items() if name not in IMAGE_COLUMNS}, "prompt": prompt_of(row)}
            for row in inputs
        ]
        scored = super()._generate_and_score_completions(rows)
        return {**scored, "media": list(self._media)}  # a list of rows, which TRL shuffles and cuts like the others

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict[str, torch.Tensor]]:
        """(tokens, no images for TRL to put in, the items as arguments of `generate`) of prompts, opened once each."""
        processor: Any = self.processing_class
        options: Any = self.chat_template_kwargs
        opened: dict[str, OpenedPrompt] = {}
        keys = [json.dumps(prompt, default=id) for prompt in prompts]
        for key, prompt in zip(keys, prompts, strict=True):
            if key not in opened:
                opened[key] = open_prompt(processor, prompt, **options)
        self._media = [opened[key].media for key in keys]
        return [opened[key].input_ids for key in keys], None, join_items(self._media)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._get_per_token_logps_and_entropies(_WithMedia(model, self._media), *args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self._media = inputs["media"]
        return _with_gradient(super().compute_loss(model, inputs, *args, **kwargs))


class _WithMedia:
    """A model that is called on some rows after the others, and gets the items of each of them."""

    def __init__(self, model: Callable, media: Rows):
        self.model = model
        self.media: Iterator[Mapping[str, torch.Tensor]] = iter(media)

    def __call__(self, *, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        items = join_items([next(self.media) for _ in input_ids])
        items = {name: tensor.to(input_ids.device) for name, tensor in items.items()}
        return self.model(input_ids=input_ids, **items, **kwargs)


def _with_gradient(loss: Any) -> Any:
    """A batch of text alone teaches a branch nothing, and must not end the training for want of a gradient."""
    if isinstance(loss, torch.Tensor) and torch.is_grad_enabled() and not loss.requires_grad:
        return loss.requires_grad_()
    return loss


def _check_settings(args: Any, **expected: Any) -> None:
    """Compares settings of TRL with those that alone are possible here."""
    for name, value in expected.items():
        if (given := getattr(args, name)) != value:
            raise ValueError(f"got {name}={given!r} in {type(args).__name__}, expected {name}={value!r} with media")
