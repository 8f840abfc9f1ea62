"""The options of `examples/train.py`: their groups, files of them, and the stages of the paper."""

import json
import math
import re

import pytest
import train as example
import yaml
from pages import ROOT

from transformers_videollama.training import STAGES


CONFIGS = ROOT / "examples" / "configs"
GIVEN = ("--model", "checkpoint", "--stage", "vl2", "--data", "rows.json")
# Batch per GPU, steps, warm-up and learning rates of the original
PAPER = {
    "vl1": (1e-4, 8e-5, 2500, 12_500, 32),
    "vl2": (3e-5, 1e-5, 1000, 3000, 4),
    "al1": (1e-4, 8e-5, 5000, 25_000, 32),
    "al2": (3e-5, 1e-5, 400, 3000, 4),
}


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "options.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", PAPER)
def test_files_give_the_stages_of_the_paper(name, tmp_path, processors):
    args, given = example.parse(["--config", str(CONFIGS / f"{name}.yaml"), "--model", "checkpoint"])
    assert (args.stage, args.recipe) == (name, "paper")
    assert len(args.data) == len(args.format) == len(args.media_dir)
    assert args.mix == ([100, 24] if name.endswith("1") else None)
    assert given.pop("output_dir") == f"runs/{name}"
    arguments = STAGES[name].training_arguments(str(tmp_path), use_cpu=True, **given)
    learning_rate, minimum, warmup, steps, batch = PAPER[name]
    assert arguments.learning_rate == learning_rate
    assert (arguments.max_steps, arguments.per_device_train_batch_size) == (steps, batch)
    assert arguments.get_warmup_steps(steps) == warmup
    assert arguments.lr_scheduler_type == "cosine_warmup_with_min_lr"
    assert math.isclose(arguments.lr_scheduler_kwargs["min_lr_rate"] * learning_rate, minimum)
    assert (arguments.weight_decay, arguments.adam_beta1, arguments.adam_beta2) == (0.05, 0.9, 0.999)
    collator = STAGES[name].collator(processors["vicuna"], recipe=args.recipe)
    assert not collator.load_audio_from_video
    assert not collator.add_timestamps


def test_there_is_a_file_for_each_stage_of_the_paper():
    assert {path.stem for path in CONFIGS.iterdir()} == set(PAPER)


def test_the_command_line_wins(write):
    text = "stage: vl1\nmodel: other\ndata: [a.json, b.json]\nlearning_rate: 1.0e-3\nmax_steps: 7\n"
    path = write(text + "lora: true\nbf16: true\n")
    args, given = example.parse(["--config", path])
    assert (args.stage, args.model, args.data, args.lora) == ("vl1", "other", ["a.json", "b.json"], True)
    assert given == {"learning_rate": 1e-3, "max_steps": 7, "bf16": True}
    options = [
        "--learning_rate",
        "5",
        "--no-lora",
        "--bf16",
        "false",
        "--num_train_epochs",
        "2",
        "--features",
        "there",
    ]
    args, given = example.parse([*options, "--config", path, "--model", "this"])
    assert (args.stage, args.model, args.data, args.features, args.lora) == ("vl1", "this", None, "there", False)
    assert given == {"learning_rate": 5, "num_train_epochs": 2, "bf16": False}


def test_any_argument_of_the_trainer_can_stand_in_a_file(write):
    text = (
        "lr_scheduler_kwargs: {min_lr_rate: 0.5}\noptim: adamw_torch\nreport_to: [tensorboard, wandb]\nsave-steps: 3\n"
    )
    _, given = example.parse([*GIVEN, "--config", write(text + "max_grad_norm: null\n")])
    assert json.loads(given.pop("lr_scheduler_kwargs")) == {"min_lr_rate": 0.5}
    assert given == {"optim": "adamw_torch", "report_to": ["tensorboard", "wandb"], "save_steps": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    (
        ("stage: vl1\nlerning_rate: 1\n", "has the option lerning_rate, which does not exist"),
        ("config: other.yaml\n", "has the option config, which"),
        ("- vl1\n", r"has \['vl1'\], expected options such as 'stage: vl2'"),
        ("", "has None, expected options"),
        ("stage: [vl1\n", "cannot be read as YAML"),
        ("lora: 3\n", "has lora: 3, expected true or false"),
    ),
)
def test_a_file_that_cannot_be_used_is_named(write, text, message):
    path = write(text)
    with pytest.raises(SystemExit, match=f"^train.py: {re.escape(path)} {message}") as caught:
        example.parse([*GIVEN, "--config", path])
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_is_named():
    with pytest.raises(SystemExit, match=r"^train.py: absent\.yaml cannot be read as YAML: .*No such file"):
        example.parse([*GIVEN, "--config", "absent.yaml"])


