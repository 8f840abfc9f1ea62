"""Names and shapes of the tensors of all files, known before any tensor is read."""

from collections.abc import Callable, Mapping, Sequence

from .errors import ConversionError
from .key_tables import match


__all__ = ["Headers"]

Place = tuple[str, int]


class Headers:
    """
    Args:
        shapes (`Mapping`): kind of file, by the names of `plan_conversion` -> key -> shape.
        file_of (`Callable`, *optional*): (kind, key) -> the name of the file for messages; the kind by default.
    """

    def __init__(
        self,
        shapes: Mapping[str, Mapping[str, Sequence[int]]],
        file_of: Callable[[str, str], str] = lambda kind, key: kind,
    ):
        self.shapes = {kind: {key: tuple(shape) for key, shape in keys.items()} for kind, keys in shapes.items()}
        self.file_of = file_of

    def __contains__(self, kind: str) -> bool:
        return kind in self.shapes

    def size(self, kind: str, *places: Place) -> int:
        """
        Reads one size from where it can be seen, each place a key and a dimension.

        Raises:
            ConversionError: if a key is missing, has too few dimensions, or the places do not agree.
        """
        sizes = {place: self._size_at(kind, *place) for place in places}
        if len(set(sizes.values())) > 1:
            seen = ", ".join(f"{key!r} has {self.shapes[kind][key]}" for key, _ in places)
            file = self.file_of(kind, places[0][0])
            raise ConversionError(
                f"{file}: shapes do not fit together: {seen}; expected the same size at dimensions "
                f"{', '.join(str(dimension) for _, dimension in places)}"
            )
        return next(iter(sizes.values()))

    def _size_at(self, kind: str, key: str, dimension: int) -> int:
        shape = self.shapes[kind].get(key)
        if shape is None:
            raise ConversionError(f"{self.file_of(kind, key)}: key {key!r} is missing")
        if not -len(shape) <= dimension < len(shape):
            raise ConversionError(
                f"{self.file_of(kind, key)}: {key!r} has shape {shape}, expected to have a dimension {dimension}"
            )
        return shape[dimension]

    def layers(self, kind: str, pattern: str) -> list[int]:
        """The layer numbers that stand in the first wildcard of the keys that match `pattern`, sorted."""
        found = (match(pattern, key) for key in self.shapes[kind])
        return sorted({int(words[0]) for words in found if words is not None})

    def count_layers(self, kind: str, pattern: str) -> int:
        """
        How many layers match `pattern`.

        Raises:
            ConversionError: if there is none.
        """
        layers = self.layers(kind, pattern)
        if not layers:
            raise ConversionError(f"{self.file_of(kind, pattern)}: there is no key of the form {pattern!r}")
        return layers[-1] + 1
