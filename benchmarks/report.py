"""Results as a table for people, a line of JSON, and files that are kept."""

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .measure import Timing


__all__ = ["as_json", "as_markdown", "from_json", "keep", "table"]

# What every result has besides what its suite measures
KNOWN = ("suite", "what", "command", "size", "device", "dtype", "repeats", "machine", "accelerator", "load_average")
KNOWN += ("date", "versions")
RESULTS = Path(__file__).parent / "results"


def as_json(result: dict[str, Any]) -> str:
    return json.dumps(result, default=asdict)


def from_json(text: str) -> dict[str, Any]:
    """The inverse of `as_json`."""
    timing = {field.name for field in fields(Timing)}
    return json.loads(text, object_hook=lambda entries: Timing(**entries) if entries.keys() == timing else entries)


def as_markdown(result: dict[str, Any]) -> str:
    machine = result["accelerator"] or result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    is_repeated = any(isinstance(value, Timing) for row in result["rows"] for value in row.values())
    spread = f"Seconds are medians, with the fastest and the slowest of {result['repeats']}. "
    repeated = spread if is_repeated else ""
    measured = {name: value for name, value in result.items() if name not in (*KNOWN, "rows")}
    return "\n\n".join(
        (
            f"# {result['suite']}",
            result["what"],
            table(result["rows"]),
            *([table([measured])] if measured else []),
            f"{result['size']}, {result['dtype']}; {machine}; load average {result['load_average']}; {versions}; "
            f"{result['date']}. {repeated}`{result['command']}`",
        )
    )


def table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[cell(row.get(name)) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names), *lines))


def cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {cell(entry)}" for name, entry in value.items())
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Timing):
        return str(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def keep(result: dict[str, Any], folder: Path = RESULTS) -> list[Path]:
    """Writes NAME.json, NAME.md and NAME.svg, a plot."""
    name = "-".join((result["suite"], result["size"], result["device"].partition(":")[0], result["dtype"]))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("json", "md", "svg")]
    paths[0].write_text(json.dumps(result, default=asdict, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(as_markdown(result) + "\n", encoding="utf-8")
    plot(result, paths[2])
    return paths


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars of the first timing of each row, with the fastest and the slowest."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = result["rows"]
    timed = next(name for name, value in rows[0].items() if isinstance(value, (Timing, float)))
    timings = [value if isinstance(value := row[timed], Timing) else Timing.of([value]) for row in rows]
    names = [", ".join(str(value) for value in row.values() if isinstance(value, (str, int))) for row in rows]
    medians = [timing.median_s for timing in timings]
    spread = [[t.median_s - t.min_s for t in timings], [t.max_s - t.median_s for t in timings]]
    figure = Figure(figsize=(7, 0.5 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, medians, xerr=spread)
    axes.invert_yaxis()
    axes.set_xlabel(timed)
    where = result["accelerator"] or result["machine"]
    axes.set_title(f"{result['suite']}: {result['size']}, {result['dtype']}, {where}")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"}):  # text stays text
        figure.savefig(path, metadata={"Date": None})
