"""The curves of a run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..files import appearing


__all__ = ["CurveCallback", "draw_curves"]

CURVES_FILE = "curves.png"
LOSSES = {"loss": "training", "eval_loss": "held-out rows"}
SCORE_NAMES = ("eval_exact_match", "eval_token_f1")


class CurveCallback(TrainerCallback):
    """
    Draws the losses and, with an [`AnswerCallback`], the scores of the answers over the steps of a run. `curves.png`
    in the output folder is drawn anew at each evaluation and at the end.

    Raises:
        ImportError: without matplotlib.
    """

    def __init__(self):
        _figure()  # before the training rather than after it

    def on_evaluate(self, args, state, control, **kwargs):
        self._draw(args, state)

    def on_train_end(self, args, state, control, **kwargs):
        self._draw(args, state)

    def _draw(self, args, state) -> None:
        if state.is_world_process_zero and state.log_history:
            draw_curves(state.log_history, Path(args.output_dir, CURVES_FILE))


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """
    Args:
        history (`Sequence[Mapping]`): `log_history` of a `Trainer`'s state.
        path (`Path`): Of the PNG, which appears whole or not at all.
    """
    figure = _figure()(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name, label in LOSSES.items():
        _curve(losses, history, name, label)
    for name in sorted({name for entry in history for name in entry if name.startswith(SCORE_NAMES)}):
        _curve(scores, history, name, name.removeprefix("eval_").replace("_", " "))
    losses.set(xlabel="step", ylabel="loss")
    scores.set(xlabel="step", ylabel="score of the answers", ylim=(-0.02, 1.02))
    for axes in (losses, scores):
        if axes.lines:
            axes.legend()
    with appearing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _curve(axes: Any, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    points = [(entry["step"], entry[name]) for entry in history if name in entry]
    if points:
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=label)


def _figure() -> Any:
    """matplotlib's `Figure`, or an `ImportError` that says how to get it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("curves need matplotlib: pip install 'transformers-videollama[train]'") from error
    return Figure
