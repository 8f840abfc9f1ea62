"""What each stage trains, with the library's Trainer, and with what settings."""

import math

import pytest
import torch
from render_clip import render_clip
from transformers import AutoModelForMultimodalLM, Trainer, VideoLlamaForConditionalGeneration

from transformers_videollama import VideoLlamaConfig
from transformers_videollama.training import STAGES, prepare_for_stage


# Batch per GPU, steps, warm-up, learning rates: the table of the original's settings, and "av2", which is ours
RECIPE = {
    "vl1": (("video",), 1e-4, 8e-5, 2500, 5 * 2500, 32),
    "vl2": (("video",), 3e-5, 1e-5, 1000, 3 * 1000, 4),
    "al1": (("audio",), 1e-4, 8e-5, 5000, 5 * 5000, 32),
    "al2": (("audio",), 3e-5, 1e-5, 400, 3 * 1000, 4),
    "av2": (("video", "audio"), 3e-5, 1e-5, 1000, 3 * 1000, 4),
}
# What the original trains: Q-Former, queries, positions, projection
TRAINED_PARTS = {"position_embedding.weight", "query_tokens", "projection.weight", "projection.bias"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A video with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    render_clip(path, seconds=0.5)
    return str(path)


def row(clip: str, answer: str) -> dict:
    content = [{"type": "video", "path": clip}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def fresh_model(checkpoint):
    return AutoModelForMultimodalLM.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", STAGES)
def test_recipe(name, tmp_path):
    stage = STAGES[name]
    branches, learning_rate, minimum, warmup, steps, batch = RECIPE[name]
    args = stage.training_arguments(str(tmp_path), use_cpu=True)
    assert stage.branches == branches
    assert (args.learning_rate, args.per_device_train_batch_size, args.max_steps) == (learning_rate, batch, steps)
    assert args.get_warmup_steps(steps) == warmup
    assert args.weight_decay == 0.05
    assert (args.adam_beta1, args.adam_beta2) == (0.9, 0.999)
    assert math.isclose(args.lr_scheduler_kwargs["min_lr_rate"] * learning_rate, minimum)
    assert math.isclose(args.lr_scheduler_kwargs["warmup_lr_rate"] * learning_rate, 1e-6)


def test_overrides_keep_the_shape_of_the_schedule(tmp_path):
    args = STAGES["vl1"].training_arguments(str(tmp_path), use_cpu=True, max_steps=100, learning_rate=1e-3)
    assert args.get_warmup_steps(100) == 20
    assert math.isclose(args.lr_scheduler_kwargs["min_lr_rate"] * 1e-3, 8e-4)
    assert math.isclose(args.lr_scheduler_kwargs["warmup_lr_rate"] * 1e-3, 1e-6)
    assert STAGES["vl1"].training_arguments(str(tmp_path), use_cpu=True, num_train_epochs=2).max_steps == -1


@pytest.mark.parametrize("name", STAGES)
def test_exactly_the_branches_train(fresh_model, processor, clip, name, tmp_path):
    """Gradients reach every parameter of the branches and no other; the others stay the same bit for bit."""
    stage, model = STAGES[name], fresh_model
    trained = set(prepare_for_stage(model, stage))
    prefixes = tuple(f"model.{branch}_resampler." for branch in stage.branches)
    for prefix in prefixes:
        parts = {parameter.removeprefix(prefix) for parameter in trained if parameter.startswith(prefix)}
        assert {part for part in parts if not part.startswith("qformer.")} == TRAINED_PARTS
    assert trained == {parameter for parameter, _ in model.named_parameters() if parameter.startswith(prefixes)}
    before = {parameter: value.clone() for parameter, value in model.state_dict().items()}

    args = stage.training_arguments(
        str(tmp_path),
        max_steps=5,
        learning_rate=1e-3,
        per_device_train_batch_size=2,
        dataloader_num_workers=0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [row(clip, answer) for answer in ("one", "two balls", "three red balls", "four")]
    gradients = set()

    class Watched(Trainer):
        def training_step(self, *arguments, **options):
            loss = super().training_step(*arguments, **options)
            gradients.update(n for n, p in self.model.named_parameters() if p.grad is not None and p.grad.any())
            assert all(p.grad is None for n, p in self.model.named_parameters() if n not in trained)
            return loss

    Watched(model=model, args=args, train_dataset=rows, data_collator=stage.collator(processor)).train()
    # Keys have no influence through their bias: attention weights do not change when all of them shift alike
    assert trained - gradients <= {parameter for parameter in trained if parameter.endswith(".key.bias")}
    changed = {
        parameter for parameter, value in model.state_dict().items() if not torch.equal(value, before[parameter])
    }
    assert changed <= trained
    assert trained - changed <= {parameter for parameter in trained if parameter.endswith(".bias")}


@pytest.mark.parametrize("installed", ("2.11.0+cu130", "2.14.1+cu130"))
def test_torch_compile_on_a_cpu_is_refused_where_torch_cannot(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(torch, "__version__", installed)
    for name in ("BACKEND", "MODE"):  # which the library sets, and accelerate reads from then on
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "")
    options = {"torch_compile": True, "use_cpu": True}
    if installed.startswith("2.14"):
        assert STAGES["vl2"].training_arguments(str(tmp_path), **options).torch_compile
    else:
        message = (
            r"torch 2\.11\.0\+cu130 cannot compile .* for a CPU; leave torch_compile, .* out, or install torch 2\.14"
        )
        with pytest.raises(ValueError, match=message):
            STAGES["vl2"].training_arguments(str(tmp_path), **options)


def test_frozen_parts_have_no_dropout(fresh_model):
    """The original keeps frozen encoders in evaluation mode; the language model's checkpointing needs the other."""
    for stage in (STAGES["vl1"], STAGES["al1"], STAGES["av2"]):
        prepare_for_stage(fresh_model, stage)
        fresh_model.train()
        modes = {name: part.training for name, part in fresh_model.model.named_children()}
        assert {name for name, training in modes.items() if training} == {*stage.modules, "language_model"}
        assert not any(module.training for module in fresh_model.model.vision_tower.modules())
    fresh_model.requires_grad_(True).train()
    assert all(part.training for part in fresh_model.model.children())


def test_branch_is_trained_in_float32(checkpoint, processor, clip):
    model = AutoModelForMultimodalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    prepare_for_stage(model, STAGES["vl2"])
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if not p.requires_grad} == {torch.bfloat16}
    batch = STAGES["vl2"].collator(processor)([row(clip, "one")])
    loss = model(**batch).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert model.model.video_resampler.query_tokens.grad.dtype == torch.float32


def test_frozen_encoders_stay_out_of_autograd(fresh_model):
    """Adapters with checkpointing make the outputs of all embeddings require gradients."""
    prepare_for_stage(fresh_model, STAGES["vl1"])
    fresh_model.enable_input_require_grads()
    frames = torch.zeros(1, 3, 224, 224)
    assert not fresh_model.model.get_frame_features(frames).requires_grad
    assert fresh_model.model.get_frame_features(frames.requires_grad_()).requires_grad
    fresh_model.requires_grad_(True)
    assert fresh_model.model.get_frame_features(torch.zeros(1, 3, 224, 224)).requires_grad


def test_stages_follow_the_prompt_style(processors):
    """In the paper, before LLaMA-2, the text of instruction tuning was not that of inference."""
    stage = STAGES["vl2"]
    templates = {
        style: stage.collator(processor, recipe="paper").chat_template for style, processor in processors.items()
    }
    assert templates["llama-2"] is None
    assert "Human: " in templates["vicuna"]
    texts = {name: STAGES[name].collator(processors["vicuna"]).text for name in STAGES}
    assert texts == {"vl1": "caption", "vl2": "chat", "al1": "caption", "al2": "chat", "av2": "chat"}
    assert all(stage.collator(processor).chat_template is None for processor in processors.values())
    with pytest.raises(ValueError, match=r"recipe must be one of .*paper.*, got 'papers'"):
        stage.collator(processors["vicuna"], recipe="papers")
    with pytest.raises(ValueError, match="stage av2 trains on real sound, which the paper did not"):
        STAGES["av2"].collator(processors["vicuna"], recipe="paper")


@pytest.mark.parametrize(
    ("missing", "message"),
    [("audio_config", "does not have .*audio_config is None"), ("audio_vision_config", "with-imagebind-vision")],
)
def test_stages_of_the_audio_branch_need_its_parts(checkpoint, missing, message):
    config = VideoLlamaConfig.from_pretrained(checkpoint)
    config.audio_vision_config = None
    setattr(config, missing, None)
    with torch.device("meta"):
        model = VideoLlamaForConditionalGeneration(config)
    with pytest.raises(ValueError, match=f"stage al1 .*{message}"):
        prepare_for_stage(model, STAGES["al1"])
    if missing == "audio_config":
        with pytest.raises(ValueError, match=f"stage av2 .*{message}"):
            prepare_for_stage(model, STAGES["av2"])
    else:  # real sound takes no frames
        assert prepare_for_stage(model, STAGES["av2"])


def test_both_branches_train_on_the_sound_of_videos(processor, clip):
    """In every batch, and a video without sound trains the video branch alone."""
    collator = STAGES["av2"].collator(processor)
    batch = collator([row(clip, "one")])
    assert {"pixel_values_videos", "input_features"} <= batch.keys()
    assert "audio_pixel_values" not in batch
    assert len(batch["input_ids"]) == 1
    silent = {"type": "video", "video": torch.zeros(2, 224, 224, 3, dtype=torch.uint8).numpy()}
    silent = {"messages": [{"role": "user", "content": [silent]}, {"role": "assistant", "content": "two"}]}
    batch = collator([silent])
    assert batch["input_features"].shape[:2] == (1, 1)  # of a row without loss
    assert (batch["labels"][1] == -100).all()
