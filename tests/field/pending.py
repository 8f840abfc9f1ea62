"""What is wrong today -> the cases that show it. They have to fail; one that passes is taken out."""

__all__ = ["PENDING"]

PENDING: dict[str, tuple[str, ...]] = {
    "nothing comes after a seek to the last of long packets": ("tta in mkv-last", "wavpack-last"),
    "a file that is cut is not named so": (
        "wmv cut-whole",
        "wmv cut-middle",
        "wmv cut-last",
        "gif cut-whole",
        "gif cut-last",
        "wav cut-whole",
        "wav cut-middle",
        "wav cut-last",
    ),
}
