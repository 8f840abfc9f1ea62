"""
`from_pretrained` of a folder in the checkpoint format, of zeros that take no room on the disk, against reading the
same bytes; importing the package, which registers with the library's Auto classes, against importing these alone; and
the help of the command, which needs neither. The start of Python is not in these seconds.
"""

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM

from transformers_videollama.quantization import quantization_config

from .measure import Memory, Options, memory_of
from .models import config_of
from .sparse import write_safetensors


__all__ = ["quantised_model_of", "run", "write_model"]

LOADED = "from_pretrained, and every page of the weights touched"
READ = """
buffer = bytearray(1 << 24)
for path in sorted(pathlib.Path({folder!r}).glob("*.safetensors")):
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
"""
# On a CPU, the library maps weights that need no conversion: they are read when they are used
LOAD = """
model = AutoModelForMultimodalLM.from_pretrained({folder!r}, dtype={dtype!r})
for parameter in model.parameters():
    parameter.detach().view(-1)[::1024].sum()
"""
AUTO_CLASSES = "from transformers import AutoModelForMultimodalLM, AutoProcessor"
# The package knows the command by its name
HELP = """
import contextlib, sys
sys.argv[:] = ["videollama", "--help"]
from transformers_videollama.cli import main
with contextlib.suppress(SystemExit):
    main()
"""
# What loading imports on its way would count as memory of the model
PREPARE = """
import torch, transformers_videollama
from transformers import AutoModelForMultimodalLM
AutoModelForMultimodalLM.from_pretrained(transformers_videollama.TINY_CHECKPOINT)
"""


def run(options: Options) -> dict[str, Any]:
    """Rows: reading alone, loading, the imports, the command's help."""
    with tempfile.TemporaryDirectory() as folder:
        weights = write_model(Path(folder), options) / 2**20
        reading = [memory_of("", READ.format(folder=folder)) for _ in range(options.repeats)]
        dtype = str(options.dtype).removeprefix("torch.")
        loading = [memory_of(PREPARE, LOAD.format(folder=folder, dtype=dtype)) for _ in range(options.repeats)]
    library = starting("import transformers", options)
    auto_classes = starting(f"import transformers\n{AUTO_CLASSES}", options)
    package = starting(f"import transformers_videollama\n{AUTO_CLASSES}", options)
    rows = [
        row_of("read the files", reading, None, weights),
        row_of(LOADED, loading, reading, weights),
        row_of("import transformers", library, None, weights),
        row_of("import transformers, and the Auto classes", auto_classes, None, weights),
        row_of("import transformers_videollama, and the Auto classes", package, auto_classes, weights),
        row_of("videollama --help", starting(HELP, options), None, weights),
    ]
    return {"rows": rows, "weights, MiB": weights}


def starting(code: str, options: Options) -> list[Memory]:
    """The first is not counted: it reads the files into the system's cache."""
    return [memory_of("", code) for _ in range(options.repeats + 1)][1:]


def write_model(folder: Path, options: Options) -> int:
    """Returns the bytes of the weights."""
    config = config_of(options.size)
    config.architectures = ["VideoLlamaForConditionalGeneration"]
    with torch.device("meta"):
        model = AutoModelForMultimodalLM.from_config(config, dtype=options.dtype)
    config.save_pretrained(folder)
    state = model.state_dict()
    write_safetensors(folder, {key: tuple(tensor.shape) for key, tensor in state.items()}, options.dtype)
    return sum(tensor.numel() for tensor in state.values()) * options.dtype.itemsize


def quantised_model_of(kind: str, options: Options):
    """The model with its language model quantised, by `from_pretrained`, from weights that are zeros."""
    quantising = quantization_config(kind, device=options.device)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), options)
        model = AutoModelForMultimodalLM.from_pretrained(
            folder, dtype=options.dtype, device_map=str(options.device), quantization_config=quantising
        )
    model.generation_config.update(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model.requires_grad_(False).eval()


def row_of(what: str, runs: list[Memory], against: list[Memory] | None, weights: float) -> dict[str, Any]:
    seconds = statistics.median(run.seconds for run in runs)
    base = None if against is None else statistics.median(run.seconds for run in against)
    return {
        "what": what,
        "seconds": seconds,
        "times": None if base is None else seconds / base,
        "MiB more at most": max(run.more_mib for run in runs),
        "of the weights": max(run.more_mib for run in runs) / weights if what == LOADED else None,
    }
