"""Damaged files and malformed conversations: no crash, no hang, no flood of memory, no undocumented error."""

import pytest
from fuzz.watch import faults
from fuzz.worker import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_five_hundred_damaged_inputs(kind):
    assert faults(range(500), (kind,)) == []
