"""Objects with `read`, addresses of fsspec, cells of `datasets`: the same frames and sound as from a path."""

import concurrent.futures
import gzip
import io
import itertools
import mmap
import os
import struct
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from PIL import Image
from render_clip import render_clip

from transformers_videollama.media import MediaAccess, MediaError, load_image, load_sound, load_video, media_kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    clip = render_clip(folder / "clip.mp4", seconds=2.0, size=(128, 96), keyframe_interval=10)
    with av.open(str(clip)) as source, av.open(str(folder / "clip.mkv"), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    with zipfile.ZipFile(folder / "clips.zip", "w") as archive:
        archive.write(clip, "inner/clip.mp4")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """Frames and sound of the clip, by its path."""
    video = load_video(folder / "clip.mp4")
    return video.frames, video.sound.read(0.5, 1.5, 16_000)


class Plain:
    """An object with `read` and `seek` alone, which counts."""

    def __init__(self, data: bytes):
        self._file, self.bytes_read = io.BytesIO(data), 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.bytes_read += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)


class Dripping(io.RawIOBase):
    """A file that gives less than it is asked for."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer) -> int:
        return self._file.readinto(memoryview(buffer)[:777])


class Stream:
    """An object that cannot seek."""

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def temporary(path: Path, make):
    file = make()
    file.write(path.read_bytes())
    return file


def piped(path: Path):
    source, target = os.pipe()

    def fill():
        with open(target, "wb") as pipe:
            pipe.write(path.read_bytes())

    threading.Thread(target=fill, daemon=True).start()
    return open(source, "rb")


def gzipped(path: Path):
    return gzip.open(io.BytesIO(gzip.compress(path.read_bytes(), 1)), "rb")


def in_zip(path: Path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, path.name)
    return zipfile.ZipFile(packed).open(path.name)


def in_memory(path: Path):
    with fsspec.open(f"memory://objects/{path.name}", "wb") as file:
        file.write(path.read_bytes())
    return fsspec.filesystem("memory").open(f"/objects/{path.name}", "rb")


def opened(path: Path, mode: str = "rb", **options):
    return open(path, mode, **options)


OBJECTS = {
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "open": opened,
    "unbuffered": lambda path: opened(path, buffering=0),
    "for update": lambda path: opened(path, "r+b"),
    "plain": lambda path: Plain(path.read_bytes()),
    "dripping": lambda path: Dripping(path.read_bytes()),
    "temporary": lambda path: temporary(path, tempfile.TemporaryFile),
    "named temporary": lambda path: temporary(path, tempfile.NamedTemporaryFile),
    "spooled": lambda path: temporary(path, tempfile.SpooledTemporaryFile),
    "mmap": lambda path: mmap.mmap(os.open(path, os.O_RDONLY), 0, prot=mmap.PROT_READ),
    "gzip": gzipped,
    "zip": in_zip,
    "fsspec": in_memory,
}
STREAMS = {
    "stream": lambda path: Stream(path.read_bytes()),
    "pipe": piped,
}


@pytest.mark.parametrize("name", ("clip.mp4", "clip.mkv"))
@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_that_can_seek(folder, expected, kind, name):
    source = OBJECTS[kind](folder / name)
    assert media_kind(source) == "video"
    frames, window = expected
    video = load_video(source)
    np.testing.assert_array_equal(video.frames, frames)
    np.testing.assert_array_equal(video.sound.read(0.5, 1.5, 16_000), load_sound(folder / name).read(0.5, 1.5, 16_000))
    np.testing.assert_array_equal(load_sound(source).read(0.5, 1.5, 16_000), video.sound.read(0.5, 1.5, 16_000))
    if name == "clip.mp4":
        np.testing.assert_array_equal(video.sound.read(0.5, 1.5, 16_000), window)


@pytest.mark.parametrize("kind", (*OBJECTS, *STREAMS))
def test_pictures_in_objects(folder, kind):
    source = {**OBJECTS, **STREAMS}[kind](folder / "picture.png")
    np.testing.assert_array_equal(load_image(source), Image.open(folder / "picture.png"))


@pytest.mark.parametrize("kind", STREAMS)
def test_objects_that_cannot_seek_are_copied(folder, expected, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = STREAMS[kind](folder / "clip.mp4")
    video = load_video(source)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [(folder / "clip.mp4").stat().st_size]
    np.testing.assert_array_equal(video.frames, expected[0])
    np.testing.assert_array_equal(video.sound.read(0.5, 1.5, 16_000), expected[1])
    with pytest.raises(MediaError, match="gives no bytes; it cannot seek, and may have been read before"):
        load_video(source)


def test_streams_are_bounded(folder):
    with pytest.raises(
        MediaError,
        match=r"^<Stream>: has more than 1000 bytes, and would be copied: it cannot seek.*max_download_bytes",
    ):
        load_video(Stream((folder / "clip.mp4").read_bytes()), access=MediaAccess(max_download_bytes=1000))


@pytest.mark.parametrize("kind", ("BytesIO", "open", "plain", "mmap"))
@pytest.mark.parametrize("position", (0, 17, "end"))
def test_the_position_is_put_back(folder, expected, kind, position):
    """It is read from its beginning, wherever it stands."""
    source = OBJECTS[kind](folder / "clip.mp4")
    source.seek(0, os.SEEK_END) if position == "end" else source.seek(position)
    before = source.seek(0, os.SEEK_CUR)
    before = source.tell() if before is None else before
    video = load_video(source)
    np.testing.assert_array_equal(video.frames, expected[0])
    video.sound.read(0.0, 1.0, 16_000)
    after = source.seek(0, os.SEEK_CUR)
    assert (source.tell() if after is None else after) == before


def test_little_of_a_large_object_is_read(folder, expected):
    """A box that nobody reads makes the file 100 times as large."""
    box = struct.pack(">I4s", 20 << 20, b"free").ljust(20 << 20, b"\0")
    source = Plain((folder / "clip.mp4").read_bytes() + box)
    video = load_video(source)
    np.testing.assert_array_equal(video.frames, expected[0])
    np.testing.assert_array_equal(video.sound.read(0.5, 1.5, 16_000), expected[1])
    assert source.bytes_read < 4 << 20


def test_threads_share_an_object(folder, expected):
    source = io.BytesIO((folder / "clip.mp4").read_bytes())

    def read(number: int) -> bool:
        if number % 2:
            return np.array_equal(load_sound(source).read(0.5, 1.5, 16_000), expected[1])
        return np.array_equal(load_video(source).frames, expected[0])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(12)))


def test_two_items_of_a_conversation_share_an_object(processor, folder):
    source = open(folder / "clip.mp4", "rb")  # noqa: SIM115 (closed with the test)
    blocks = [{"type": "video", "video": source}, {"type": "text", "text": "?"}, {"type": "audio", "audio": source}]
    path = str(folder / "clip.mp4")
    by_path = [{"type": "video", "video": path}, {"type": "text", "text": "?"}, {"type": "audio", "audio": path}]
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "load_audio_from_video": False}
    found, wanted = (
        processor.apply_chat_template([{"role": "user", "content": content}], **given) for content in (blocks, by_path)
    )
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    source.close()


class Wrong:
    def __init__(self, read=lambda size: b"", seek=None):
        self.read = read
        if seek is not None:
            self.seek = seek


def broken(*_):
    raise OSError("the disk is gone")


@pytest.mark.parametrize("load", (load_video, load_sound, load_image, media_kind))
@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda path: opened(path, "r", encoding="latin-1"), r"clip.mp4: is open as text; open it in binary mode"),
        (lambda path: io.StringIO("text"), r"<StringIO>: is open as text"),
        (lambda path: Wrong(lambda size: "text"), r"<Wrong>: its read\(\d+\) gives str, expected bytes"),
        (
            lambda path: Wrong(lambda size: "text", lambda *_: 10),
            r"<Wrong>: its read\(\d+\) gives str, expected bytes",
        ),
        (lambda path: Wrong(lambda size: bytes(size + 1), lambda *_: 9), r"its read\(\d+\) gives \d+ bytes, expected"),
        (lambda path: io.BytesIO(), r"<BytesIO>: is empty \(0 bytes\)"),
        (lambda path: Stream(b""), r"<Stream>: gives no bytes"),
        (lambda path: Wrong(broken, lambda *_: 10), r"<Wrong>: cannot be read: the disk is gone"),
        (lambda path: Wrong(broken), r"<Wrong>: cannot be read: the disk is gone"),
        (lambda path: io.BytesIO(b"no video at all" * 100), r"<BytesIO>: "),
    ),
)
def test_objects_that_cannot_be_read(folder, load, make, message):
    with pytest.raises(MediaError, match=message):
        load(make(folder / "clip.mp4"))


@pytest.mark.parametrize("load", (load_video, load_sound, load_image))
def test_a_closed_file(folder, load):
    with open(folder / "clip.mp4", "rb") as file:
        pass
    with pytest.raises(MediaError, match=r"clip.mp4: cannot be read: .*closed file"):
        load(file)


def test_a_file_that_is_closed_before_its_sound_is_read(folder):
    with open(folder / "clip.mp4", "rb") as file:
        video = load_video(file)
    with pytest.raises(MediaError, match=r"clip.mp4: cannot be read: .*closed file"):
        video.sound.read(0.0, 1.0, 16_000)


# ---------------------------------------------------------------------------------------------------------- datasets


@pytest.mark.parametrize("cell", ({"bytes": True, "path": None}, {"bytes": None, "path": True}, {"path": True}))
def test_cells_of_datasets(folder, expected, cell):
    def of(name: str) -> dict:
        path = folder / name
        values = {"bytes": path.read_bytes(), "path": str(path)}
        return {key: values[key] if value else None for key, value in cell.items()}

    np.testing.assert_array_equal(load_video(of("clip.mp4")).frames, expected[0])
    np.testing.assert_array_equal(load_sound(of("clip.mp4")).read(0.5, 1.5, 16_000), expected[1])
    np.testing.assert_array_equal(load_image(of("picture.png")), Image.open(folder / "picture.png"))
    assert media_kind(of("picture.png")) == "image"


def test_a_cell_with_bytes_does_not_open_its_path(folder, expected):
    """The path is where the file was when the data set was made."""
    cell = {"bytes": (folder / "clip.mp4").read_bytes(), "path": "elsewhere/gone.mp4"}
    video = load_video(cell, access=MediaAccess(local_folders=()))
    assert video.name == "gone.mp4"
    np.testing.assert_array_equal(video.frames, expected[0])


@pytest.mark.parametrize("rate", (8_000, 44_100))
@pytest.mark.parametrize("kind", (list, np.asarray))
def test_a_cell_of_samples(rate, kind):
    samples = np.sin(np.arange(rate) / 20).astype(np.float32)
    sound = load_sound({"array": kind(samples), "sampling_rate": rate, "path": None})
    assert (sound.sampling_rate, sound.num_channels, sound.duration) == (rate, 1, 1.0)
    np.testing.assert_allclose(sound.read(0.25, 0.5, rate)[0], samples[rate // 4 : rate // 2], atol=1e-6)


def test_a_cell_of_samples_in_a_conversation(processor):
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32)
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    cell, array = (
        processor.apply_chat_template([{"role": "user", "content": [{"type": "audio", "audio": sound}]}], **given)
        for sound in ({"array": samples, "sampling_rate": 16_000, "path": None}, samples)
    )
    np.testing.assert_array_equal(cell["input_features"], array["input_features"])


def test_cells_in_a_conversation(processor, folder):
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    for kind, name in (("video", "clip.mp4"), ("image", "picture.png"), ("audio", "clip.mp4")):
        path = folder / name
        cell, by_path = (
            processor.apply_chat_template([{"role": "user", "content": [{"type": kind, kind: source}]}], **given)
            for source in ({"bytes": path.read_bytes(), "path": None}, str(path))
        )
        for key in by_path:
            np.testing.assert_array_equal(cell[key], by_path[key])


@pytest.mark.parametrize(
    ("load", "cell", "message"),
    (
        (load_video, {"bytes": None, "path": None}, r"got a dict with \['bytes', 'path'\], expected one with 'bytes'"),
        (load_video, {}, r"got a dict with \[\], expected one with"),
        (load_image, {"array": [0.0], "sampling_rate": 8000}, r"got a dict with \['array', 'sampling_rate'\]"),
        (load_image, {"bytes": b"", "path": None}, "holds no bytes"),
        (load_image, {"bytes": "text", "path": None}, r"whose 'bytes' are str, expected bytes"),
        (load_sound, {"array": np.zeros(9, np.float32)}, "sampling_rate"),
    ),
)
def test_cells_that_hold_nothing(load, cell, message):
    with pytest.raises(MediaError, match=message):
        load(cell)


def test_the_rate_of_a_cell_is_its_own():
    cell = {"array": np.zeros(8000, np.float32), "sampling_rate": 8000}
    assert load_sound(cell, sampling_rate=8000).sampling_rate == 8000
    with pytest.raises(MediaError, match="wrong sampling rate given, 16000 Hz; it has 8000 Hz"):
        load_sound(cell, sampling_rate=16_000)


# ------------------------------------------------------------------------------------------------- paths and addresses


@pytest.fixture
def in_memory_clip(folder):
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/shelf/clip.mp4", (folder / "clip.mp4").read_bytes())
    yield "memory://shelf/clip.mp4"
    filesystem.rm("/shelf", recursive=True)


def test_addresses_of_fsspec(in_memory_clip, expected):
    video = load_video(in_memory_clip)
    assert video.name == in_memory_clip
    np.testing.assert_array_equal(video.frames, expected[0])
    np.testing.assert_array_equal(load_sound(in_memory_clip).read(0.5, 1.5, 16_000), expected[1])
    assert media_kind(in_memory_clip) == "video"


def test_chains_of_fsspec(folder, expected):
    np.testing.assert_array_equal(load_video(f"zip://inner/clip.mp4::file://{folder}/clips.zip").frames, expected[0])
    np.testing.assert_array_equal(load_video(f"local://{folder}/clip.mp4").frames, expected[0])


def test_a_missing_file_of_fsspec():
    with pytest.raises(MediaError, match=r"^memory://nowhere/clip.mp4: cannot be opened: "):
        load_video("memory://nowhere/clip.mp4")


@pytest.mark.parametrize(
    ("url", "message"),
    (
        ("s3://bucket/clip.mp4", r"the scheme s3:// is not supported here: .*pip install fsspec s3fs, or download"),
        ("gs://bucket/clip.mp4", r"the scheme gs:// is not supported here: .*pip install fsspec gcsfs"),
        ("whatever://clip.mp4", r"the scheme whatever:// is not supported here: .*whatever.*pip install fsspec, or"),
    ),
)
def test_schemes_without_their_package(monkeypatch, url, message):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MediaError, match=f"^{url}: {message}"):
        load_video(url)


def test_schemes_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MediaError, match=r"the scheme s3:// is not supported here: .*pip install fsspec s3fs"):
        load_video("s3://bucket/clip.mp4")


def test_bytes_that_are_fetched_are_bounded(in_memory_clip, folder):
    size = (folder / "clip.mp4").stat().st_size
    with pytest.raises(MediaError, match=r"more than \d+ bytes of it are needed .max_download_bytes of MediaAccess"):
        load_video(in_memory_clip, access=MediaAccess(max_download_bytes=size // 8))


LEADING_ASTRAY = (
    "memory://shelf/clip.mp4",
    "local://{}",
    "local:{}",
    "LOCAL://{}",
    "simplecache::file://{}",
    "simplecache::http://127.0.0.1:9/clip.mp4",
    "filecache::local://{}",
    "zip://inner/clip.mp4::file://{}.zip",
    "zip://inner/clip.mp4::{}.zip",
    "reference://::{}",
    "s3://bucket/clip.mp4",
    "ftp://127.0.0.1/clip.mp4",
    "file:{}",
    "FILE://{}",
    "file://localhost{}",
    "~/clip.mp4",
    "{}\0.mp4",
)


@pytest.mark.parametrize("spelling", LEADING_ASTRAY)
@pytest.mark.parametrize("load", (load_video, load_sound, load_image, media_kind))
@pytest.mark.parametrize("private", (True, False))
def test_a_service_opens_no_other_scheme(folder, in_memory_clip, load, spelling, private):
    access = MediaAccess(local_folders=(), private_addresses=private)
    with pytest.raises(MediaError, match="not allowed here"):
        load(spelling.format(folder / "clip.mp4"), access=access)


def test_nor_does_one_that_keeps_to_the_internet(in_memory_clip):
    with pytest.raises(MediaError, match=r"the scheme memory:// is not allowed here; send the content"):
        load_video(in_memory_clip, access=MediaAccess(private_addresses=False))


def test_the_home_folder(folder, expected, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    for path in ("~/clip.mp4", Path("~/clip.mp4")):
        np.testing.assert_array_equal(load_video(path).frames, expected[0])
    (folder / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "frames" / "0.png")
    assert len(load_video("~/frames").frames) == 1
    with pytest.raises(MediaError, match="local files are not allowed here"):
        load_video("~/clip.mp4", access=MediaAccess(local_folders=(folder / "frames",)))


LONG = ("a/" * 100_000, "x" * 9000, "file:///" + "a/" * 5000, "http://127.0.0.1:9/" + "a" * 9000)


@pytest.mark.parametrize("load", (load_video, load_sound, load_image, media_kind))
@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("folders", (None, (Path("/"),)))
def test_long_paths_make_no_work(load, text, folders):
    with pytest.raises(MediaError, match=r"\.\.\.: has \d+ characters, more than 8192 .max_path_length"):
        load(text, access=MediaAccess(local_folders=folders))


def test_names_that_look_like_addresses(folder, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a::b.mp4", "zip:clip.mp4", "~clip~.mp4", "x.y:z.mp4"):
        Path(name).write_bytes((folder / "clip.mp4").read_bytes())
        np.testing.assert_array_equal(load_video(name).frames, expected[0])


@pytest.mark.parametrize("text", ("clip\0.mp4", "\ud800.mp4", ""))
def test_paths_that_no_system_has(text):
    for access in (None, MediaAccess(local_folders=(Path("/tmp"),))):
        with pytest.raises(MediaError, match=r"does not exist|not allowed here|is a folder"):
            load_video(text, access=access)


def test_links_in_a_circle(tmp_path):
    for name, target in itertools.permutations(("a.mp4", "b.mp4")):
        (tmp_path / name).symlink_to(tmp_path / target)
    with pytest.raises(MediaError, match="does not exist, or is not a regular file"):
        load_video(tmp_path / "a.mp4", access=MediaAccess(local_folders=(tmp_path,)))
