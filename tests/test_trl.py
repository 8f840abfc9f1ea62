"""TRL's SFT, DPO and GRPO on videos with sound, images, sounds and text: losses see the media, and so do rollouts."""

import importlib
import re
import sys

import datasets
import pytest
import torch
from peft import get_peft_model
from PIL import Image
from render_clip import render_clip
from torch.nn.functional import logsigmoid
from training_run import ARGUMENTS, parameters, tiny_model
from transformers import AutoModelForMultimodalLM, Trainer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from transformers_videollama.training import STAGES, prepare_for_stage
from transformers_videollama.training.preference import (
    VideoLlamaDPOTrainer,
    VideoLlamaGRPOTrainer,
    VideoLlamaPreferenceCollator,
)


STAGE = STAGES["vl2"]
TRAINED = "video_resampler"
KINDS = ("video with sound", "video", "image", "sound", "text")
SETTINGS = {
    **ARGUMENTS,
    "max_steps": 1,
    "weight_decay": 0.0,
    "warmup_steps": 0,
    "bf16": False,
    "activation_checkpointing": False,
}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> dict[str, list[dict]]:
    return media_of(tmp_path_factory.mktemp("media"), seed=0)


def media_of(folder, seed: int) -> dict[str, list[dict]]:
    """Blocks of each kind."""
    clip = str(render_clip(folder / "clip.mp4", seconds=0.5, seed=seed))
    silent = str(render_clip(folder / "silent.mp4", seconds=0.5, sound=False, seed=seed + 1))
    Image.new("RGB", (48, 40), ("teal", "red")[seed]).save(folder / "picture.png")
    return {
        "video with sound": [{"type": "video", "path": clip}],
        "video": [{"type": "video", "path": silent}],
        "image": [{"type": "image", "path": str(folder / "picture.png")}],
        "sound": [{"type": "audio", "path": clip}],
        "text": [],
    }


@pytest.fixture(scope="module")
def other_media(tmp_path_factory) -> dict[str, list[dict]]:
    return media_of(tmp_path_factory.mktemp("other"), seed=1)


def question(blocks: list[dict]) -> list[dict]:
    return [{"role": "user", "content": [*blocks, {"type": "text", "text": "What is it?"}]}]


def answer(text: str) -> list[dict]:
    return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]


def preferences(media: dict, kinds=KINDS) -> datasets.Dataset:
    rows = [
        {"prompt": question(media[kind]), "chosen": answer(f"a red {kind}"), "rejected": answer("nothing at all")}
        for kind in kinds
    ]
    return datasets.Dataset.from_list(rows)


def conversations(media: dict, kinds=KINDS) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"messages": question(media[kind]) + answer(f"a {kind}")} for kind in kinds])


def prepared(checkpoint, **options):
    model = tiny_model(checkpoint, **options)
    prepare_for_stage(model, STAGE)
    return model


def lora(adapted: bool, **options):
    return STAGE.lora_config(lora_dropout=0.0, **options) if adapted else None


def length_of_answer(completions, **columns) -> list[float]:
    """A reward that differs between answers at random."""
    return [float(len(completion[0]["content"])) for completion in completions]


def plain_trainer(model, processor, media, output_dir, kinds=KINDS, peft_config=None):
    return Trainer(
        model if peft_config is None else get_peft_model(model, peft_config),
        STAGE.training_arguments(str(output_dir), **{**SETTINGS, "per_device_train_batch_size": len(kinds)}),
        data_collator=STAGE.collator(processor, load_audio_from_video=True),
        train_dataset=conversations(media, kinds),
    )


def sft_trainer(model, processor, media, output_dir, kinds=KINDS, **options):
    settings = {"max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTTrainer(
        model,
        SFTConfig(str(output_dir), **{**SETTINGS, **settings}),
        train_dataset=conversations(media, kinds),
        processing_class=processor,
        data_collator=STAGE.collator(processor, load_audio_from_video=True),
        **options,
    )


