"""
Trains one stage of Video-LLaMA with the library's `Trainer`: the stage's arguments, unless others are given.

python examples/train.py --model Video-LLaMA-2-7B --stage vl2 --data chats.jsonl --media-dir videos --bf16
python examples/train.py --config examples/configs/vl2.yaml --model Video-LLaMA-2-7B --data llava.json ...
accelerate launch --config_file examples/accelerate/ddp.yaml examples/train.py --model Video-LLaMA-2-7B --stage vl2 ...
python examples/train.py ... --branch-from runs/vl1/branch.safetensors --lora --load-in-4bit --activation_checkpointing
python examples/train.py ... --resume

The smallest that works on a CPU, behind `make demo`, which leaves a clip, and with the tiny model of the package:

echo '[{"messages": [{"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]},
                     {"role": "assistant", "content": "A circle moves."}]}]' > demo/chats.json
python examples/train.py --model src/transformers_videollama/tiny --stage vl2 --data demo/chats.json --max_steps 3

What comes out lies in `--output_dir`, `runs/STAGE` by default: checkpoints, `branch.safetensors` or the adapter, and
the processor, which asks as the model was trained.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from peft import get_peft_model
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)
from transformers.hf_argparser import string_to_bool

from transformers_videollama.quantization import quantization_config
from transformers_videollama.training import (
    STAGES,
    AnswerCallback,
    AugmentedDataset,
    BranchCheckpointCallback,
    CheckpointCallback,
    CurveCallback,
    EpochCallback,
    UnreadableRowsCallback,
    last_checkpoint,
    load_branch,
    load_features,
    load_messages,
    mix,
    prepare_for_stage,
    save_branch,
)
from transformers_videollama.training.branches import trained_state
from transformers_videollama.training.stages import Recipe


DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of what is frozen
OF_THE_TRAINER = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
USAGE = "train.py --model DIR --stage STAGE (--data FILE | --features DIR) [--config FILE] [options]"
# One of them on the command line silences the other in a file
RIVALS = {"data": "features", "features": "data", "max_steps": "num_train_epochs", "num_train_epochs": "max_steps"}

NUMBER = {"type": float, "metavar": "X"}
COUNT = {"type": int, "metavar": "N"}
SWITCH = {"action": argparse.BooleanOptionalAction, "default": False}
FLAG = {"type": string_to_bool, "nargs": "?", "const": True, "metavar": "BOOL"}
# Of the Trainer's, those that most runs need; the others are parsed behind them
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "data": {
        "data": {"nargs": "+", "metavar": "FILE", "help": "files that load_messages reads"},
        "format": {"nargs": "+", "metavar": "NAME", "help": "one for all files or one for each (messages)"},
        "media_dir": {
            "nargs": "+",
            "metavar": "DIR",
            "help": "where paths in them start from (the folder of the file)",
        },
        "mix": {
            "nargs": "+",
            **NUMBER,
            "help": "how often rows of each file are drawn: 100 24 (as many as they have)",
        },
        "features": {"metavar": "DIR", "help": "what videollama precompute wrote, instead of files"},
        "eval_data": {"metavar": "FILE", "help": "held-out rows: their losses and the answers to their questions"},
        "eval_media_dir": {"metavar": "DIR", "help": "where paths in it start from (its folder)"},
        "max_eval_rows": {**COUNT, "help": "how many of them are asked, the first ones (all)"},
        "max_unreadable": {**COUNT, "default": 100, "help": "rows that may be left out (%(default)s)"},
        "max_unreadable_share": {**NUMBER, "default": 0.05, "help": "the share of rows that may (%(default)s)"},
    },
    "what trains": {
        "model": {"metavar": "DIR", "help": "a converted checkpoint"},
        "stage": {"choices": list(STAGES), "help": "which branch, on which text, with which settings"},
        "recipe": {
            "choices": get_args(Recipe),
            "default": "asked",
            "help": "the prompt: as the model will be asked, or the paper's, without sound and times (%(default)s)",
        },
        "branch_from": {"metavar": "FILE", "help": "a trained branch to begin with, such as that of the stage before"},
        "lora": {**SWITCH, "help": "train adapters of the language model, too"},
    },
    "how long, how fast": {
        "num_train_epochs": {**NUMBER, "help": "instead of the steps of the stage"},
        "max_steps": {**COUNT, "help": "(of the stage)"},
        "learning_rate": {**NUMBER, "help": "(of the stage)"},
        "warmup_steps": {**NUMBER, "help": "steps, or below 1 a share of all (the share of the stage)"},
        "per_device_train_batch_size": {**COUNT, "help": "rows of a step on each device (of the stage)"},
        "gradient_accumulation_steps": {**COUNT, "help": "batches whose rows count together (1)"},
        "seed": {**COUNT, "help": "of the order of rows, of random frames and crops (42)"},
    },
    "memory and devices": {
        "bf16": {**FLAG, "help": "what is frozen in bfloat16"},
        "load_in_4bit": {**SWITCH, "help": "quantise the language model; needs --lora"},
        "activation_checkpointing": {**FLAG, "help": "keep fewer activations, and compute them again"},
        "dataloader_num_workers": {**COUNT, "help": "processes that read media (4)"},
        "use_cpu": {**FLAG, "help": "no accelerator"},
    },
    "saving and resuming": {
        "output_dir": {"metavar": "DIR", "help": "(runs/STAGE)"},
        "save_steps": {**NUMBER, "help": "steps between checkpoints (500)"},
        "save_total_limit": {**COUNT, "help": "checkpoints that are kept (all)"},
        "resume": {**SWITCH, "help": "go on from the newest complete checkpoint"},
    },
    "watching": {
        "logging_steps": {**NUMBER, "help": "steps between losses that are logged (500)"},
        "report_to": {"nargs": "+", "metavar": "NAME", "help": "tensorboard, wandb, ... (none)"},
    },
}
if "activation_checkpointing" not in OF_THE_TRAINER:  # transformers before 5.24 has it under its older name alone
    OPTIONS["memory and devices"]["activation_checkpointing"]["dest"] = "gradient_checkpointing"


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The options of this script, and those of `TrainingArguments` that were given."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        usage=USAGE,
        description=__doc__,
        epilog="All arguments of the library's TrainingArguments are taken; --help-all lists the others.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for name, option in options.items():
            group.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), **option)
    other = parser.add_argument_group("other")
    other.add_argument("--config", metavar="FILE", help="YAML with any of these options; the command line wins")
    other.add_argument("-h", "--help", action="store_true", help="show this and end")
    other.add_argument("--help-all", action="store_true", help="show the Trainer's other arguments as well and end")
    trainer_parser = HfArgumentParser(TrainingArguments, usage=USAGE, allow_abbrev=False, add_help=False)

    args, _ = parser.parse_known_args(argv)
    if args.help or args.help_all:
        sys.stdout.write(parser.format_help() + (trainer_parser.format_help() if args.help_all else ""))
        raise SystemExit(0)
    if args.config:
        argv = [*options_of_file(args.config, args), *argv]
    trainer_parser.set_defaults(**dict.fromkeys(OF_THE_TRAINER))
    args, rest = parser.parse_known_args(argv)
    values = vars(trainer_parser.parse_args(rest)) | vars(args)
    check(parser, args)
    return args, {name: values[name] for name in OF_THE_TRAINER if values[name] is not None}


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name in ("model", "stage"):
        if getattr(args, name) is None:
            parser.error(f"--{name} is missing; give it here, or in the file of --config")
    if (args.data is None) == (args.features is None):
        parser.error("give files with --data or a folder with --features, and not both")
    if args.load_in_4bit and not args.lora:
        parser.error("--load-in-4bit needs --lora: the Trainer takes quantised models with adapters only")


def options_of_file(path: str, on_the_line: argparse.Namespace) -> Iterator[str]:
    """The options in a YAML file, as the command line has them."""
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SystemExit(f"train.py: {path} cannot be read as YAML: {sentence(error)}") from error
    if not isinstance(settings, dict):
        raise SystemExit(f"train.py: {path} has {str(settings)[:80]}, expected options such as 'stage: vl2'")
    own = {name for options in OPTIONS.values() for name in options}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in own and name not in OF_THE_TRAINER:
            raise SystemExit(f"train.py: {path} has the option {key}, which does not exist; --help-all lists all")
        rival = RIVALS.get(name)
        if value is None or (rival is not None and getattr(on_the_line, rival) is not None):
            continue
        if name in ("lora", "load_in_4bit", "resume"):
            if not isinstance(value, bool):
                raise SystemExit(f"train.py: {path} has {key}: {value}, expected true or false")
            yield f"--{name}" if value else f"--no-{name}"
            continue
        yield f"--{name}"
        yield from map(str, value) if isinstance(value, list) else (as_argument(value),)


def as_argument(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def load_rows(args: argparse.Namespace) -> Any:
    """The rows of all files, mixed."""

    def for_each(name: str, default: str | None) -> list:
        values = getattr(args, name) or [default]
        if len(values) not in (1, len(args.data)):
            raise ValueError(
                f"got {len(values)} values of --{name} for {len(args.data)} files; give one, or one for each"
            )
        return values * len(args.data) if len(values) == 1 else values

    sources = zip(args.data, for_each("format", "messages"), for_each("media_dir", None), strict=True)
    rows = [load_messages(path, format=name, media_dir=folder) for path, name, folder in sources]
    if len(rows) == 1 and args.mix is None:
        return rows[0]
    return mix(rows, args.mix or [len(part) for part in rows])


def load_model(args: argparse.Namespace, arguments: TrainingArguments) -> torch.nn.Module:
    """The model with what trains in this stage."""
    dtype = DTYPES[arguments.mixed_precision]
    options = {}
    if args.load_in_4bit:
        options["device_map"] = {"": arguments.device}
        options["quantization_config"] = quantization_config("4bit", compute_dtype=dtype)
    model = AutoModelForMultimodalLM.from_pretrained(args.model, dtype=dtype, **options)
    prepare_for_stage(model, STAGES[args.stage])
    if args.branch_from:
        load_branch(model, args.branch_from)
    return model


def sentence(error: Exception) -> str:
    """An error in one line. That of a process that loads data comes as its traceback, with the error at the end."""
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def main(argv: list[str] | None = None) -> None:
    args, given = parse(argv)
    try:
        train(args, given)
    except (OSError, ValueError) as error:  # files, rows and settings that cannot be used
        raise SystemExit(f"train.py: {sentence(error)}") from error


def train(args: argparse.Namespace, given: dict) -> None:
    stage = STAGES[args.stage]
    output_dir = given.pop("output_dir", f"runs/{stage.name}")
    if args.resume:
        given["resume_from_checkpoint"] = last_checkpoint(output_dir)
        if given["resume_from_checkpoint"] is None:
            raise ValueError(f"{output_dir} has no complete checkpoint to go on from; leave out --resume to begin")
    if args.eval_data:
        given.setdefault("eval_strategy", "steps" if "eval_steps" in given else "epoch")
    # Before the model: it may have to be loaded in shares, by what is set up here
    arguments = stage.training_arguments(output_dir, **given)
    try:
        processor = AutoProcessor.from_pretrained(args.model)
    except (OSError, ValueError) as error:  # the library does not always say of what
        raise ValueError(f"the model {args.model} cannot be loaded: {error}") from error
    collator = stage.collator(
        processor,
        recipe=args.recipe,
        max_unreadable=args.max_unreadable,
        max_unreadable_share=args.max_unreadable_share,
    )
    asked = collator.processor_as_trained()
    model = load_model(args, arguments)
    rows = load_features(args.features, model, asked) if args.features else load_rows(args)
    if args.lora:
        model = get_peft_model(model, stage.lora_config(model))
    saving = CheckpointCallback() if args.lora else BranchCheckpointCallback()  # PEFT saves what trains by itself
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=AugmentedDataset(rows, seed=arguments.seed),
        eval_dataset=load_messages(args.eval_data, media_dir=args.eval_media_dir) if args.eval_data else None,
        processing_class=asked,  # saved with every checkpoint
        callbacks=[EpochCallback(), UnreadableRowsCallback(collator), saving],
    )
    if args.eval_data:
        trainer.add_callback(AnswerCallback(trainer, trainer.eval_dataset, max_rows=args.max_eval_rows))
        trainer.add_callback(CurveCallback())
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    if args.lora:
        trained = trained_state(trainer.model)  # from all processes, where they share it out
        if trainer.is_world_process_zero():
            trainer.model.save_pretrained(arguments.output_dir, state_dict=trained)
    else:
        save_branch(trainer.model, Path(arguments.output_dir, "branch.safetensors"))
    if trainer.is_world_process_zero():
        asked.save_pretrained(arguments.output_dir)
    trainer.accelerator.wait_for_everyone()  # with gloo, a process that ends in the middle of this may abort or hang
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
