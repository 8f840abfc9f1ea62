"""Damaged files and malformed conversations: no crash, no hang, no flood of memory, no undocumented error."""

import pytest
from fuzz.watch import Watched, faults
from fuzz.worker import KINDS, good, open_media


NUMBER = 2000  # of all kinds together


@pytest.fixture(scope="module")
def worker():
    watched = Watched()
    yield watched
    watched.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs(kind, worker):
    assert not list(faults(range(NUMBER // len(KINDS)), (kind,), worker))


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_intact_file_is_opened(kind):
    open_media(kind, good(kind))
