"""
SentencePiece's models, which say what a text's token ids are: in `tokenizer.model` files, and in GGUF files, which
hold the same pieces and scores. The library's reading of them is not used: it merges in the order of ids, not of
scores, cuts texts as `legacy` says, and fails at the settings of old folders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, decoders, models, normalizers

from .errors import ConversionError


if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


__all__ = ["SPACE", "SentencePieces"]

SPACE = "▁"  # how pieces spell it

# Kinds of pieces; GGUF files have the same numbers.
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
# Kinds of models
UNIGRAM, BPE = 1, 2

# What is read of sentencepiece_model.proto: message -> field -> number, type, default. The module that SentencePiece
# makes of the whole file cannot be imported where the library has imported its own, and the other way round.
SCHEMA: dict[str, dict[str, tuple[int, str, str | None]]] = {
    "Piece": {"piece": (1, "STRING", None), "score": (2, "FLOAT", None), "type": (3, "INT32", str(NORMAL))},
    "Trainer": {"model_type": (3, "INT32", str(UNIGRAM)), "byte_fallback": (35, "BOOL", None)},
    "Normalizer": {
        "precompiled_charsmap": (2, "BYTES", None),
        "add_dummy_prefix": (3, "BOOL", "true"),
        "remove_extra_whitespaces": (4, "BOOL", "true"),
        "escape_whitespaces": (5, "BOOL", "true"),
    },
    "Model": {"pieces": (1, "Piece", None), "trainer": (2, "Trainer", None), "normalizer": (3, "Normalizer", None)},
}


@dataclass(frozen=True)
class SentencePieces:
    """
    Args:
        path (`Path`): the file that the model is from, for messages.
        content (`bytes`): the model, as `tokenizer.model` files hold it.

    Raises:
        ConversionError: where the content is none, and without the packages sentencepiece and protobuf.
    """

    path: Path
    content: bytes

    def __post_init__(self) -> None:
        self.processor  # noqa: B018 (it complains about what is none)

    @classmethod
    def read(cls, path: Path) -> "SentencePieces":
        return cls(path, path.read_bytes())

    @classmethod
    def of_parts(
        cls, path: Path, pieces: list[str], scores: list[float], kinds: list[int], add_dummy_prefix: bool
    ) -> "SentencePieces":
        """Puts a BPE model together; where it has pieces for bytes, they stand for unknown characters."""
        content = _model_class(path)()
        for piece, score, kind in zip(pieces, scores, kinds, strict=True):
            content.pieces.add(piece=piece, score=score, type=kind)
        content.trainer.model_type = BPE
        content.trainer.byte_fallback = BYTE in kinds
        content.normalizer.add_dummy_prefix = add_dummy_prefix
        content.normalizer.remove_extra_whitespaces = False
        return cls(path, content.SerializeToString())

    @cached_property
    def processor(self) -> "SentencePieceProcessor":
        """SentencePiece's own tokenizer, which is right by definition."""
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise ConversionError(_needs(self.path, "sentencepiece")) from error
        fault = f"{self.path}: is incomplete, damaged or no SentencePiece model ({len(self.content):,} bytes)"
        if not self.content:  # which would be an untrained model
            raise ConversionError(fault)
        try:
            return SentencePieceProcessor(model_proto=self.content)
        except RuntimeError as error:
            raise ConversionError(f"{fault}: {error}") from error

    @cached_property
    def parsed(self) -> Any:
        """The content as a protobuf message of the fields of `SCHEMA`."""
        return _model_class(self.path).FromString(self.content)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {piece.piece: number for number, piece in enumerate(self.parsed.pieces)}

    def special(self, name: str) -> str | None:
        """
        Args:
            name (`str`): "bos", "eos" or "unk".

        Returns:
            `str`, *optional*: that piece, where the model has one.
        """
        number = getattr(self.processor, f"{name}_id")()
        return None if number < 0 else self.processor.id_to_piece(number)

    def of_kind(self, kind: int) -> list[str]:
        return [piece.piece for piece in self.parsed.pieces if piece.type == kind]

    @property
    def control(self) -> list[str]:
        """Pieces that no text has, such as `</s>`: where text is spelled like one, it stays text."""
        return self.of_kind(CONTROL)

    @property
    def user_defined(self) -> list[str]:
        """Pieces that a text is cut at before anything is merged."""
        return self.of_kind(USER_DEFINED)

    def model(self, merges: list[tuple[str, str]] | None = None) -> models.Model:
        """
        The model for `tokenizers`. A unigram one adds scores up in another precision than SentencePiece, so that of
        several ways to cut a text that are equally likely, such as that of ")))", it may take another.

        Args:
            merges (`list` of `tuple`, *optional*): others than those that the scores give a BPE model.

        Raises:
            ConversionError: where it is neither BPE nor unigram.
        """
        kind, byte_fallback = self.parsed.trainer.model_type, self.parsed.trainer.byte_fallback
        if kind == BPE:
            return models.BPE(
                self.ids,
                self.merges if merges is None else merges,
                unk_token=self.special("unk"),
                fuse_unk=True,
                byte_fallback=byte_fallback,
            )
        if kind == UNIGRAM:
            return models.Unigram(list(self._unigrams()), self.processor.unk_id(), byte_fallback)
        raise ConversionError(
            f"{self.path}: holds a SentencePiece model of type {kind}, expected {UNIGRAM} (unigram) or {BPE} (BPE)"
        )

    @cached_property
    def scores(self) -> dict[str, float]:
        """Of the pieces that text is made of."""
        return {piece.piece: piece.score for piece in self.parsed.pieces if piece.type == NORMAL}

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """
        Pairs of pieces in the order in which they are merged: by the score of what they become. Where scores are the
        same, SentencePiece merges what stands leftmost in the text. No order of pairs says that; of whitespace, whose
        pieces have the same score in LLaMA's vocabulary, the pair with the longest left part first comes to the same.
        """
        scores = self.scores
        pairs = [
            (piece[:cut], piece[cut:])
            for piece in scores
            for cut in range(1, len(piece))
            if piece[:cut] in scores and piece[cut:] in scores
        ]
        return sorted(pairs, key=lambda pair: (-scores[pair[0] + pair[1]], -len(pair[0]), -len(pair[1])))

    def equal_choices(self) -> Iterator[str]:
        """Texts of three pieces of which the middle one could be merged to either side, with the same score. (BPE.)"""
        if self.parsed.trainer.model_type != BPE:
            return
        right_parts: dict[tuple[float, str], list[str]] = {}
        for left, right in self.merges:
            right_parts.setdefault((self.scores[left + right], left), []).append(right)
        for left, middle in self.merges:
            for right in right_parts.get((self.scores[left + middle], middle), ()):
                yield (left + middle + right).replace(SPACE, " ")

    def _unigrams(self) -> Iterator[tuple[str, float]]:
        """Pieces that no text is made of are spelled like some; they get a score that makes them the last choice."""
        last_choice = min(self.scores.values(), default=0.0) - 100
        for piece in self.parsed.pieces:
            yield piece.piece, piece.score if piece.type in (NORMAL, USER_DEFINED) else last_choice

    @property
    def puts_a_space_before(self) -> bool:
        return self.parsed.normalizer.add_dummy_prefix

    def normalizers(self) -> list[normalizers.Normalizer]:
        """What SentencePiece does to a text first. It also does it to each text between added tokens."""
        spec = self.parsed.normalizer
        steps: list[normalizers.Normalizer] = []
        if spec.precompiled_charsmap:
            steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
        if spec.remove_extra_whitespaces:
            steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        if spec.add_dummy_prefix:
            steps.append(normalizers.Prepend(SPACE))
        if spec.escape_whitespaces:
            steps.append(normalizers.Replace(" ", SPACE))
        return steps

    def decoder(self) -> decoders.Decoder:
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self.puts_a_space_before:
            steps.append(decoders.Strip(" ", left=1))
        return decoders.Sequence(steps)


def _model_class(path: Path) -> Any:
    """The class of `SCHEMA`'s message "Model", in a pool of its own."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise ConversionError(_needs(path, "protobuf")) from error
    file = descriptor_pb2.FileDescriptorProto(name="pieces.proto", package="pieces", syntax="proto2")
    labels = descriptor_pb2.FieldDescriptorProto
    for message, fields in SCHEMA.items():
        described = file.message_type.add(name=message)
        for field, (number, kind, default) in fields.items():
            label = labels.LABEL_REPEATED if field == "pieces" else labels.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label, default_value=default)
            if kind in SCHEMA:
                added.type, added.type_name = labels.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                added.type = labels.Type.Value(f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Model"))


def _needs(path: Path, package: str) -> str:
    return f"{path}: needs the package {package} to be read: `pip install {package}`"
