"""
Video-LLaMA's training data, and your own, as conversations in Arrow's format; and their mixture.

No medium is opened here.
"""

import functools
import hashlib
import itertools
import math
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import ConcatDataset, Subset

from .dataset_formats import DATASET_FORMATS, DatasetError, read_rows
from .media_columns import COLUMNS


if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["DATASET_FORMATS", "DatasetError", "file_checksum", "import_datasets", "load_messages", "mix"]

# Part of the key under which `datasets` keeps what was read; to be raised when the same file gives other rows
READER_VERSION = 3
# The options of media -> their types in Arrow. Rows have these columns if their file has any of the options.
OPTION_TYPES = {
    **dict.fromkeys(("start", "end", "fps"), "float64"),
    **dict.fromkeys(("num_frames",), "int64"),
    **dict.fromkeys(("do_sample_frames",), "bool"),
    **dict.fromkeys(("sampling", "on_damage", "decoder", "downmix", "video_stream", "audio_stream"), "string"),
}
# The name of an option in JSON, or of anything that is written with escapes
KIND_IN_JSON = re.compile(rb'"kind"|\\u00[2-7]')
OPTION_IN_JSON = re.compile(rb'"(?:%s)"|\\u00[2-7]' % "|".join(OPTION_TYPES).encode())


def load_messages(
    path: str | os.PathLike, *, format: str = "messages", media_dir: str | os.PathLike | None = None
) -> "Dataset":
    """
    Reads a file of training data. A row is `{"messages": [{"role", "content": [{"type", "text", "path"}]}]}`: `type`
    is "text", "image", "video" or "audio"; `text` is `None` but for texts, and `path` (a file, an address or a `data:`
    URI) but for media, since Arrow has one set of keys for all blocks.

    | format | file | medium of a row |
    |---|---|---|
    | "messages" | JSON array, or JSON Lines, of `{"messages": [{"role", "content"}]}` | `{media_dir}/{path}` |
    | "webvid" | CSV with `videoid`, `page_dir`, `name` | `{media_dir}/{page_dir}/{videoid}.mp4` |
    | "llava-cc3m", "minigpt-4" | `{"annotations": [{"image_id", "caption"}]}` | `{media_dir}/{image_id}.jpg` |
    | "llava-instruct" | JSON array of `{"image", "conversations": [{"from", "value"}]}` | \
`{media_dir}/COCO_train2014_{image}` |
    | "videochat" | JSON array of `{"video", "QA": [{"q", "a"}]}` | `{media_dir}/{video}` |

    - "messages": the content is text or a list of blocks as the processor takes them, with the source under one of
      its names (`path`, `url`, `video`, ...). An absolute path or an address stays as it is. Options such as `start`
      and `end` mean what they mean to the processor; blocks then have a key for each option, with `None` where it is
      not given.
    - "messages" in LLaMA-Factory's form: `messages` or `conversations` (`{"from", "value"}`), perhaps `system`, and
      the columns `images`, `videos`, `audios`, with `<image>`, `<video>`, `<audio>` in the text for each of them. A
      row whose media would not be read is an error.
    - Captions: the user shows the medium and says nothing; the assistant says the caption.
    - Instructions: the medium stands in the first question, where the marker `<image>` is, else before the text. The
      instruction `i` of a "videochat" row becomes its system message.
    - "messages": a row may have a `kind` (`str`), such as that of its question, for [`AnswerCallback`]. If a row has
      one, all rows have the key.
    - Other keys of a row or columns of a CSV file, such as `id`, are not read. In a message or a block, where they
      would mean something, they are an error.

    The rows lie in `datasets`' cache (`HF_DATASETS_CACHE`) and are memory-mapped, so that memory does not grow with
    the file, and the next call finds them there, unless the file's content has changed.

    Args:
        path (`str` or `os.PathLike`)
        format (`str`, defaults to "messages"): One of `DATASET_FORMATS`.
        media_dir (`str` or `os.PathLike`, *optional*): The folder that paths of media start from; the folder of `path`
            by default.

    Returns:
        `datasets.Dataset`

    Raises:
        DatasetError (a `ValueError`): for the first row that is not as the format wants it, and a file without rows.
        ValueError: for an unknown format.
        OSError: if `path` cannot be read.
        ImportError: without the package `datasets`.
    """
    datasets = import_datasets()
    if format not in DATASET_FORMATS:
        raise ValueError(f"got format={format!r}, expected one of {', '.join(DATASET_FORMATS)}")
    path = os.path.abspath(path)
    key = {
        "path": path,
        "format": format,
        "media_dir": os.path.dirname(path) if media_dir is None else os.path.abspath(media_dir),
        "content": file_checksum(path),
        "version": READER_VERSION,
    }
    options, kinds = (format == "messages" and _contains(path, name) for name in (OPTION_IN_JSON, KIND_IN_JSON))
    try:
        return datasets.Dataset.from_generator(
            _rows, features=_features(options=options, kinds=kinds), gen_kwargs={**key, "kinds": kinds}
        )
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, DatasetError):
            raise error.__cause__ from None
        raise


