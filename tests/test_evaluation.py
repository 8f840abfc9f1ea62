"""Answers while a model trains: from prompts alone, scored, written down and drawn."""

import json

import pytest
from PIL import Image
from training_run import conversations, make_trainer
from transformers import AutoModelForMultimodalLM, AutoProcessor, Trainer

from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.training import STAGES, AnswerCallback, CurveCallback, draw_curves, load_messages
from transformers_videollama.training.scores import exact_match, token_f1


@pytest.mark.parametrize(
    ("wanted", "got", "exact", "f1"),
    [
        ("A ball.", "the Ball", 1.0, 1.0),
        ("a red ball", "a blue ball", 0.0, 0.5),
        ("ball ball", "ball", 0.0, 2 / 3),
        ("yes", "", 0.0, 0.0),
        ("The.", "a", 1.0, 1.0),  # nothing is left of either
        ("однажды", "Однажды!", 1.0, 1.0),
    ],
)
def test_scores(wanted, got, exact, f1):
    assert exact_match(wanted, got) == exact
    assert token_f1(wanted, got) == pytest.approx(f1)


def rows(*answers: str) -> list[dict]:
    """About one clip of the package's own world each, with a question and a wanted answer."""
    turns = []
    for row, answer in zip(conversations(len(answers), ("video",), seed=3), answers, strict=True):
        question = row["messages"][0]["content"]
        said = [question[0], {"type": "text", "text": "What shape do you see?"}]
        turns.append({"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]})
    return turns


def asked_directly(model, processor, row: dict) -> str:
    inputs = processor.apply_chat_template(
        row["messages"][:1], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    output = model.generate(**inputs, do_sample=False, top_p=None, temperature=None, max_new_tokens=64)
    return processor.post_process_image_text_to_text(output[:, inputs["input_ids"].shape[1] :])[0].strip()


@pytest.fixture(scope="module")
def tiny():
    return AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT), AutoProcessor.from_pretrained(TINY_CHECKPOINT)


def trainer_of(tiny, folder, **options) -> Trainer:
    model, processor = tiny
    arguments = STAGES["vl2"].training_arguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True)
    return Trainer(model, arguments, data_collator=STAGES["vl2"].collator(processor), **options)


@pytest.mark.parametrize("batch_size", (1, 2, 8))
def test_answers_are_those_to_the_prompt_alone(tiny, tmp_path, batch_size):
    """Whatever the wanted answer is, which the model does not see, and whoever is asked beside."""
    model, processor = tiny
    expected = [asked_directly(model, processor, row) for row in rows("", "", "")]
    trainer = trainer_of(tiny, tmp_path)
    for wanted in (("a", "b", "c"), tuple(expected)):
        answers, unreadable = AnswerCallback(trainer, rows(*wanted), batch_size=batch_size).ask()
        assert [answer.got for answer in answers] == expected
        assert [answer.wanted for answer in answers] == list(wanted)
        assert {answer.question for answer in answers} == {"What shape do you see?"}
        assert unreadable == 0
    assert [answer.exact_match for answer in answers] == [1.0] * 3


def test_every_answer_of_a_conversation_is_asked_for(tiny, tmp_path):
    (row,) = rows("a circle")
    again = [{"role": "user", "content": "And what colour?"}, {"role": "assistant", "content": "red"}]
    row = {"messages": [*row["messages"], *again]}
    answers, _ = AnswerCallback(trainer_of(tiny, tmp_path), [row]).ask()
    assert [(answer.question, answer.wanted) for answer in answers] == [
        ("What shape do you see?", "a circle"),
        ("And what colour?", "red"),
    ]


def test_captions_end_where_the_model_ends_them(checkpoint, tmp_path):
    captions = [
        {"messages": [{"role": "user", "content": row["messages"][0]["content"][:1]}, row["messages"][1]]}
        for row in conversations(2, ("image",))
    ]
    trainer = make_trainer(checkpoint, tmp_path, stage="vl1", rows=captions)
    answers, _ = AnswerCallback(trainer, captions, max_new_tokens=3).ask()
    assert [answer.wanted for answer in answers] == [row["messages"][1]["content"][0]["text"] for row in captions]


def test_scores_join_the_metrics_of_an_evaluation(checkpoint, tmp_path):
    """By kind, logged, best of them kept, and with a table and curves in the folder."""
    held_out = [
        {**row, "kind": kind} for row, kind in zip(conversations(3, seed=1), ("shape", "sound", "sound"), strict=True)
    ]
    broken = {"role": "user", "content": [{"type": "video", "path": str(tmp_path / "absent.mp4")}]}
    held_out.append({"messages": [broken, {"role": "assistant", "content": "a"}], "kind": "shape"})
    trainer = make_trainer(
        checkpoint,
        tmp_path,
        eval_dataset=held_out[:3],
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="token_f1_sound",
    )
    trainer.add_callback(AnswerCallback(trainer, held_out, max_new_tokens=4))
    trainer.add_callback(CurveCallback())
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_exact_match" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    names = {"exact_match", "token_f1", "exact_match_shape", "token_f1_shape", "exact_match_sound", "token_f1_sound"}
    assert {f"eval_{name}" for name in names} <= logged[0].keys()
    assert logged[0]["eval_unreadable_rows"] == 1
    assert trainer.state.best_metric == max(entry["eval_token_f1_sound"] for entry in logged)
    lines = (tmp_path / "answers-4.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["shape", "sound", "sound"]
    assert json.loads(lines[0]).keys() == {"row", "question", "wanted", "got", "exact_match", "token_f1", "kind"}
    assert Image.open(tmp_path / "curves.png").size == (1200, 480)


def test_curves_show_each_number_of_the_history(tmp_path, monkeypatch):
    history = [{"step": step, "loss": 2.0 / step} for step in (1, 2, 3)]
    draw_curves(history, tmp_path / "losses.png")
    draw_curves([*history, {"step": 3, "eval_loss": 1.0}, {"step": 3, "eval_exact_match": 0.5}], tmp_path / "all.png")
    first, second = (Image.open(tmp_path / f"{name}.png").convert("RGB") for name in ("losses", "all"))
    assert len(first.getcolors(1 << 20)) < len(second.getcolors(1 << 20))  # more colours


def test_kinds_of_rows_are_read(tmp_path):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"messages": chat, "kind": "shape"}, {"messages": chat}]))
    assert [row["kind"] for row in load_messages(path)] == ["shape", None]
    path.write_text(json.dumps([{"messages": chat}]))
    assert load_messages(path).column_names == ["messages"]
    path.write_text(json.dumps([{"messages": chat, "kind": 3}]))
    with pytest.raises(ValueError, match="row 1: has the kind 3, expected a text"):
        load_messages(path)


def test_wrong_uses_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="got max_rows=0 and batch_size=8, expected at least 1"):
        AnswerCallback(trainer_of(tiny, tmp_path), [], max_rows=0)
    other = Trainer(tiny[0], STAGES["vl2"].training_arguments(str(tmp_path), use_cpu=True, report_to="none"))
    with pytest.raises(ValueError, match="expected a VideoLlamaDataCollator, which makes the prompts"):
        AnswerCallback(other, [])