def dpo_trainer(model, processor, media, output_dir, kinds=KINDS, settings=None, **options):
    settings = {"remove_unused_columns": False, "max_length": None, **(settings or {})}
    return VideoLlamaDPOTrainer(
        model,
        args=DPOConfig(str(output_dir), **{**SETTINGS, **settings}),
        processing_class=processor,
        train_dataset=preferences(media, kinds),
        **options,
    )


def grpo_trainer(model, processor, media, output_dir, kinds=KINDS, settings=None, **options):
    rows = len(kinds) * 2
    settings = {"num_generations": 2, "max_completion_length": 6, "shuffle_dataset": False, **(settings or {})}
    settings = {"per_device_train_batch_size": rows, "per_device_eval_batch_size": rows, **settings}
    return VideoLlamaGRPOTrainer(
        model,
        args=GRPOConfig(str(output_dir), **{**SETTINGS, **settings}),
        processing_class=processor,
        reward_funcs=length_of_answer,
        train_dataset=preferences(media, kinds).select_columns("prompt"),
        **options,
    )


MAKERS = {"trainer": plain_trainer, "sft": sft_trainer, "dpo": dpo_trainer, "grpo": grpo_trainer}


def changes(maker: str, checkpoint, processor, media, output_dir, adapted: bool, kinds=KINDS) -> dict[str, float]:
    """How far a step moved each parameter, at most."""
    trainer = MAKERS[maker](prepared(checkpoint), processor, media, output_dir, kinds, peft_config=lora(adapted))
    before = parameters(trainer.model)
    trainer.train()
    return {name: float((new.detach() - before[name]).abs().max()) for name, new in trainer.model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("adapted", (False, True), ids=("branch", "lora"))
@pytest.mark.parametrize("maker", MAKERS)
def test_media_reach_what_trains_and_nothing_else(checkpoint, processor, media, other_media, tmp_path, maker, adapted):
    seen, other = (changes(maker, checkpoint, processor, given, tmp_path, adapted) for given in (media, other_media))
    trained = {name for name in seen if ".lora_" in name or (TRAINED in name and "original_module" not in name)}
    assert max(seen[name] for name in trained) > 1e-4
    assert max(seen[name] for name in trained) != max(other[name] for name in trained)
    for name in seen.keys() - trained:
        assert seen[name] == other[name] == 0, name


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS)
def test_text_alone_does_not_move_the_branch(checkpoint, processor, media, tmp_path, maker):
    """And ends no training, since a batch of a mixture can be of text alone."""
    moved = changes(maker, checkpoint, processor, media, tmp_path, adapted=False, kinds=("text", "text"))
    assert set(moved.values()) == {0.0}


def blind_sft(model, processor, rows, output_dir):
    rows = rows.map(lambda row: {"messages": row["prompt"] + row["chosen"]}, remove_columns=rows.column_names)
    return SFTTrainer(model, SFTConfig(output_dir, **SETTINGS), train_dataset=rows, processing_class=processor)


def blind_dpo(model, processor, rows, output_dir):
    return DPOTrainer(model, args=DPOConfig(output_dir, **SETTINGS), train_dataset=rows, processing_class=processor)


def blind_grpo(model, processor, rows, output_dir):
    arguments = GRPOConfig(output_dir, **SETTINGS, num_generations=2, max_completion_length=4)
    rows = rows.select_columns("prompt")
    return GRPOTrainer(model, length_of_answer, arguments, rows, processing_class=processor)


@pytest.mark.parametrize("maker", (blind_sft, blind_dpo, blind_grpo))
def test_trl_by_itself_does_not_train_blindly(checkpoint, processor, media, tmp_path, maker):
    trainer = maker(prepared(checkpoint), processor, preferences(media, ("video", "sound")), str(tmp_path))
    with pytest.raises(ValueError, match=r"(Video|Audio) features and (video|audio) tokens do not match"):
        trainer.train()