def mix(datasets: Sequence, ratios: Sequence[float], *, seed: int = 0) -> Any:
    """
    Draws from several datasets by ratio, such as 100 : 24 for WebVid and LLaVA-CC3M, until every row of each has come
    at least once; rows of a dataset that ends earlier come again. The rows of one dataset keep their order.

    Args:
        datasets (`Sequence`): From [`load_messages`], or other `datasets.Dataset`s with a column `messages`; keys that
            one lacks become `None`, and other columns are left out. Or map-style datasets of another kind, such as
            [`load_features`] gives, whose rows are taken as they are.
        ratios (`Sequence[float]`): One positive number for each.
        seed (`int`, defaults to 0): The seed of the draw.

    Returns:
        `datasets.Dataset`, or `torch.utils.data.Subset` for datasets of another kind.

    Raises:
        ValueError: for other counts or numbers, and a dataset without rows.
        DatasetError (a `ValueError`): for a dataset whose `messages` are of another form.
    """
    if not datasets or len(datasets) != len(ratios):
        raise ValueError(f"got {len(ratios)} ratios for {len(datasets)} datasets; give one for each, and at least one")
    for i, (dataset, ratio) in enumerate(zip(datasets, ratios, strict=True)):
        if not 0 < ratio < math.inf:
            raise ValueError(f"got the ratio {ratio} for dataset {i}, expected a positive number")
        if not len(dataset):
            raise ValueError(f"dataset {i} has no rows to draw; leave it out")
    arrow = import_datasets()
    draw = functools.partial(
        arrow.interleave_datasets,
        probabilities=[ratio / math.fsum(ratios) for ratio in ratios],
        seed=seed,
        stopping_strategy="all_exhausted",
    )
    if all(isinstance(dataset, arrow.Dataset) for dataset in datasets):
        options = any(dataset.features == _features(options=True) for dataset in datasets)
        return draw([_unified(dataset, i, _features(options=options)) for i, dataset in enumerate(datasets)])
    joined: ConcatDataset = ConcatDataset(datasets)
    starts = [0, *joined.cumulative_sizes]
    numbers = [arrow.Dataset.from_dict({"row": range(*span)}) for span in itertools.pairwise(starts)]
    return Subset(joined, draw(numbers).with_format("numpy")["row"][:])


def file_checksum(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    checksum = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            checksum.update(piece)
    return checksum.hexdigest()


def import_datasets() -> Any:
    """The package `datasets`, or an `ImportError` that says how to get it."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "datasets is needed to read training data: pip install 'transformers-videollama[train]'"
        ) from error
    return datasets


def _contains(path: str, pattern: re.Pattern[bytes]) -> bool:
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return pattern.search(content) is not None


def _features(*, options: bool, kinds: bool = False) -> "Features":
    datasets = import_datasets()
    text = datasets.Value("string")
    block = {"type": text, "text": text, "path": text}
    if options:
        block |= {name: datasets.Value(kind) for name, kind in OPTION_TYPES.items()}
    columns = {"messages": [{"role": text, "content": [block]}]}
    return datasets.Features({**columns, "kind": text} if kinds else columns)


def _unified(dataset: "Dataset", index: int, features: "Features") -> "Dataset":
    """The dataset with the column `messages` alone, in these types."""
    if "messages" not in dataset.column_names:
        raise DatasetError(f"dataset {index} has the columns {dataset.column_names}, expected 'messages'")
    if columns := sorted({name for names in COLUMNS.values() for name in names}.intersection(dataset.column_names)):
        raise DatasetError(
            f"dataset {index} has the columns {columns} next to its messages; read its file with load_messages, which "
            "puts media into the messages, or remove columns that are empty"
        )
    dataset = dataset.select_columns("messages")
    if dataset.features == features:
        return dataset
    try:
        return dataset.cast(features)
    except (TypeError, ValueError) as error:  # Arrow's errors are ValueErrors
        raise DatasetError(
            f"dataset {index} has messages {dataset.features['messages']}, expected {features['messages']}; "
            "read its file with load_messages"
        ) from error


def _rows(path: str, format: str, media_dir: str, kinds: bool, **key: Any) -> Iterator[dict]:
    """`read_rows`; the cached rows also depend on `key`."""
    for row in read_rows(path, format, media_dir):
        yield row if kinds else {"messages": row["messages"]}
