"""
From nothing to answers about a clip with sound, without a download: renders a clip that the tiny model of this package
has not seen the like of, and asks about it. Run it with `make demo`, or `python -m examples.demo [FOLDER]`.
"""

import argparse
from pathlib import Path

from transformers import pipeline

from transformers_videollama import TINY_CHECKPOINT

from .tiny.demo_clip import render_demo_clip


QUESTIONS = ("What do you see?", "How does the circle move?", "What do you hear?", "What do you see and hear?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="where the clip goes (demo)")
    folder = parser.parse_args().folder
    folder.mkdir(exist_ok=True)
    clip = render_demo_clip(folder / "clip.mp4")

    ask = pipeline("any-to-any", model=TINY_CHECKPOINT)
    print(f"\n{clip}: a red circle moves left, and a bell rings\n")
    for question in QUESTIONS:
        content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": question}]
        answer = ask(text=[{"role": "user", "content": content}], return_full_text=False)[0]["generated_text"]
        print(f"{question:26} {answer.strip()}")


if __name__ == "__main__":
    main()
