"""The benchmarks run with the tiny model, and what README says of speed is what they measured."""

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import SUITES, main, measure
from benchmarks.measure import Options
from benchmarks.report import RESULTS, as_markdown, keep


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TRAINING = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
SLOW = {"convert", "generate", "serve"}  # write gigabytes, compile for minutes, need an environment of their own


@pytest.mark.slow
@pytest.mark.parametrize("suite", sorted(set(SUITES) - SLOW))
def test_suite(suite, capsys):
    main([suite, "--size", "tiny", "--repeats", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == f"python -m benchmarks {suite} --size tiny --repeats 1 --json"
    assert {"machine", "versions", "date", "load_average", "dtype", "device"} <= result.keys()
    assert len(result["rows"]) > 1


@pytest.mark.slow
def test_what_is_kept(tmp_path):
    result = measure("chat", Options("tiny", torch.device("cpu"), torch.float32, repeats=2), ["chat"])
    assert [row["question"] for row in result["rows"]] == ["first", "second", "second, anew"]
    assert result["rows"][2]["same answer"] is True
    line, table, plot = (path.read_text() for path in keep(result, tmp_path))
    assert table == as_markdown(result) + "\n"
    assert len(re.findall(r"^\| (first|second|second, anew) \|", table, flags=re.MULTILINE)) == 3
    assert "`python -m benchmarks chat`" in table
    assert json.loads(line)["rows"][0]["first token after, s"]["repeats"] == 2
    assert plot.startswith("<?xml")


def result(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_speed_that_readme_states():
    media = {row["what"]: row["seconds"]["median_s"] for row in result("media-small-cpu-float32")["rows"]}
    encode = result("encode-7b-cpu-float32")["rows"]
    first, second, anew = (row["first token after, s"]["median_s"] for row in result("chat-small-cpu-float32")["rows"])
    copied, converted = result("convert-7b-cpu-float32")["rows"]
    load = {row["what"]: row for row in result("load-7b-cpu-bfloat16")["rows"]}
    loaded = load["from_pretrained, and every page of the weights touched"]
    library, package = (
        load[f"import {name}, and the Auto classes"]["seconds"] for name in ("transformers", "transformers_videollama")
    )
    expected = [
        [", ".join(f"{media[f'{n} min: frames and sound prepared']:.2f}" for n in (1, 10, 60)) + " s"],
        [", ".join(f"{media[f'{n} min: decord, frames alone']:.2f}" for n in (1, 10, 60)) + " s"],
        [", ".join(f"{encode[i]['seconds']['median_s']:.1f}" for i in (0, 2)) + " s"],
        [" and ".join(f"{encode[i]['share of matrix rate']:.0%}" for i in (0, 2)) + " of the rate"],
        [f"{second / first:.1%} of the first", f"begun anew: {anew / first:.0%}"],
        [
            f"{converted['seconds']:.0f} s, {converted['GiB more at most']:.1f} GiB",
            f"copying them: {copied['seconds']:.0f} s",
        ],
        [f"{loaded['of the weights']:.2f} of its weights"],
        [f"| {package:.1f} s |", f"the Auto classes of transformers alone: {library:.1f} s"],
    ]
    section = README.partition("## Speed")[2].partition("\n## ")[0]
    for cells in expected:
        for cell in cells:
            assert cell in section, cell
    assert f"takes {second / first:.1%} of the first one's time" in " ".join(README.split())
    imports = f"takes {package:.1f} s, and the Auto classes of transformers alone take {library:.1f} s"
    assert imports in (Path(__file__).parents[1] / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_speed_of_training_that_is_stated():
    rows = {}
    for dtype in ("float32", "bfloat16"):
        trained = result(f"train-7b-cpu-{dtype}")
        rows[dtype] = {row["from"]: row for row in trained["rows"]}
        cells = [
            f"{row['seconds a step']['median_s']:.1f} s, {row['MiB more at most'] / 1024:.2f} GiB"
            for row in trained["rows"]
        ]
        line = f"| {dtype} | {' | '.join(cells)} | {trained['seconds for the features of a row']:.2g} s |"
        assert line in TRAINING
    pattern = r"takes NUMBER s from video files and NUMBER s from features [^(]*\(in bfloat16, NUMBER and NUMBER s\)"
    stated = re.search(pattern.replace("NUMBER", r"([\d.]+)"), " ".join(README.split()))
    seconds = [
        rows[dtype][name]["seconds a step"]["median_s"] for dtype in rows for name in ("video files", "features")
    ]
    assert list(stated.groups()) == [f"{each:.1f}" for each in seconds]
