"""
`python -m conversion` of files of the original's names and shapes, of zeros that take no room on the disk, against
copying the files.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .measure import Memory, Options, memory_of
from .sparse import original_shapes, write_pth, write_safetensors


__all__ = ["run"]

TOKENIZER = Path(__file__).parents[1] / "tests" / "data" / "reference" / "checkpoints" / "llama-2-7b-chat-hf"
LAYERS = {"tiny": 1, "small": 4, "7b": 32}  # of the language model; all else has its released size
CONVERT = """
assert main([{source!r}, {output!r}]) == 0
"""
COPY = """
for path in sorted(pathlib.Path({source!r}).rglob("*")):
    if path.is_file():
        with path.open("rb") as source, open({target!r}, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 24)
"""


def run(options: Options) -> dict[str, Any]:
    """Rows: copying the files and converting them, once each, as both write gigabytes."""
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "original", Path(name) / "converted"
        size = write_source(source, LAYERS[options.size])
        preparation = "import shutil\nfrom transformers_videollama.convert.command import main"
        copied = memory_of(preparation, COPY.format(source=str(source), target=str(Path(name) / "copy")))
        (Path(name) / "copy").unlink()
        converted = memory_of(preparation, CONVERT.format(source=str(source), output=str(output)))
        shutil.rmtree(output)
    return {
        "rows": [row_of("copy", copied, copied), row_of("convert", converted, copied)],
        "source, GiB": size / 2**30,
    }


def row_of(what: str, run: Memory, copied: Memory) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": run.seconds,
        "speed, of copying": copied.seconds / run.seconds,
        "GiB before": run.before_mib / 1024,
        "GiB more at most": run.more_mib / 1024,
    }


def write_source(folder: Path, num_layers: int) -> int:
    """Returns the bytes of all files."""
    llama = folder / TOKENIZER.name
    llama.mkdir(parents=True)
    for file, shapes in original_shapes().items():
        write_pth(folder / file, shapes, torch.float32)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, llama / name)
    config = LlamaConfig(num_hidden_layers=num_layers, bos_token_id=1, eos_token_id=2, pad_token_id=0, dtype="float16")
    config.save_pretrained(llama)
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in LlamaForCausalLM(config).state_dict().items()}
    write_safetensors(llama, shapes, torch.float16)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
