"""LoRA beside the branch: with the library's `Trainer`, in 4 bit, and with TRL."""

import re

import bitsandbytes
import datasets
import pytest
import torch
from peft import PeftModel, get_peft_model
from render_clip import render_clip
from torch.nn.functional import cross_entropy
from training_run import ARGUMENTS, assert_trained, conversations, logged, make_trainer, parameters, tiny_model
from transformers import AutoConfig, AutoModelForMultimodalLM
from trl import SFTConfig, SFTTrainer

from transformers_videollama.quantization import quantization_config
from transformers_videollama.training import STAGES, last_checkpoint, prepare_for_stage


STAGE = STAGES["vl2"]


def adapted(checkpoint, **options) -> PeftModel:
    model = tiny_model(checkpoint, **options)
    prepare_for_stage(model, STAGE)
    torch.manual_seed(0)  # adapters begin at random
    return get_peft_model(model, STAGE.lora_config(lora_dropout=0.0))


def is_trained(name: str) -> bool:
    """The adapters of the language model's attention, and the branch."""
    return ".lora_" in name or ".video_resampler.modules_to_save.default." in name


def logits(model, collator) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**collator(conversations(4))).logits


@pytest.fixture(scope="module")
def trained(checkpoint, tmp_path_factory):
    """A run of 5 steps, saved behind the third, and the parameters that it started from."""
    folder = tmp_path_factory.mktemp("adapters")
    model = adapted(checkpoint)
    before = parameters(model)
    trainer = make_trainer(checkpoint, folder, model=model, save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.save_model(folder / "adapter")
    return folder, before, trainer


def test_adapters_and_branch_train_and_nothing_else(trained):
    _, before, trainer = trained
    assert_trained(before, trainer.model, is_trained)
    adapters = {name.split(".lora_")[0].rpartition(".")[2] for name in before if ".lora_" in name}
    assert adapters == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert all(".language_model." in name for name in before if ".lora_" in name)


SIZES = {"vocab_size": 1024, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
# Families that call their layers otherwise, and what is in their attention
FAMILIES = {
    "phi3": ({"intermediate_size": 48, "pad_token_id": 0}, {"qkv_proj", "o_proj"}),
    "gpt2": ({}, {"c_attn", "c_proj"}),
    "gpt_neox": ({"intermediate_size": 48}, {"query_key_value", "dense"}),
    "bloom": ({}, {"query_key_value", "dense"}),
    "falcon": ({}, {"query_key_value", "dense"}),
    "codegen": ({"rotary_dim": 4}, {"qkv_proj", "out_proj"}),
    "opt": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, {"q_proj", "k_proj", "v_proj", "out_proj"}),
}


def of_family(checkpoint, model_type: str, **sizes):
    """The tiny model with another language model."""
    config = AutoConfig.from_pretrained(checkpoint)
    text = AutoConfig.for_model(model_type, **{**SIZES, **sizes})
    model = AutoModelForMultimodalLM.from_config(type(config)(**{**config.to_dict(), "text_config": text}))
    prepare_for_stage(model, STAGE)
    return model


def adapted_layers(model, **overrides) -> set[str]:
    adapters = get_peft_model(model, STAGE.lora_config(model, **overrides))
    return {name.removeprefix("base_model.model.") for name in adapters.targeted_module_names}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attention_of_any_language_model_is_adapted(checkpoint, model_type):
    sizes, expected = FAMILIES[model_type]
    layers = adapted_layers(of_family(checkpoint, model_type, **sizes))
    assert {name.rpartition(".")[2] for name in layers} == expected
    assert all(name.startswith("model.language_model.") and re.search(r"att(n|ention)\.", name) for name in layers)
    assert len(layers) == 2 * len(expected)


def test_language_model_without_attention_is_refused_with_the_layers_to_choose_from(checkpoint):
    model = of_family(checkpoint, "mamba", state_size=4)
    message = (
        r"\(mamba\) has no attention that LoRA could be put on; .* target_modules: dt_proj, in_proj, out_proj, x_proj"
    )
    with pytest.raises(ValueError, match=message):
        STAGE.lora_config(model)
    layers = adapted_layers(model, target_modules=["in_proj"])
    assert layers == {f"model.language_model.layers.{i}.mixer.in_proj" for i in range(2)}


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (["q_proj", "up_proj"], {"q_proj", "up_proj"}),
        (r".*\.mlp\..*_proj", {"gate_proj", "up_proj", "down_proj"}),
    ],
)
def test_other_layers_are_adapted_in_the_language_model_alone(checkpoint, targets, kinds):
    """The towers of ImageBind have layers of these names, too."""
    layers = adapted_layers(tiny_model(checkpoint), target_modules=targets)
    assert {name.rpartition(".")[2] for name in layers} == kinds
    assert all(name.startswith("model.language_model.layers.") for name in layers)


@pytest.mark.parametrize("folder", ("adapter", "checkpoint-5"))
def test_adapter_is_loaded_again(trained, checkpoint, folder):
    runs, _, trainer = trained
    loaded = PeftModel.from_pretrained(tiny_model(checkpoint), runs / folder)
    expected = logits(trainer.model, trainer.data_collator)
    assert torch.equal(logits(loaded, trainer.data_collator), expected)
    untrained = logits(tiny_model(checkpoint), trainer.data_collator)
    assert (untrained - expected).abs().max() > 1e-2


def test_run_is_resumed(trained, checkpoint, tmp_path):
    folder, _, trainer = trained
    assert last_checkpoint(folder) == str(folder / "checkpoint-5")
    resumed = make_trainer(checkpoint, tmp_path, model=adapted(checkpoint))
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert logged(tmp_path) == logged(folder)[3:]
    after = parameters(resumed.model)
    assert all(torch.equal(after[name], parameter) for name, parameter in trainer.model.named_parameters())


