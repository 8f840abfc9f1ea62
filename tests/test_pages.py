"""What the pages of the documentation name is there."""

import pytest
from pages import ROOT, Page


PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", "docs", "benchmarks", "conversion", "examples/tiny")
    for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_exist(name):
    assert not [path for path in Page(name).names_of_files() if not (ROOT / path).exists()]


def test_there_are_pages():
    assert {"README.md", "docs/inference.md", "docs/training.md", "conversion/README.md"} <= set(PAGES)
