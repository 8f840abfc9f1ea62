"""
From nothing to an answer about a clip with sound, without a download: renders a clip, converts the tiny checkpoint of
the tests, and asks about the clip. Run it with `make demo`, or `python examples/demo.py [FOLDER]`.

The tiny checkpoint has the layout of the released ones but random weights, so its answer is noise; what the demo shows
is the way from the original's files to a pipeline.
"""

import argparse
import shutil
from pathlib import Path

from render_clip import render_clip
from transformers import pipeline, set_seed

import transformers_videollama  # noqa: F401 (registers the Auto classes)
from conversion.__main__ import main as convert


TINY = Path(__file__).parents[1] / "tests" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="where the demo writes (demo)")
    folder = parser.parse_args().folder
    checkpoint = folder / "tiny-video-llama"
    folder.mkdir(exist_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)

    clip = folder / "clip.mp4"
    render_clip(clip)
    convert([str(TINY / "reference" / "checkpoints"), str(checkpoint), "--config", str(TINY / "tiny_heads.json")])

    question = "What do you see and hear?"
    video = {"type": "video", "path": str(clip)}
    chat = [{"role": "user", "content": [video, {"type": "text", "text": question}]}]
    set_seed(0)
    answer = pipeline("any-to-any", model=str(checkpoint))(text=chat, max_new_tokens=20, return_full_text=False)
    print(f"\nclip:     {clip} (video with sound)")
    print(f"question: {question}")
    print(f"answer:   {answer[0]['generated_text'].strip()!r}")
    print("(noise, as expected: the tiny checkpoint has random weights; a released one answers in words)")


if __name__ == "__main__":
    main()
