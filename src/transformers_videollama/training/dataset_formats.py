"""The published formats of Video-LLaMA's training data, and our own: a file -> conversations, one row at a time."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from ..block_keys import BLOCK_OPTIONS
from ..media.sources import is_address
from ..messages import SOURCE_KEYS, Block, parse_message
from .media_columns import messages_of


__all__ = ["DATASET_FORMATS", "DatasetError", "OF_DECODED_MEDIA", "read_rows"]

ROLES = ("system", "user", "assistant")
# Options of media that come decoded, which no file of rows can hold
OF_DECODED_MEDIA = ("video_metadata", "sampling_rate")
MARKER = "<image>"  # the place of the picture in LLaVA's instructions

_PIECE = 1 << 16  # characters of a JSON file that are read at once, at least
_SPACE = re.compile(r"\s*")


class DatasetError(ValueError):
    """A row of a dataset that cannot be used; the message names file, row, what was got and what was expected."""


def read_rows(path: str, format: str, media_dir: str) -> Iterator[dict]:
    """
    Args:
        path (`str`): The file.
        format (`str`): One of `DATASET_FORMATS`.
        media_dir (`str`): The folder that paths of media start from.

    Returns:
        Iterator of `{"messages": [...], "kind": ...}` as of `load_messages`; `kind` is `None` where there is none.

    Raises:
        DatasetError: for the first row that is not as the format wants it, and a file without rows.
    """
    read, convert = _FORMATS[format]
    with open(path, encoding="utf-8-sig", newline="") as file:
        items, number, end = read(file), 0, object()
        while True:
            number += 1
            try:
                if (item := next(items, end)) is end:
                    break
                if not isinstance(item, Mapping):
                    raise ValueError(f"is {_shown(item)}, expected a JSON object")
                messages, kind = convert(item, media_dir), item.get("kind") if format == "messages" else None
                if not isinstance(kind, str | None):
                    raise ValueError(f"has the kind {_shown(kind)}, expected a text")
            except (ValueError, csv.Error) as error:
                raise DatasetError(f"{path}, row {number}: {error}") from error
            yield {"messages": messages, "kind": kind}
    if number == 1:
        raise DatasetError(f"{path}: has no rows, expected at least one")


def _csv_items(file: TextIO) -> Iterator[dict]:
    reader = csv.reader(file, strict=True)  # strict: a quote that is never closed would swallow the rest
    header = next(reader, [])
    if missing := sorted({"videoid", "page_dir", "name"}.difference(header)):
        raise ValueError(f"the header {_shown(header)} lacks {missing}")
    for fields in reader:
        if fields and len(fields) != len(header):
            raise ValueError(f"has {len(fields)} fields, expected {len(header)}; text with commas needs quotes")
        if fields:  # not an empty line
            yield dict(zip(header, fields, strict=True))


def _json_items(file: TextIO) -> Iterator[Any]:
    """The items of a JSON array, or of JSON Lines."""
    reader = _JsonReader(file)
    if reader.peek() == "[":
        yield from reader.array()
        if reader.peek():
            raise ValueError("the file goes on after its array, expected one array, or one object a line")
    else:
        while reader.peek():
            yield reader.value()


def _annotations(file: TextIO) -> Iterator[Any]:
    """The items of the array `annotations` in a JSON object."""
    reader = _JsonReader(file)
    reader.take("{")
    while (name := reader.value()) != "annotations":
        reader.take(":")
        reader.value()
        if reader.take(",}") == "}":
            raise ValueError(f"the file ends after the key {name!r}, expected the key 'annotations'")
    reader.take(":")
    yield from reader.array()


class _JsonReader:
    """Reads the values of a JSON file one by one, so that only a piece of the file is in memory."""

    def __init__(self, file: TextIO):
        self.file = file
        self.text, self.position = "", 0  # the piece, and how far it has been used
        self.decode = json.JSONDecoder().raw_decode

    def array(self) -> Iterator[Any]:
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        yield self.value()
        while self.take(",]") == ",":
            yield self.value()

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decode(self.text, self.position)
            except json.JSONDecodeError as error:
                if not self._read_on():
                    raise ValueError(f"is no JSON: {error.msg} at {_shown(self.text[error.pos :])}") from error
            else:
                # A number may go on in the next piece
                if end < len(self.text) or not self._read_on():
                    self.position = end
                    return value

    def take(self, expected: str) -> str:
        """Passes one of the `expected` characters."""
        found = self.peek()
        if not found or found not in expected:
            raise ValueError(
                f"is no JSON of this format: expected {' or '.join(expected)}, got "
                f"{_shown(self.text[self.position :]) if found else 'the end of the file'}"
            )
        self.position += 1
        return found

    def peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            self.position = _SPACE.match(self.text, self.position).end()
            if self.position < len(self.text) or not self._read_on():
                return self.text[self.position : self.position + 1]

    def _read_on(self) -> bool:
        rest = self.text[self.position :]
        piece = self.file.read(max(_PIECE, len(rest)))  # twice as much, so that a long value is not tried too often
        self.text, self.position = rest + piece, 0
        return bool(piece)


def _own(item: Mapping, media_dir: str) -> list[dict]:
    messages = [_own_message(message, i, media_dir) for i, message in enumerate(messages_of(item))]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("has no message with the role 'assistant', so there is nothing to learn; leave the row out")
    return messages


def _own_message(message: Any, index: int, media_dir: str) -> dict:
    where = f"message {index}"
    parsed = parse_message(message, where)
    _check_keys(parsed.fields, ("role", "content"), where)
    if parsed.role not in ROLES:
        raise ValueError(f"{where} has the role {parsed.role!r}, expected one of {', '.join(ROLES)}")
    if not message.get("content") and message.get("content") != "":
        raise ValueError(f"{where} has the content {message.get('content')}, expected text or a list of blocks")
    blocks = [Block("text", {"text": parsed.content})] if isinstance(parsed.content, str) else parsed.content
    rows = [_own_block(block, f"{where}, block {i}", media_dir) for i, block in enumerate(blocks)]
    if parsed.role == "assistant" and not all((row["text"] or "").strip() for row in rows):
        raise ValueError(
            f"{where} is an answer with the content {_shown(message['content'])}, expected text that is not blank"
        )
    return _message(parsed.role, *rows)


def _own_block(block: Block, where: str, media_dir: str) -> dict:
    if block.kind == "text":
        _check_keys(block.fields, ("text",), where)
        return _text(block.fields["text"])
    if not block.is_item:
        raise ValueError(f"{where} has the type {block.kind!r}, expected one of text, {', '.join(SOURCE_KEYS)}")
    source, known = block.source, SOURCE_KEYS[block.kind]
    options = tuple(name for name in BLOCK_OPTIONS[block.kind] if name not in OF_DECODED_MEDIA)
    _check_keys(block.fields, (*known, *options), where)
    if len(block.source_keys) != 1 or not isinstance(source, str) or not source:
        raise ValueError(
            f"{where} has the sources {_shown(list(block.source_keys))}, the first of them {_shown(source)}; expected "
            f"one path or address under one of {', '.join(known)}"
        )
    path = source if is_address(source) else os.path.join(media_dir, os.path.expanduser(source))
    return {**_medium(block.kind, path), **{name: _in_column(name, value) for name, value in block.fields.items()}}


def _in_column(name: str, value: Any) -> Any:
    """Arrow has one type for a column, so that the index of a track is written as its language would be."""
    return str(value) if name.endswith("_stream") else value


def _webvid(item: Mapping, media_dir: str) -> list[dict]:
    path = os.path.join(media_dir, _string(item, "page_dir"), f"{_string(item, 'videoid')}.mp4")
    return _captioned(_medium("video", path), _string(item, "name"))


def _captioned_image(item: Mapping, media_dir: str) -> list[dict]:
    image = item.get("image_id")
    if isinstance(image, bool) or not isinstance(image, (int, str)) or image == "":
        raise ValueError(f"has the image_id {image!r}, expected a number or a name")
    return _captioned(_medium("image", os.path.join(media_dir, f"{image}.jpg")), _string(item, "caption"))


def _llava_instruct(item: Mapping, media_dir: str) -> list[dict]:
    image = _medium("image", os.path.join(media_dir, f"COCO_train2014_{_string(item, 'image')}"))
    texts = []
    for i, turn in enumerate(_list(item, "conversations")):
        expected = ("human", "gpt")[i % 2]
        if not isinstance(turn, Mapping) or turn.get("from") != expected:
            raise ValueError(f"turn {i} is {_shown(turn)}, expected 'from': {expected!r}; human and gpt take turns")
        texts.append(_string(turn, "value"))
    if len(texts) % 2:
        raise ValueError(f"has {len(texts)} turns, the last of them a question; expected an answer to each question")
    marked = [i for i, text in enumerate(texts) for _ in range(text.count(MARKER))]
    if marked not in ([], [0]):
        raise ValueError(f"has {MARKER!r} in the turns {marked}, expected it once at most, in turn 0")
    return _dialogue(texts, image)


def _videochat(item: Mapping, media_dir: str) -> list[dict]:
    video = _medium("video", os.path.join(media_dir, _string(item, "video")))
    pairs = _list(item, "QA")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, Mapping):
            raise ValueError(f"QA {i} is {_shown(pair)}, expected an object with 'q' and 'a'")
    instructions = list(dict.fromkeys(_string(pair, "i") for pair in pairs if pair.get("i")))
    if len(instructions) > 1:
        raise ValueError(f"has {len(instructions)} different instructions 'i', expected one: {_shown(instructions)}")
    messages = _dialogue([_string(pair, name) for pair in pairs for name in ("q", "a")], video)
    return [*(_message("system", _text(text)) for text in instructions), *messages]


def _captioned(medium: dict, caption: str) -> list[dict]:
    return [_message("user", medium), _message("assistant", _text(caption))]


def _dialogue(texts: list[str], medium: dict) -> list[dict]:
    """Questions and answers in turn; the medium stands in the first question, in the place of the marker."""
    before, _, after = texts[0].rpartition(MARKER)  # without a marker, all text is after it
    blocks = [*([_text(before.strip())] if before.strip() else []), medium]
    if after.strip():
        blocks.append(_text(after.strip()))
    turns = [_message(("user", "assistant")[i % 2], _text(text)) for i, text in enumerate(texts)]
    return [_message("user", *blocks), *turns[1:]]


def _message(role: str, *blocks: dict) -> dict:
    return {"role": role, "content": list(blocks)}


def _text(text: str) -> dict:
    text.encode()  # a lone surrogate, which JSON can hold and Arrow cannot, is a ValueError here
    return {"type": "text", "text": text, "path": None}


def _medium(kind: str, path: str) -> dict:
    path.encode()
    return {"type": kind, "text": None, "path": path}


def _string(item: Mapping, key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"has {key!r}: {_shown(value)}, expected text that is not blank; correct or remove the row")
    return value


def _list(item: Mapping, key: str) -> list:
    value = item.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"has {key!r}: {_shown(value)}, expected a list that is not empty; keys: {sorted(item)}")
    return value


def _check_keys(fields: Mapping, known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(fields).difference(known)):
        raise ValueError(f"{where} has the keys {unknown}, of which nothing is known; expected {', '.join(known)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


# For each format, a reader of a file's items, and a function that makes messages of an item
_FORMATS: dict[str, tuple[Callable[[TextIO], Iterator], Callable[[Mapping, str], list[dict]]]] = {
    "messages": (_json_items, _own),
    "webvid": (_csv_items, _webvid),
    "llava-cc3m": (_annotations, _captioned_image),
    "minigpt-4": (_annotations, _captioned_image),
    "llava-instruct": (_json_items, _llava_instruct),
    "videochat": (_json_items, _videochat),
}
DATASET_FORMATS = tuple(_FORMATS)