def log_probs(model, processor, prompt: list[dict], completion: str | list[int]) -> torch.Tensor:
    """Of the tokens of an answer, by itself and without padding: over all rows of the head, as TRL has it."""
    text = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    asked = processor.apply_chat_template(prompt, add_generation_prompt=True, **text)
    if isinstance(completion, str):
        inputs = processor.apply_chat_template(prompt + answer(completion), **text)
    else:
        ids = torch.cat((asked["input_ids"], torch.tensor([completion])), dim=1)
        inputs = {**asked, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    start = asked["input_ids"].shape[1]
    base = getattr(model, "get_base_model", lambda: model)()
    with torch.no_grad():
        scores = base.lm_head(base.model(**inputs).last_hidden_state[0, start - 1 : -1]).log_softmax(-1)
    return scores.gather(-1, inputs["input_ids"][0, start:, None])[:, 0]


def perturbed(model):
    """Its branch is no longer that of the reference model."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


STANDING_STILL = {"learning_rate": 0.0, "max_steps": 5}


class Losses:
    """Batches of GRPO as the loss gets them, and the losses, before the optimizer moves anything."""

    def __init__(self, trainer):
        self.seen = []
        compute_loss = trainer.compute_loss

        def record(model, inputs, *args, **kwargs):
            loss = compute_loss(model, inputs, *args, **kwargs)
            self.seen.append((inputs, loss.detach()))
            return loss

        trainer.compute_loss = record


@pytest.mark.slow
@pytest.mark.parametrize("ahead", (False, True), ids=("in turn", "ahead"))
@pytest.mark.parametrize("adapted", (False, True), ids=("branch", "lora"))
def test_loss_of_dpo_is_that_of_the_media(checkpoint, processor, media, tmp_path, adapted, ahead):
    settings = {"precompute_ref_log_probs": ahead}
    trainer = dpo_trainer(
        prepared(checkpoint), processor, media, tmp_path, settings=settings, peft_config=lora(adapted)
    )
    perturbed(trainer.model).eval()
    reference = AutoModelForMultimodalLM.from_pretrained(checkpoint).eval()
    margins = []
    for row in preferences(media):
        chosen, rejected = (
            log_probs(trainer.model, processor, row["prompt"], text).sum()
            - log_probs(reference, processor, row["prompt"], text).sum()
            for text in (row[name][0]["content"][0]["text"] for name in ("chosen", "rejected"))
        )
        margins.append(chosen - rejected)
    expected = -logsigmoid(0.1 * torch.stack(margins)).mean()
    assert abs(float(expected) - 0.6931) > 1e-3
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("adapted", (False, True), ids=("branch", "lora"))
def test_loss_of_grpo_is_that_of_the_media_of_the_rollout(checkpoint, processor, media, tmp_path, adapted):
    """Rows are shuffled and cut between rollout and loss."""
    settings = {"beta": 0.2, "per_device_train_batch_size": 2, "steps_per_generation": 5, **STANDING_STILL}
    trainer = grpo_trainer(
        prepared(checkpoint), processor, media, tmp_path, settings=settings, peft_config=lora(adapted)
    )
    perturbed(trainer.model)
    reference = AutoModelForMultimodalLM.from_pretrained(checkpoint).eval()
    prompts = [question(media[kind]) for kind in KINDS]
    texts = [processor.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True)[0] for prompt in prompts]
    losses = Losses(trainer)
    trainer.train()
    assert len(losses.seen) == 5
    for batch, loss in losses.seen:
        of_rows = []
        for i, (advantage, mask) in enumerate(zip(batch["advantages"], batch["completion_mask"], strict=True)):
            ids = batch["completion_ids"][i][mask.bool()].tolist()
            prompt = prompts[texts.index(batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist())]
            gap = log_probs(reference, processor, prompt, ids) - log_probs(trainer.model, processor, prompt, ids)
            of_rows.append(0.2 * (gap.exp() - gap - 1) - advantage)
        expected = torch.cat(of_rows).sum() / (batch["num_items_in_batch"] / 5)
        torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_rollouts_see_the_media_which_are_opened_once(checkpoint, processor, media, tmp_path, monkeypatch):
    settings = {"generation_kwargs": {"do_sample": False}, **STANDING_STILL, "max_steps": 1}
    trainer = grpo_trainer(prepared(checkpoint), processor, media, tmp_path, settings=settings)
    opened = []
    open_media = type(processor).open_media
    monkeypatch.setattr(type(processor), "open_media", lambda *args, **kw: opened.append(0) or open_media(*args, **kw))
    losses = Losses(trainer)
    trainer.train()
    ((batch, _),) = losses.seen
    assert len(opened) == len(KINDS)
    assert len(batch["completion_ids"]) == 2 * len(KINDS)
    answers = {tuple(ids[mask.bool()].tolist()) for ids, mask in zip(*completions(batch), strict=True)}
    expected = set()
    for kind in KINDS:
        inputs = processor.apply_chat_template(
            question(media[kind]), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        new = trainer.model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        expected.add(tuple(new.tolist()))
    assert answers == expected
    assert len(expected) > 1


def completions(batch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch["completion_ids"], batch["completion_mask"]


@pytest.mark.slow
@pytest.mark.parametrize("maker", (dpo_trainer, grpo_trainer))
def test_evaluation_sees_the_media(checkpoint, processor, media, tmp_path, maker):
    trainer = maker(prepared(checkpoint), processor, media, tmp_path)
    rows = preferences(media, ("video with sound", "text"))
    calls = []
    trainer.model.model.video_resampler.register_forward_pre_hook(lambda *_: calls.append(0))
    assert trainer.evaluate(rows)["eval_loss"] is not None
    assert calls


@pytest.fixture(scope="module")
def collator(processor) -> VideoLlamaPreferenceCollator:
    return VideoLlamaPreferenceCollator(processor)


def test_a_batch_of_preferences(collator, processor, media):
    """The rows of both answers have the items of their prompt; the completions are the answers alone."""
    rows = list(preferences(media))
    batch = collator(rows)
    assert len(batch["input_ids"]) == 10
    assert len(batch["pixel_values_videos"]) == len(batch["input_features"]) == 4
    assert torch.equal(*batch["pixel_values_videos"].chunk(2))
    assert torch.equal(*batch["input_features"].chunk(2))
    assert len(batch["pixel_values"]) == 2
    for i, (ids, mask) in enumerate(zip(batch["input_ids"], batch["completion_mask"].bool(), strict=True)):
        row, name = rows[i % 5], ("chosen", "rejected")[i // 5]
        assert processor.decode(ids[mask]).strip() == f"{row[name][0]['content'][0]['text']} </s>"
        whole = processor.apply_chat_template(row["prompt"] + row[name], tokenize=True)[0]
        assert ids[batch["attention_mask"][i].bool()].tolist() == whole
        assert not mask[batch["attention_mask"][i] == 0].any()


def test_earlier_answers_of_a_conversation_are_prompt(collator, processor, media):
    first = question(media["video"]) + answer("a ball")
    row = {
        "prompt": [*first, {"role": "user", "content": [{"type": "text", "text": "Which?"}]}],
        "chosen": [{"role": "assistant", "content": "a red ball"}],
        "rejected": answer("a cube"),
    }
    batch = collator([row])
    learned = [processor.decode(ids[mask.bool()]) for ids, mask in zip(*masked(batch), strict=True)]
    assert [text.strip() for text in learned] == ["a red ball </s>", "a cube </s>"]


def masked(batch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch["input_ids"], batch["completion_mask"]


def test_media_in_columns(collator, media):
    """LLaMA-Factory's form of rows, with marks in the text."""
    (row,) = preferences(media, ("video with sound",))
    path = media["video with sound"][0]["path"]
    marked = {**row, "prompt": [{"role": "user", "content": "<video>What is it?"}], "videos": [path]}
    expected, batch = collator([row]), collator([marked])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in batch)


