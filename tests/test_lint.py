"""The library's checks of the structure of models: what is excluded has a reason, and is still found."""

import pytest

from conformance import lint


@pytest.mark.parametrize(
    ("rules", "printed"),
    (
        (list(lint.EXCLUDED), "All checks of models passed"),
        ([*lint.EXCLUDED, "TRF028"], "here.py:3: TRF028: found"),
        (list(lint.EXCLUDED)[1:], f"{next(iter(lint.EXCLUDED))} is excluded, but finds nothing any more"),
    ),
    ids=("clean", "found", "stale"),
)
def test_what_is_found_or_stale_fails(rules, printed, monkeypatch, capsys):
    findings = [{"path": "here.py", "line": 3, "rule": rule, "message": f"{rule}: found"} for rule in rules]
    monkeypatch.setattr(lint, "find", lambda: findings)
    assert lint.main() == (0 if "passed" in printed else 1)
    assert printed in capsys.readouterr().out
