"""The benchmarks run, and keep what they measure, with the tiny model; their figures are not looked at."""

import json

import pytest
import torch

from benchmarks.__main__ import SUITES, main, measure
from benchmarks.measure import Options
from benchmarks.report import as_markdown, keep


@pytest.mark.parametrize("suite", SUITES)
def test_suite(suite, tmp_path, capsys):
    main([suite, "--size", "tiny", "--repeats", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == f"python -m benchmarks {suite} --size tiny --repeats 1 --json"
    assert {"machine", "versions", "date", "load_average", "dtype", "device"} <= result.keys()
    assert len(result["rows"]) > 1


def test_what_is_kept(tmp_path):
    result = measure("chat", Options("tiny", torch.device("cpu"), torch.float32, repeats=2), ["chat"])
    assert [row["question"] for row in result["rows"]] == ["first", "second", "second, anew"]
    assert result["rows"][2]["same answer"] is True
    table, line, plot = (
        path.read_text() for path in sorted(keep(result, tmp_path), key=lambda path: path.suffix != ".md")
    )
    assert table.count("\n| ") == 5
    assert "`python -m benchmarks chat`" in table
    assert json.loads(line)["rows"][0]["first token after, s"]["repeats"] == 2
    assert plot.startswith("<?xml")
    assert table == as_markdown(result) + "\n"
