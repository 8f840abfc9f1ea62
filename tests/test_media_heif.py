"""Photos in HEIF, as cameras write them: one picture, or tiles; turned by what the file says."""

import math
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from transformers_videollama.media import MediaAccess, MediaError, load_image, load_video, media_kind


TILE = 64
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 200), (60, 60, 60), (200, 200, 30))


def hevc(pixels: np.ndarray, path: Path) -> tuple[bytes, bytes]:
    """The configuration and the picture of one intra frame, as MP4 holds them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx265", rate=1, options={"x265-params": "log-level=none:bframes=0", "crf": "5"}
        )
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        return container.streams.video[0].codec_context.extradata, bytes(packet)


def box(kind: str, *parts: bytes, version: int | None = None, flags: int = 0) -> bytes:
    head = b"" if version is None else struct.pack(">I", version << 24 | flags)
    content = head + b"".join(parts)
    return struct.pack(">I4s", len(content) + 8, kind.encode()) + content


def heif(path: Path, tiles: list[np.ndarray], columns: int, size: tuple[int, int], turns: list[bytes] = ()) -> Path:
    """Pictures 1 to N; if there are several, they are tiles of the photo N + 1, of `size` (height, width)."""
    encoded = [hevc(tile, path.with_suffix(".mp4")) for tile in tiles]
    photo = len(tiles) + 1 if len(tiles) > 1 else 1
    grid = struct.pack(">BBBBHH", 0, 0, math.ceil(len(tiles) / columns) - 1, columns - 1, size[1], size[0])
    kinds = dict.fromkeys(range(1, len(tiles) + 1), "hvc1") | ({photo: "grid"} if len(tiles) > 1 else {})
    entries = [
        box("infe", struct.pack(">HH4s", number, 0, kind.encode()), b"\0", version=2, flags=number != photo)
        for number, kind in kinds.items()
    ]
    extent = box("ispe", struct.pack(">2I", TILE, TILE), version=0)
    properties = [box("hvcC", encoded[0][0]), extent, box("ispe", struct.pack(">2I", *size[::-1]), version=0), *turns]
    shape = {number: bytes([0x81, 2]) for number in kinds}
    shape[photo] = (b"" if photo > 1 else b"\x81") + bytes(range(3, len(properties) + 1))
    links = [struct.pack(">HB", number, len(places)) + places for number, places in shape.items()]

    def meta(start: int) -> bytes:
        places = []
        for number, (_, data) in enumerate(encoded, 1):
            places.append(struct.pack(">HHHHII", number, 0, 0, 1, start, len(data)))
            start += len(data)
        if photo > 1:
            places.append(struct.pack(">HHHHII", photo, 1, 0, 1, 0, len(grid)))
        references = struct.pack(f">HH{len(tiles)}H", photo, len(tiles), *range(1, len(tiles) + 1))
        return box(
            "meta",
            box("hdlr", struct.pack(">I4s", 0, b"pict"), bytes(13), version=0),
            box("pitm", struct.pack(">H", photo), version=0),
            box("iinf", struct.pack(">H", len(entries)), *entries, version=0),
            box("iref", box("dimg", references), version=0) if photo > 1 else b"",
            box("iprp", box("ipco", *properties), box("ipma", struct.pack(">I", len(links)), *links, version=0)),
            box("idat", grid) if photo > 1 else b"",
            box("iloc", struct.pack(">HH", 0x4400, len(places)), *places, version=1),
            version=0,
        )

    head = box("ftyp", b"heic", bytes(4), b"mif1heic")
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + box("mdat", *(data for _, data in encoded)))
    return path


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((TILE, TILE, 3), colour, np.uint8)


def tiled(size: tuple[int, int]) -> np.ndarray:
    """Two rows of three tiles, cut to a size."""
    rows = [np.hstack([plain(colour) for colour in COLOURS[start : start + 3]]) for start in (0, 3)]
    return np.vstack(rows)[: size[0], : size[1]]


ROTATED, MIRRORED = box("irot", b"\1"), box("imir", b"\1")
TURNS = {
    "upright": ([], lambda picture: picture),
    "counterclockwise": ([ROTATED], np.rot90),
    "mirrored": ([MIRRORED], lambda picture: picture[:, ::-1]),
    "both": ([ROTATED, MIRRORED], lambda picture: np.rot90(picture)[:, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("kind", ("tiles", "one picture"))
def test_photos_are_opened_upright(tmp_path, kind, turn):
    turns, shown = TURNS[turn]
    if kind == "tiles":
        size = (2 * TILE - 10, 3 * TILE - 20)
        tiles, picture = [plain(colour) for colour in COLOURS], tiled(size)
    else:
        size = (TILE, TILE)
        picture = np.vstack([tiled((2 * TILE, 2 * TILE))[32:64, 32:96], tiled((2 * TILE, 2 * TILE))[64:96, 32:96]])
        tiles = [picture]
    path = heif(tmp_path / "photo.heic", tiles, 3, size, turns)
    assert media_kind(path) == "image"
    expected = shown(picture)
    for image in (load_image(path), load_image(path.read_bytes()), load_video(path).frames[0]):
        pixels = np.asarray(image)
        assert pixels.shape == expected.shape
        assert np.quantile(np.abs(pixels.astype(int) - expected), 0.9) <= 4


def test_damaged_photos_are_named(tmp_path):
    path = heif(tmp_path / "photo.heic", [plain(colour) for colour in COLOURS], 3, (2 * TILE, 3 * TILE))
    content = path.read_bytes()
    faults = {
        "cut": content[: len(content) // 2],
        "too few tiles": content.replace(
            struct.pack(">BBHH", 1, 2, 3 * TILE, 2 * TILE), bytes([2, 2, 0, 192, 0, 128])
        ),
        "too large": content.replace(struct.pack(">BBHH", 1, 2, 3 * TILE, 2 * TILE), bytes([1, 2, 255, 255, 0, 128])),
        "no place": content.replace(b"iloc", b"free"),
    }
    for fault, damaged in faults.items():
        path.write_bytes(damaged)
        with pytest.raises(MediaError, match=r"photo\.heic: "):
            load_image(path)
        assert damaged != content, fault


def test_limits_hold_for_photos(tmp_path):
    path = heif(tmp_path / "photo.heic", [plain(colour) for colour in COLOURS], 3, (2 * TILE, 3 * TILE))
    with pytest.raises(MediaError, match=r"photo\.heic: is 192 x 128, 24576 pixels, more than 24575"):
        load_image(path, access=MediaAccess(max_frame_pixels=2 * 3 * TILE * TILE - 1))
    with pytest.raises(MediaError, match=r"photo\.heic: .*max_request_bytes"):
        load_image(path, access=MediaAccess(max_request_bytes=3 * 2 * 3 * TILE * TILE - 1))
