"""Rules are covered by tests that exist, or do not apply for a reason; no contract test is without a rule."""

import ast
from pathlib import Path

import pytest

from . import table


TESTS = Path(__file__).parents[1]


def names_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f"{file.relative_to(TESTS).as_posix()}::{name}" for name in functions if name.startswith("test_")}


@pytest.mark.parametrize("rule", table.COVERED)
def test_the_tests_of_a_rule_exist(rule):
    named = table.COVERED[rule]
    assert named
    existing = {test for name in named for test in names_in(TESTS / name.split("::")[0])}
    assert set(named) <= existing


def test_every_contract_test_has_a_rule():
    named = {name for names in table.COVERED.values() for name in names}
    contracts = {test for file in Path(__file__).parent.glob("test_*_contract.py") for test in names_in(file)}
    assert contracts <= named


def test_a_rule_stands_in_one_place():
    places = (table.GENERATION, table.MULTIMODAL, table.NOT_APPLICABLE)
    assert sum(map(len, places)) == len(set().union(*places))
    assert all(table.NOT_APPLICABLE.values())
