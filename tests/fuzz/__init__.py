"""Damaged media and malformed conversations by the thousand: `python -m tests.fuzz --help`."""