@pytest.mark.parametrize(
    ("argv", "message"),
    (
        (("--stage", "vl2", "--data", "a"), "--model is missing"),
        (("--model", "m", "--data", "a"), "--stage is missing"),
        (GIVEN[:4], "give files with --data or a folder with --features, and not both"),
        ((*GIVEN, "--features", "f"), "and not both"),
        ((*GIVEN, "--load-in-4bit"), "needs --lora"),
        ((*GIVEN, "--lerning_rate", "1"), "unrecognized arguments: --lerning_rate"),
        ((*GIVEN, "--stage", "vl3"), "invalid choice: 'vl3'"),
        ((*GIVEN, "--recipe", "papers"), "invalid choice: 'papers'"),
        ((*GIVEN, "--max_steps", "many"), "invalid int value: 'many'"),
    ),
)
def test_options_that_cannot_be_used_are_named(argv, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        example.parse(list(argv))
    assert message in capsys.readouterr().err


def test_the_wrong_type_in_a_file_is_named(write, capsys):
    with pytest.raises(SystemExit, match="2"):
        example.parse([*GIVEN, "--config", write("max_steps: many\n")])
    assert "--max_steps/--max-steps: invalid int value: 'many'" in capsys.readouterr().err


def test_help_is_grouped_and_short(capsys):
    with pytest.raises(SystemExit, match="0"):
        example.parse(["--help"])
    text = capsys.readouterr().out
    titles = re.findall(r"^(\w[\w, ]+):$", text, flags=re.MULTILINE)
    assert titles == [*example.OPTIONS, "other"]
    assert "--adam_beta1" not in text
    assert len(text.splitlines()) < 150
    assert "--help-all" in text


def test_help_all_has_every_argument(capsys):
    with pytest.raises(SystemExit, match="0"):
        example.parse(["--help-all"])
    text = capsys.readouterr().out
    assert not [name for name in example.OF_THE_TRAINER if f"--{name}" not in text]


def test_both_spellings_are_one_option():
    for name in ("max_unreadable_share", "max-unreadable-share"):
        assert example.parse([*GIVEN, f"--{name}", "0.5"])[0].max_unreadable_share == 0.5
    for name in ("per_device_train_batch_size", "per-device-train-batch-size", "adam_beta1", "adam-beta1"):
        assert list(example.parse([*GIVEN, f"--{name}", "1"])[1].values()) == [1]


def test_several_files_are_mixed(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra transformers-videollama[train] is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def rows(name: str, count: int) -> str:
        said = {"role": "assistant", "content": name}
        (tmp_path / name).write_text(json.dumps([{"messages": [{"role": "user", "content": "?"}, said]}] * count))
        return str(tmp_path / name)

    files = [rows("a.json", 30), rows("b.json", 30)]

    def answers(*options: str) -> list[str]:
        args, _ = example.parse(["--model", "m", "--stage", "vl2", "--data", *files, *options])
        return [row["messages"][1]["content"][0]["text"] for row in example.load_rows(args)]

    mixed = answers("--mix", "90", "10")
    assert set(mixed) == {"a.json", "b.json"}
    assert mixed.count("a.json") > 3 * mixed.count("b.json") > 60
    assert 15 < answers()[:60].count("a.json") < 45
    with pytest.raises(ValueError, match="got 3 values of --format for 2 files; give one, or one for each"):
        answers("--format", "messages", "messages", "messages")
    with pytest.raises(ValueError, match="got 1 ratios for 2 datasets"):
        answers("--mix", "1")


def test_files_are_yaml_that_is_read_alike_everywhere():
    """YAML 1.1 takes 1e-4 for text."""
    for path in CONFIGS.iterdir():
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert isinstance(settings["learning_rate"], float)
