"""The model card: what the model knows, how it was made, and what it can do."""

import platform
from pathlib import Path

import torch
import transformers

from . import world
from .report import Results, tables


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: any-to-any
language: en
---

# Tiny Video-LLaMA

A Video-LLaMA of {parameters:.1f} million parameters. It sees coloured shapes that move and hears eight sounds,
although its audio branch was trained on pictures alone. It is for trying things out and for tests. It knows nothing
else.

| | |
|---|---|
| colours | {colours} |
| shapes | {shapes}; at most {most} in a clip |
| motions | {motions} |
| sounds | {sounds} |

It was trained on these questions ("{{}}" is "the object", or names it by its colour, its shape or both):

{questions}

This command made it

```bash
python -m examples.tiny demo/tiny --seed {seed}
```

in the repository of transformers_videollama, with Python {python}, torch {torch} and transformers {transformers}.
`examples/tiny/README.md` there says what was trained on what. The tables have the share of answers that are right to
the letter, without / with sound. The questions are about mp4 files of things that the training has not seen together:

{tables}"""


def write_card(model_folder: Path, parameters: int, results: Results, seed: int) -> None:
    """Write the card of a run as `README.md` into the folder of its model."""
    text = CARD.format(
        parameters=parameters / 1e6,
        colours=", ".join(world.COLOURS),
        shapes=", ".join(world.SHAPES),
        most=world.MAX_OBJECTS,
        motions=", ".join(world.MOTIONS.values()),
        sounds=", ".join(world.SOUNDS.values()),
        questions="\n".join(f"- {' '.join(texts)}" for texts in world.QUESTIONS.values()),
        seed=seed,
        python=platform.python_version(),
        torch=torch.__version__.split("+")[0],
        transformers=transformers.__version__,
        tables=tables([results]),
    )
    (model_folder / "README.md").write_text(text)
