"""Results as JSON, as a table, and as pictures."""

import json
from pathlib import Path

import matplotlib


matplotlib.use("Agg")
from matplotlib import pyplot


def write_report(folder: Path, results: dict) -> str:
    """Write `results.json`, `results.md` and the plots into `folder` -> the table."""
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    text = table(results)
    (folder / "results.md").write_text(text)
    plot_losses(folder)
    plot_accuracy(folder, results)
    return text


def table(results: dict) -> str:
    """A markdown table: a row for each kind of question, number of things and sound; a column for each model."""
    names = list(results)
    lines = ["| question, things, sound | number | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for group, number in results[names[0]]["number"].items():
        shares = [results[name]["accuracy"].get(group) for name in names]
        cells = ["" if share is None else f"{share:.1%}" for share in shares]
        lines.append(f"| {group} | {number} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_losses(folder: Path) -> None:
    """The loss of every phase over its steps, as `losses.png`."""
    curves = {}
    for record in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
        losses = json.loads(record.read_text()).get("losses", {})
        curves |= {f"{record.stem}: {name}": points for name, points in losses.items()}
    figure, axes = pyplot.subplots(2, 5, figsize=(16, 6), squeeze=False)
    for axis, (name, losses) in zip(axes.flat, curves.items(), strict=False):
        points = losses if isinstance(losses[0], list) else list(enumerate(losses))
        axis.plot(*zip(*points, strict=True), linewidth=0.8)
        axis.set(title=name, yscale="log", xlabel="step")
    figure.tight_layout()
    figure.savefig(folder / "losses.png", dpi=100)
    pyplot.close(figure)


def plot_accuracy(folder: Path, results: dict) -> None:
    """Accuracy of every group of questions, one bar for each model, as `accuracy.png`."""
    groups = list(next(iter(results.values()))["accuracy"])
    figure, axis = pyplot.subplots(figsize=(16, 6))
    width = 0.8 / len(results)
    for i, (name, result) in enumerate(results.items()):
        shares = [result["accuracy"].get(group, 0.0) for group in groups]
        axis.bar([place + i * width for place in range(len(groups))], shares, width, label=name)
    axis.set_xticks([place + 0.4 for place in range(len(groups))], groups, rotation=75, ha="right")
    axis.set(ylabel="right answers", ylim=(0, 1.02))
    axis.legend()
    figure.tight_layout()
    figure.savefig(folder / "accuracy.png", dpi=100)
    pyplot.close(figure)
