"""Rows that cannot be used: which limits end a run, when, and what the message says."""

import pytest
import torch
from training_run import conversations, make_trainer

from transformers_videollama import load_chat_template
from transformers_videollama.training import UnreadableDataError, UnreadableRowsCallback, VideoLlamaDataCollator
from transformers_videollama.training.unreadable import UnreadableRows


def rows_with_absent(good: int, bad: int) -> list[dict]:
    """Good rows first."""
    absent = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "video", "path": f"absent-{i}.mp4"}]},
                {"role": "assistant", "content": "A ball."},
            ]
        }
        for i in range(bad)
    ]
    return [*conversations(good, kinds=("text",)), *absent]


def test_a_run_that_can_read_nothing_ends_at_its_first_rows_with_the_reasons(processor):
    collator = VideoLlamaDataCollator(processor)
    message = r"6 of 6 samples could not be used, more than max_unreadable_share=0.05; the last reasons: "
    with pytest.raises(UnreadableDataError, match=message) as caught:
        collator(rows_with_absent(0, 30))
    assert all(f"absent-{i}.mp4: does not exist" in str(caught.value) for i in (3, 4, 5))
    assert "\n" not in str(caught.value)


def test_a_worker_shares_its_counts_and_reasons(processor):
    collator = VideoLlamaDataCollator(processor)
    loader = torch.utils.data.DataLoader(
        rows_with_absent(0, 3) + rows_with_absent(3, 0), batch_size=1, num_workers=1, collate_fn=collator
    )
    assert len(list(loader)) == 6
    assert collator.unreadable.counts.tolist() == [3, 3]
    assert sorted(reason.partition(":")[0] for reason in collator.unreadable.reasons()) == [
        f"absent-{i}.mp4" for i in range(3)
    ]


def test_workers_that_count_at_the_same_time_lose_nothing():
    rows = UnreadableRows(100, 0.05)

    def count(batch):
        for _ in range(2000):
            rows.read()
        return batch

    assert len(list(torch.utils.data.DataLoader(range(16), num_workers=4, collate_fn=count))) == 16
    assert rows.counts.tolist() == [16 * 2000, 0]


@pytest.mark.parametrize(
    ("share", "read", "left_out"), [(0.05, 0, 5), (0.05, 100, 10), (0.05, 1000, 57), (0.5, 0, 10)]
)
def test_a_share_ends_a_run_beyond_chance(share, read, left_out):
    """The last row that may be left out, and one more."""
    rows = UnreadableRows(100, share)
    for _ in range(read):
        rows.read()
    for _ in range(left_out):
        rows.leave_out(ValueError("a\nb"))
    with pytest.raises(UnreadableDataError, match=rf"^{left_out + 1} of {read + left_out + 1} samples .*: a b$"):
        rows.leave_out(ValueError("a b"))


def test_one_row_in_fifty_ends_no_run_by_chance():
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = UnreadableRows(100, 0.05)
        for bad in (torch.rand(400, generator=draw) < 0.02).tolist():
            rows.leave_out(ValueError("bad")) if bad else rows.read()


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (0, 1, "all 1 samples could not be used; the last reasons: absent-0.mp4"),
        (30, 2, "2 of 32 samples could not be used, more than max_unreadable_share=0.05; the last reasons: "),
        (38, 2, None),
    ],
)
def test_the_share_is_exact_once_all_rows_were_seen(checkpoint, tmp_path, good, bad, message):
    trainer = make_trainer(checkpoint, tmp_path, rows=rows_with_absent(good, bad), num_train_epochs=2, max_steps=-1)
    trainer.add_callback(UnreadableRowsCallback(trainer.data_collator))
    if message is None:
        trainer.train()
    else:
        with pytest.raises(UnreadableDataError, match=message):
            trainer.train()
    assert trainer.state.epoch == (2 if message is None else 1)


def test_a_part_of_the_rows_says_nothing_exact(checkpoint, tmp_path):
    trainer = make_trainer(checkpoint, tmp_path, rows=rows_with_absent(40, 2)[::-1], max_steps=1)
    trainer.add_callback(UnreadableRowsCallback(trainer.data_collator))
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("options", ({"max_unreadable": -1}, {"max_unreadable_share": 1.5}))
def test_limits_that_are_no_limits(processor, options):
    with pytest.raises(ValueError, match="expected a number of rows, and a share from 0 to 1"):
        VideoLlamaDataCollator(processor, **options)


MARKED = "{% for m in messages %}{%- generation -%}{{ m['content'] }}{%- endgeneration -%}{% endfor %}"


@pytest.mark.parametrize("template", [MARKED.replace("generation", "endgeneration"), "{#" + MARKED + "#}", "{{ 1 }}"])
def test_a_template_without_marks_is_refused_with_what_to_add(processor, template):
    with pytest.raises(ValueError, match=r"does not mark the answers.*put \{% generation %\} before .*endgeneration"):
        VideoLlamaDataCollator(processor, chat_template=template)
    assert VideoLlamaDataCollator(processor, chat_template=template, text="caption")  # has no answers to mark


@pytest.mark.parametrize("template", [None, "default", MARKED, load_chat_template("vicuna-training")])
def test_a_template_with_marks_is_taken(processor, template):
    assert VideoLlamaDataCollator(processor, chat_template=template)


def test_the_processors_own_template_is_checked(processors):
    processor = processors["llama-2"]
    template, processor.chat_template = processor.chat_template, "{{ messages }}"
    try:
        with pytest.raises(ValueError, match="does not mark the answers"):
            VideoLlamaDataCollator(processor)
    finally:
        processor.chat_template = template
