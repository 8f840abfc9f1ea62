"""Seeded damage to files and conversations."""

import copy
import struct
from collections.abc import Callable
from typing import Any

import numpy as np


EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# What a conversation may hold where something else belongs
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e308,
    float("nan"),
    "",
    "x" * 1000,
    "\0",
    "<video>",
    [],
    {},
    [[]],
    [{}],
    b"\0",
)


def mutate_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One fault, which decoders often come to without having been stopped before, or one to eight."""
    damaged = bytearray(data)
    for _ in range(1 if rng.random() < 0.5 else rng.integers(1, 9)):
        BYTE_FAULTS[rng.integers(len(BYTE_FAULTS))](damaged, rng)
    return bytes(damaged)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Half of the time near the beginning or the end, where headers and indices are."""
    edge = min(len(data), 512)
    places = (rng.integers(len(data) + 1), rng.integers(edge + 1), len(data) - rng.integers(edge + 1))
    return int(places[rng.choice(3, p=(0.5, 0.25, 0.25))])


def _flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 17)):
        place = _place(data, rng)
        if place < len(data):
            data[place] ^= 1 << int(rng.integers(8))


def _overwrite_number(data: bytearray, rng: np.random.Generator) -> None:
    place, value = _place(data, rng), EXTREMES[rng.integers(len(EXTREMES))]
    data[place : place + 4] = struct.pack(">I" if rng.random() < 0.5 else "<I", value)


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[_place(data, rng) :]


def _delete(data: bytearray, rng: np.random.Generator) -> None:
    place = _place(data, rng)
    del data[place : place + int(rng.integers(1, 257))]


def _insert(data: bytearray, rng: np.random.Generator) -> None:
    place = _place(data, rng)
    data[place:place] = rng.bytes(int(rng.integers(1, 257)))


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    place, length = _place(data, rng), int(rng.integers(1, 1025))
    data[place:place] = data[place : place + length]


def _swap(data: bytearray, rng: np.random.Generator) -> None:
    first, second = sorted((_place(data, rng), _place(data, rng)))
    length = min(int(rng.integers(1, 257)), second - first, len(data) - second)
    data[first : first + length], data[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )


BYTE_FAULTS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    _flip_bits,
    _overwrite_number,
    _cut,
    _delete,
    _insert,
    _repeat,
    _swap,
)


def mutate_chat(chat: list, rng: np.random.Generator) -> Any:
    """One to three values or keys of a conversation replaced, left out, doubled or nested, wherever they are."""
    chat = copy.deepcopy(chat)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(chat))
        if not places:
            return chat
        parent, key = places[rng.integers(len(places))]
        _damage(parent, key, rng)
    return chat


def _places(value: Any):
    """Every (container, key) in a conversation."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _damage(parent: dict | list, key: Any, rng: np.random.Generator) -> None:
    kind = rng.integers(5)
    if kind == 0:
        parent[key] = JUNK[rng.integers(len(JUNK))]
    elif kind == 1:
        del parent[key]
    elif kind == 2:
        parent[key] = [parent[key]]
    elif kind == 3 and isinstance(parent, dict):
        parent[str(key)[::-1]] = parent.pop(key)
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[key] = str(parent[key])
