"""
Rows whose media stand in columns of their own, next to the messages: those of LLaMA-Factory, with marks in the text,
and those of TRL, with bare placeholders among the blocks.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..messages import Block, parse_message


__all__ = ["COLUMNS", "messages_of"]

COLUMNS = {"image": ("images", "image"), "video": ("videos", "video"), "audio": ("audios", "audio")}
MARK = re.compile("<(image|video|audio)>")
MARK_AT_AN_END = re.compile(r"\s*<(image|video|audio)>|.*<(image|video|audio)>\s*$", re.DOTALL)
ROLES_OF_TURNS = {"human": "user", "gpt": "assistant"}
# What the files of media that nothing reads are told by
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"),
    *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv"),
    *(".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma"),
)


def messages_of(item: Mapping) -> list:
    """
    Args:
        item (`Mapping`): A row with `messages`, or with `conversations` of `{"from", "value"}`; with `system` or
            without; its media in blocks, or in the columns `images`, `videos` and `audios`: a path or an address for
            each `<image>`, `<video>` and `<audio>` in the texts, or for each block without a source, in their order.

    Returns:
        `list`: the messages, with all media in blocks.

    Raises:
        ValueError: for a row without messages, and one with media that would not be read.
    """
    messages = [_message(turn) for turn in _turns(item)]
    if system := item.get("system"):
        messages = [{"role": "system", "content": system}, *messages]
    columns = {kind: names for kind, names in COLUMNS.items() if names[0] in item or _holds(item.get(names[1]))}
    if not columns:
        _refuse_media_elsewhere(item, messages)
        return messages
    media = {kind: _column(item, kind) for kind in COLUMNS}
    left = {kind: iter(sources) for kind, sources in media.items()}
    counts = dict.fromkeys(COLUMNS, 0)
    placed = [_placed(message, f"message {i}", left, counts) for i, message in enumerate(messages)]
    for kind, sources in media.items():
        if counts[kind] != len(sources):
            raise ValueError(
                f"has {counts[kind]} places for {kind}s in its messages and {len(sources)} {kind}s in its column; "
                f"write <{kind}> into the text of a message, where it belongs, once for each"
            )
    return placed


def _turns(item: Mapping) -> Sequence:
    name = "conversations" if item.get("messages") is None and "conversations" in item else "messages"
    value = item.get(name)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"has {name!r}: {value!r:.80}, expected a list that is not empty; keys: {sorted(item)}")
    return value


def _message(turn: Any) -> Any:
    """`{"from": "human", "value": ...}` as a message; others stay."""
    if not isinstance(turn, Mapping) or "from" not in turn:
        return turn
    rest = {key: value for key, value in turn.items() if key not in ("from", "value")}
    role = turn["from"]
    return {
        "role": ROLES_OF_TURNS.get(role, role) if isinstance(role, str) else role,
        "content": turn.get("value"),
        **rest,
    }


def _column(item: Mapping, kind: str) -> Sequence:
    given = [name for name in COLUMNS[kind] if _holds(item.get(name))]
    if len(given) > 1:
        raise ValueError(f"has the columns {given}, of which one is expected")
    value = item[given[0]] if given else []
    sources = value if isinstance(value, list | tuple) else [value]
    if not all(map(_holds, sources)):
        raise ValueError(f"has {given[0]!r}: {value!r:.80}, expected a path or an address for each {kind}")
    return sources


def _holds(value: Any) -> bool:
    """Whether a column is not empty; arrays and pictures, which rows in memory can have, never are."""
    return value is not None and not (isinstance(value, str | list | tuple | Mapping) and not value)


def _placed(message: Any, where: str, left: Mapping[str, Iterator], counts: dict[str, int]) -> Any:
    """The message with the media of the columns in their places; a place too many stays a bare placeholder."""

    def block_of(kind: str, **fields: Any) -> dict:
        counts[kind] += 1
        source = next(left[kind], None)
        return {"type": kind, **fields, **({} if source is None else {kind: source})}

    parsed = parse_message(message, where)
    if isinstance(parsed.content, str):
        parts = MARK.split(parsed.content)  # text, kind, text, kind, ..., text
        if len(parts) == 1:
            return message
        blocks = [
            block_of(part) if i % 2 else {"type": "text", "text": part.strip()}
            for i, part in enumerate(parts)
            if i % 2 or part.strip()
        ]
        return {**message, "content": blocks}
    if not any(_is_bare(block) for block in parsed.content):
        return message
    given = zip(message["content"], parsed.content, strict=True)
    content = [block_of(block.kind, **block.fields) if _is_bare(block) else as_given for as_given, block in given]
    return {**message, "content": content}


def _is_bare(block: Block) -> bool:
    return block.is_item and not block.source_keys


def _refuse_media_elsewhere(item: Mapping, messages: list) -> None:
    """In a row without columns of media. Text within blocks is text, whatever it says."""
    contents = [parse_message(message, f"message {i}").content for i, message in enumerate(messages)]
    if any(block.is_item for content in contents if not isinstance(content, str) for block in content):
        return
    advice = "name the column 'images', 'videos' or 'audios', or put the media into blocks of the messages"
    for name, value in item.items():
        if name not in ("messages", "conversations", "system") and _names_a_medium(value):
            raise ValueError(f"has {name!r}: {value!r:.80}, which is not read, and no media in its messages; {advice}")
    for i, content in enumerate(contents):
        if isinstance(content, str) and MARK_AT_AN_END.match(content):
            raise ValueError(
                f"message {i} begins or ends with a mark of media, {content!r:.80}, and the row has none; {advice}; "
                'if it is text, write {"type": "text", "text": ...}'
            )


def _names_a_medium(value: Any) -> bool:
    if isinstance(value, str):
        return os.path.splitext(value.partition("?")[0])[1].lower() in SUFFIXES
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(_names_a_medium, values))