def test_log_probabilities_computed_ahead_are_kept(collator, media):
    rows = [{**row, "ref_chosen_logps": -1.5, "ref_rejected_logps": -2.5} for row in preferences(media, ("text",))]
    batch = collator(rows)
    assert (batch["ref_chosen_logps"].tolist(), batch["ref_rejected_logps"].tolist()) == ([-1.5], [-2.5])


def test_typed_placeholders_stay_text(collator, processor, media):
    """In questions and in answers, also of a row without media."""
    typed = "a <video> of <image> and <audio>"
    row = {"prompt": question([{"type": "text", "text": typed}]), "chosen": answer(typed), "rejected": answer("no")}
    batch = collator([row])
    placeholders = torch.tensor([processor.image_token_id, processor.video_token_id, processor.audio_token_id])
    assert not torch.isin(batch["input_ids"], placeholders).any()
    assert typed in processor.decode(batch["input_ids"][0])


TEXT = {"prompt": question([]), "chosen": answer("a ball"), "rejected": answer("a cube")}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": question([{"type": "video", "path": "nowhere.mp4"}])}, "nowhere.mp4"),
        ({"prompt": "What is it?"}, r"has 'prompt': 'What is it\?', expected a list of messages"),
        ({"prompt": None}, "has 'prompt': None, expected a list of messages"),
        ({"chosen": "a ball"}, "has 'chosen': 'a ball', expected a list of messages"),
        ({"rejected": []}, r"has 'rejected': \[\], expected a list of messages"),
        (
            {"rejected": question([{"type": "image", "path": "i.png"}])},
            "message 0 of 'rejected' has media, expected text",
        ),
        ({"videos": ["a.mp4"]}, "has 0 places for videos in its messages and 1 videos in its column"),
        ({"video_path": "a.mp4"}, "has 'video_path': 'a.mp4', which is not read"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(collator, changed, message):
    with pytest.raises(ValueError, match=rf"row 1 of the batch cannot be used: .*{message}"):
        collator([TEXT, {**TEXT, **changed}])


def test_long_rows_are_cut_behind_the_prompt(processor, media):
    (row,) = preferences(media, ("video",))
    whole = VideoLlamaPreferenceCollator(processor)([row])
    start = int(whole["completion_mask"][0].argmax())
    batch = VideoLlamaPreferenceCollator(processor, max_length=start + 1)([row])
    assert torch.equal(batch["input_ids"], whole["input_ids"][:, : start + 1])
    assert batch["completion_mask"].sum(dim=1).tolist() == [1, 1]
    with pytest.raises(
        ValueError, match=f"the prompt takes {start} tokens, so that max_length={start} leaves nothing"
    ):
        VideoLlamaPreferenceCollator(processor, max_length=start)([row])


@pytest.mark.parametrize(
    ("maker", "settings", "message"),
    [
        (dpo_trainer, {"remove_unused_columns": True}, "got remove_unused_columns=True in DPOConfig, expected"),
        (dpo_trainer, {"truncation_mode": "keep_end"}, "got truncation_mode='keep_end' in DPOConfig, expected"),
        (grpo_trainer, {"use_vllm": True}, "got use_vllm=True in GRPOConfig, expected use_vllm=False"),
    ],
)
def test_settings_that_would_lose_the_media_are_refused(model, processor, media, tmp_path, maker, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        maker(model, processor, media, tmp_path, settings=settings)


def test_tools_and_another_prompt_style_are_refused(model, processor, processors, media, tmp_path):
    with pytest.raises(ValueError, match="got tools, with which the loss would not see the media"):
        grpo_trainer(model, processor, media, tmp_path, tools=[print])
    with pytest.raises(ValueError, match="answers of this prompt style end in '###'"):
        grpo_trainer(model, processors["vicuna"], media, tmp_path)


def test_without_trl_the_extra_is_named(monkeypatch):
    name = VideoLlamaDPOTrainer.__module__
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        ImportError, match=re.escape("DPO and GRPO need TRL: pip install 'transformers-videollama[train]'")
    ):
        importlib.import_module(name)
