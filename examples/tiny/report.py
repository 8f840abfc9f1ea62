"""
Results of a run, or of several runs together: as JSON, as tables and as pictures.

python -m examples.tiny.report FOLDER [FOLDER ...] --pictures OUT
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from . import world


matplotlib.use("Agg")
from matplotlib import pyplot


NUMBERS = range(1, world.MAX_OBJECTS + 1)
HEARING = ("silent", "sound")
COLUMNS = {1: "one thing", 2: "one of two", 3: "one of three"}
# What the ablations are judged by: kind of question, numbers of things, clips
JUDGED = {
    "colour of one thing": ("colour", [1], HEARING),
    "motion of one thing": ("motion", [1], HEARING),
    "motion of one of two": ("motion", [2], HEARING),
    "count": ("count", NUMBERS, HEARING),
    "hear a sound": ("hear", NUMBERS, ["sound"]),
    "hear nothing in silence": ("hear", NUMBERS, ["silent"]),
}

Results = dict[str, dict]  # of each model: what `evaluate` returns


def write_report(folder: Path, results: Results) -> str:
    """Write `results.json`, `results.md` and the plots into `folder` -> the tables."""
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    text = tables([results])
    (folder / "results.md").write_text(text)
    plot_losses([folder], folder)
    plot_accuracy([results], folder)
    return text


def share(result: dict, kind: str, numbers: Sequence[int], clips: Sequence[str]) -> float:
    """Share of right answers to one kind of question, over groups of clips; NaN if it was not asked."""
    groups = [f"{kind}, {number}, {heard}" for number in numbers for heard in clips]
    asked = [result["number"].get(group, 0) for group in groups]
    right = [result["accuracy"].get(group, 0) * number for group, number in zip(groups, asked, strict=True)]
    return sum(right) / sum(asked) if sum(asked) else float("nan")


def shares(runs: list[Results], model: str, *judged) -> np.ndarray:
    """Of each run that tested the model, see `share`."""
    return np.array([share(run[model], *judged) for run in runs if model in run])


def tables(runs: list[Results]) -> str:
    """Two markdown tables of means: all questions, on clips without and with sound; and the ablations."""
    lines = [f"| question | {' | '.join(COLUMNS.values())} |", "|---|" + "---|" * len(COLUMNS)]
    for kind in world.QUESTIONS:
        cells = [[shares(runs, "full", kind, [number], [heard]) for heard in HEARING] for number in NUMBERS]
        lines.append(f"| {kind} | " + " | ".join(" / ".join(map(percent, pair)) for pair in cells) + " |")
    lines += ["", f"| model | {' | '.join(JUDGED)} |", "|---|" + "---|" * len(JUDGED)]
    for model in runs[0]:
        cells = [percent(shares(runs, model, *judged)) for judged in JUDGED.values()]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def percent(values: np.ndarray) -> str:
    """The mean, and how far single runs are off if that is more than a per cent."""
    if np.isnan(values).any():
        return ""
    spread = np.abs(values - values.mean()).max()
    return f"{values.mean():.0%}" + (f" ± {100 * spread:.0f}" if spread >= 0.01 else "")


def plot_losses(folders: list[Path], out: Path) -> None:
    """The loss of every phase over its steps, a line for each run, as `losses.png`."""
    figure, axes = pyplot.subplots(2, 4, figsize=(13, 5.5))
    for folder in folders:
        places = iter(axes.flat)
        for phase in ("language", "frames", "imagebind", "vl1", "vl2", "al1", "al2"):
            for name, losses in json.loads((folder / f"{phase}.json").read_text())["losses"].items():
                axis = next(places)
                points = losses if isinstance(losses[0], list) else list(enumerate(losses, start=1))
                axis.plot(*zip(*points, strict=True), linewidth=0.7)
                axis.set(title=name, yscale="log", xlabel="step")
    figure.tight_layout()
    figure.savefig(out / "losses.png", dpi=80)
    pyplot.close(figure)


def plot_accuracy(runs: list[Results], out: Path) -> None:
    """Right answers to every kind of question, and the ablations, as `accuracy.png`: bars are means, dots are runs."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4), sharey=True)
    _bars(left, list(world.QUESTIONS), {f"{n} in the clip": (kinds_with(n), "full") for n in NUMBERS}, runs)
    _bars(right, list(JUDGED), {model: (list(JUDGED.values()), model) for model in runs[0]}, runs)
    left.set_ylabel("right answers")
    figure.tight_layout()
    figure.savefig(out / "accuracy.png", dpi=80)
    pyplot.close(figure)


def kinds_with(number: int) -> list[tuple]:
    return [(kind, [number], HEARING) for kind in world.QUESTIONS]


def _bars(axis, labels: list[str], series: dict[str, tuple[list[tuple], str]], runs: list[Results]) -> None:
    """A group of bars for each label, in each a bar for each of the series: what is judged, and of which model."""
    width = 0.8 / len(series)
    for i, (name, (judged, model)) in enumerate(series.items()):
        values = np.array([shares(runs, model, *one) for one in judged])  # (labels, runs)
        places = np.arange(len(labels)) + (i + 0.5) * width - 0.4
        axis.bar(places, np.nan_to_num(values.mean(axis=1)), width, label=name)
        axis.plot(places, values, ".", color="black", markersize=3)
    axis.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axis.set_ylim(0, 1.02)
    axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(series), frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of runs of examples.tiny")
    parser.add_argument("--pictures", type=Path, metavar="OUT", help="folder for losses.png and accuracy.png")
    options = parser.parse_args()
    runs = [json.loads((folder / "results.json").read_text()) for folder in options.folders]
    print(tables(runs))
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        plot_losses(options.folders, options.pictures)
        plot_accuracy(runs, options.pictures)


if __name__ == "__main__":
    main()
