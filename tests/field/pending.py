"""What is wrong today -> the cases that show it. They have to fail; one that passes is taken out."""

PENDING: dict[str, tuple[str, ...]] = {}
