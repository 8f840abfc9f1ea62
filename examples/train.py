"""
Trains one stage of Video-LLaMA with the library's `Trainer`: the recipe's arguments, unless others are given.

python examples/train.py --model Video-LLaMA-2-7B --stage vl2 --data chats.jsonl --media-dir videos --bf16
accelerate launch --config_file examples/accelerate/ddp.yaml examples/train.py --model Video-LLaMA-2-7B --stage vl2 ...
python examples/train.py ... --branch-from runs/vl1/branch.safetensors --lora --load-in-4bit --activation_checkpointing
python examples/train.py ... --resume

The smallest that works on a CPU, behind `make demo`, which leaves a clip, and with the tiny model of the package:

echo '[{"messages": [{"role": "user", "content": [{"type": "video", "path": "clip.mp4"}]},
                     {"role": "assistant", "content": "A circle moves."}]}]' > demo/chats.json
python examples/train.py --model src/transformers_videollama/tiny --stage vl2 --data demo/chats.json --max_steps 3

What comes out lies in `--output_dir`, `runs/STAGE` by default: checkpoints, and `branch.safetensors` or the adapter.
"""

import argparse
import dataclasses
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import (
    AutoModelForMultimodalLM,
    AutoProcessor,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

from transformers_videollama.quantization import quantization_config
from transformers_videollama.training import (
    STAGES,
    AugmentedDataset,
    BranchCheckpointCallback,
    EpochCallback,
    UnreadableRowsCallback,
    last_checkpoint,
    load_branch,
    load_features,
    load_messages,
    prepare_for_stage,
    save_branch,
)
from transformers_videollama.training.branches import trained_state


DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of what is frozen


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict]:
    """The options of this script, and those of `TrainingArguments` that were given."""
    parser = HfArgumentParser(
        TrainingArguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [field.name for field in dataclasses.fields(TrainingArguments) if field.init]
    parser.set_defaults(**dict.fromkeys(names))
    options = parser.add_argument_group("options of this script")
    options.add_argument("--model", required=True, help="a converted checkpoint")
    options.add_argument("--stage", required=True, choices=STAGES, help="of the recipe")
    source = options.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", help="a file that load_messages reads")
    source.add_argument("--features", help="a folder that videollama precompute wrote")
    options.add_argument("--format", default="messages", help="of the data (default: %(default)s)")
    options.add_argument("--media-dir", help="where the paths in the data start from (default: the data's folder)")
    options.add_argument("--branch-from", help="a trained branch to begin with, such as that of the stage before")
    options.add_argument("--lora", action="store_true", help="train adapters of the language model, too")
    options.add_argument("--load-in-4bit", action="store_true", help="quantise the language model; needs --lora")
    options.add_argument("--max-unreadable", type=int, default=100, help="rows that may be left out (%(default)s)")
    options.add_argument(
        "--max-unreadable-share", type=float, default=0.05, help="the share of rows that may (%(default)s)"
    )
    options.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint")
    if "activation_checkpointing" not in names:  # transformers before 5.24 has it under its older name alone
        older = {"dest": "gradient_checkpointing", "action": "store_true", "default": None}
        options.add_argument("--activation_checkpointing", help="keep fewer activations", **older)
    args = parser.parse_args(argv)
    if args.load_in_4bit and not args.lora:
        parser.error("--load-in-4bit needs --lora: the Trainer takes quantised models with adapters only")
    given = {name: vars(args).pop(name) for name in names}
    return args, {name: value for name, value in given.items() if value is not None}


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
    # Before the model: it may have to be loaded in shares, by what is set up here
    arguments = stage.training_arguments(output_dir, **given)
    try:
        processor = AutoProcessor.from_pretrained(args.model)
    except (OSError, ValueError) as error:  # the library does not always say of what
        raise ValueError(f"the model {args.model} cannot be loaded: {error}") from error
    collator = stage.collator(
        processor, max_unreadable=args.max_unreadable, max_unreadable_share=args.max_unreadable_share
    )
    model = load_model(args, arguments)
    if args.features:
        rows = load_features(args.features, model, processor)
    else:
        rows = load_messages(args.data, format=args.format, media_dir=args.media_dir)
    if args.lora:
        model = get_peft_model(model, stage.lora_config())
    saving = [] if args.lora else [BranchCheckpointCallback()]  # PEFT saves what trains
    trainer = Trainer(
        model,
        arguments,
        data_collator=collator,
        train_dataset=AugmentedDataset(rows, seed=arguments.seed),
        callbacks=[EpochCallback(), UnreadableRowsCallback(collator), *saving],
    )
    trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
    if args.lora:
        trained = trained_state(trainer.model)  # from all processes, where they share it out
        if trainer.is_world_process_zero():
            trainer.model.save_pretrained(arguments.output_dir, state_dict=trained)
    else:
        save_branch(trainer.model, Path(arguments.output_dir, "branch.safetensors"))
    trainer.accelerator.wait_for_everyone()  # with gloo, a process that ends in the middle of this may abort or hang
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