def test_merged_model_is_a_plain_checkpoint(trained, checkpoint, tmp_path):
    folder, _, trainer = trained
    expected = logits(trainer.model, trainer.data_collator)
    merged = PeftModel.from_pretrained(tiny_model(checkpoint), folder / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path)
    plain, report = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert plain.state_dict().keys() == tiny_model(checkpoint).state_dict().keys()
    torch.testing.assert_close(logits(plain, trainer.data_collator), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("reentrant", (False, True))
def test_frozen_encoders_stay_out_of_autograd_under_checkpointing(checkpoint, trained, tmp_path, reentrant):
    """The hooks of `enable_input_require_grads` sit on the embeddings of every part, the vision tower's included."""
    model = adapted(checkpoint)
    model.enable_input_require_grads()
    video_llama = model.base_model.model.model
    followed = {}
    for name in ("vision_tower", "qformer", "video_resampler"):

        def record(module, args, output, name=name):
            hidden_states = output.last_hidden_state
            followed.setdefault(name, set()).add(hidden_states.grad_fn is not None or hidden_states.requires_grad)

        getattr(video_llama, name).register_forward_hook(record)
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    make_trainer(checkpoint, tmp_path, model=model, **options).train()
    assert followed == {"vision_tower": {False}, "qformer": {False}, "video_resampler": {True}}
    assert logged(tmp_path) == pytest.approx(logged(trained[0]), rel=0, abs=1e-6)


def test_adapters_train_on_a_model_in_4_bit(checkpoint, tmp_path):
    model = adapted(checkpoint, quantization_config=quantization_config("4bit"), device_map="cpu")
    quantised = {name for name, part in model.named_modules() if isinstance(part, bitsandbytes.nn.Linear4bit)}
    assert len(quantised) == 2 * 7
    assert all(".language_model.layers." in name for name in quantised)
    before = parameters(model)
    make_trainer(checkpoint, tmp_path, model=model).train()
    assert_trained(before, model, is_trained)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert all(0 < loss < 10 for loss in logged(tmp_path))


@pytest.fixture(scope="module")
def arrow_rows(tmp_path_factory) -> datasets.Dataset:
    """Conversations about a clip and about a sound; Arrow gives every block the keys of all, `None` where absent."""
    folder = tmp_path_factory.mktemp("media")
    silent = str(render_clip(folder / "silent.mp4", seconds=0.5, sound=False))
    clip = str(render_clip(folder / "clip.mp4", seconds=0.5))
    blocks = [{"type": "video", "path": silent}, {"type": "audio", "path": clip}]
    rows = []
    for i in range(4):
        question = [blocks[i % 2], {"type": "text", "text": "What is it?"}]
        answer = [{"type": "text", "text": " ".join(["a", "red", "ball", "swings"][: i + 1])}]
        rows.append([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    dataset = datasets.Dataset.from_dict({"messages": rows, "images": [[] for _ in rows]})
    assert dataset[0]["messages"][0]["content"][1]["path"] is None
    return dataset


def sft_trainer(model, processor, rows, output_dir, data_collator=None, **options) -> SFTTrainer:
    arguments = {"max_steps": 2, "gradient_checkpointing": True, "bf16": False, "max_length": None, **options}
    return SFTTrainer(
        model,
        args=SFTConfig(str(output_dir), **{**ARGUMENTS, **arguments}),
        train_dataset=rows,
        processing_class=processor,
        peft_config=STAGE.lora_config(lora_dropout=0.0),
        data_collator=data_collator,
    )


@pytest.mark.parametrize("assistant_only", (False, True))
def test_trl_with_its_own_collator(checkpoint, processor, arrow_rows, tmp_path, assistant_only):
    model = tiny_model(checkpoint)
    prepare_for_stage(model, STAGE)
    trainer = sft_trainer(model, processor, arrow_rows, tmp_path, assistant_only_loss=assistant_only)
    before = parameters(trainer.model)
    trainer.train()
    assert_trained(before, trainer.model, is_trained)
    batch = trainer.data_collator([dict(row) for row in arrow_rows])
    assert len(batch["pixel_values_videos"]) == len(batch["input_features"]) == 2
    learned = processor.tokenizer.decode(batch["labels"][3][batch["labels"][3] != -100])
    assert ("What is it?" in learned) != assistant_only
    assert learned.endswith("a red ball swings </s>" if assistant_only else "</s>")


def test_trl_with_our_collator(checkpoint, processor, arrow_rows, tmp_path):
    """TRL's head takes the softmax over all rows of the vocabulary; the model, over those that can be predicted."""
    model = tiny_model(checkpoint)
    prepare_for_stage(model, STAGE)
    options = {"remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
    collator = STAGE.collator(processor)
    rows = arrow_rows.remove_columns("images")
    trainer = sft_trainer(model, processor, rows, tmp_path, data_collator=collator, **options)
    batch = collator(list(rows))
    with torch.no_grad():
        fused = trainer.model(**batch, fused_lm_head=True).loss
        own = trainer.model(**batch).loss
        states = model.model(**{name: value for name, value in batch.items() if name != "labels"}).last_hidden_state
    scores, labels = model.lm_head(states)[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
    torch.testing.assert_close(fused, cross_entropy(scores, labels), rtol=0, atol=1e-4)
    torch.testing.assert_close(own, cross_entropy(scores[:, :1000], labels), rtol=0, atol=1e-4)
    assert scores.shape[1] == 1024
    before = parameters(trainer.model)
    trainer.train()
    assert_trained(before, trainer.model, is_trained)
