"""The work that one source and one request may make, as fields of `MediaAccess` that are passed."""

import dataclasses
import io
import pickle
import sys

import av
import pytest
from PIL import Image
from render_clip import render_clip

from transformers_videollama import media
from transformers_videollama.media import MediaAccess, MediaError, load_image, load_sound, load_video, media_kind
from transformers_videollama.media.formats import FORMATS


HEIGHT, WIDTH = 96, 128
LIMITS = [field.name for field in dataclasses.fields(MediaAccess) if field.name.startswith(("max_", "download_"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    clip = render_clip(folder / "clip.mp4", seconds=1.0, size=(WIDTH, HEIGHT))
    with av.open(str(clip)) as source, av.open(str(folder / "clip.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    Image.new("RGB", (WIDTH, HEIGHT), (200, 10, 10)).save(folder / "picture.png")
    return folder


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", (0, -1, float("nan")))
def test_limits_are_positive(name, value):
    with pytest.raises(ValueError, match=rf"got {name}={value}, expected a positive number"):
        MediaAccess(**{name: value})


@pytest.mark.parametrize(
    ("load", "name"), ((load_video, "clip.mp4"), (load_video, "picture.png"), (load_image, "picture.png"))
)
def test_pixels_of_a_frame(folder, load, name):
    load(folder / name, access=MediaAccess(max_frame_pixels=HEIGHT * WIDTH))
    with pytest.raises(MediaError, match=rf"{name}: is 128 x 96, 12288 pixels, more than 12287 .max_frame_pixels"):
        load(folder / name, access=MediaAccess(max_frame_pixels=HEIGHT * WIDTH - 1))


def test_a_frame_is_bounded_where_it_is_scaled_too(folder):
    with pytest.raises(MediaError, match="max_frame_pixels"):
        load_video(folder / "clip.mp4", size=(8, 8), access=MediaAccess(max_frame_pixels=HEIGHT * WIDTH - 1))


def test_bytes_of_frames_in_a_folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{i}.png")
    access = MediaAccess(max_request_bytes=2 * HEIGHT * WIDTH * 3)
    assert len(load_video(tmp_path, num_frames=2, access=access).frames) == 2
    with pytest.raises(MediaError, match=r"frame 2: .*max_request_bytes of MediaAccess"):
        load_video(tmp_path, num_frames=3, access=access)


def test_bytes_of_a_whole_request(processor, folder):
    """Each item has few; all of them together have too many."""
    picture = {"type": "image", "image": str(folder / "picture.png")}
    chat = [{"role": "user", "content": [picture, picture, picture]}]
    frame = HEIGHT * WIDTH * 3
    for _ in range(2):  # each call begins at 0
        processor.apply_chat_template(chat, access=MediaAccess(max_request_bytes=3 * frame))
    with pytest.raises(MediaError, match=f"picture.png: 1 frames .*after {2 * frame} of the same request"):
        processor.apply_chat_template(chat, access=MediaAccess(max_request_bytes=3 * frame - 1))
    with pytest.raises(MediaError, match="of the same request"):
        processor.apply_chat_template([chat, chat], access=MediaAccess(max_request_bytes=4 * frame))


@pytest.mark.parametrize("kind", ("image", "video", "audio"))
@pytest.mark.parametrize("way", ("apply_chat_template", "open_media", "call"))
def test_access_reaches_every_item(processor, folder, kind, way):
    path = str(folder / ("picture.png" if kind == "image" else "clip.mp4"))
    access = MediaAccess(local_folders=())
    chat = [{"role": "user", "content": [{"type": kind, kind: path}]}]
    given = {"image": "images", "video": "videos", "audio": "audio"}[kind]
    calls = {
        "apply_chat_template": lambda: processor.apply_chat_template(chat, access=access),
        "open_media": lambda: processor.open_media(chat, access=access),
        "call": lambda: processor(text=f"<{kind}>", access=access, **{given: [path]}),
    }
    with pytest.raises(MediaError, match="local files are not allowed here"):
        calls[way]()


@pytest.mark.parametrize("load", (load_image, load_video, load_sound, media_kind))
def test_access_is_passed_to_each_loader(folder, load):
    with pytest.raises(MediaError, match="local files are not allowed here"):
        load(folder / "clip.mp4", access=MediaAccess(local_folders=()))


class Clock:
    """Each look at it takes a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("name", ("clip.mp4", "clip.mkv"))
def test_seconds_of_decoding(folder, monkeypatch, name):
    monkeypatch.setattr(media.access, "time", Clock())
    with pytest.raises(MediaError, match=rf"{name}: is not read after 5 s .max_decoding_seconds of MediaAccess"):
        load_video(folder / name, num_frames=25, access=MediaAccess(max_decoding_seconds=5))


def test_seconds_of_reading_sound(folder, monkeypatch):
    sound = load_sound(folder / "clip.mp4", access=MediaAccess(max_decoding_seconds=5))
    sound.read(0.0, 0.1, 16_000)
    monkeypatch.setattr(media.access, "time", Clock())
    with pytest.raises(MediaError, match=r"clip.mp4: is not read after 5 s"):
        sound.read(0.0, 1.0, 16_000)


def test_the_old_constant_says_what_it_is_now():
    with pytest.warns(DeprecationWarning, match="max_request_bytes of MediaAccess"):
        assert media.MAX_FRAME_BYTES == 4 << 30


def test_access_can_be_sent_to_a_worker():
    access = MediaAccess(max_download_bytes=5).for_request()
    assert pickle.loads(pickle.dumps(access)) == access


NAMING_OTHERS = {"concat", "dash", "hls", "image2", "image2pipe", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "mlv"}


def test_formats_that_may_be_opened():
    """All are FFmpeg's, and none leads to other files, devices or addresses."""
    for name in FORMATS:
        assert name in av.ContainerFormat(name, "r").name.split(",")
    assert NAMING_OTHERS.isdisjoint(FORMATS)
    assert len(set(FORMATS)) == len(FORMATS)


@pytest.mark.parametrize(
    ("name", "content"),
    (
        ("words.srt", "1\n00:00:00,000 --> 00:00:01,000\nHello\n"),
        ("words.ass", "[Script Info]\nScriptType: v4.00+\n"),
        ("words.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.mp4\n"),
        ("list.mpd", '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n'),
        ("notes.nfo", "\x1b[31mred\x1b[0m " * 200),
        ("graph.ps", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        ("graph.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'),
        ("meta.ini", ";FFMETADATA1\ntitle=x\n"),
    ),
)
@pytest.mark.parametrize("load", (load_video, load_sound, load_image, media_kind))
def test_other_formats_are_not_opened(folder, load, name, content):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(
        MediaError, match=f"{name}: (is a playlist or the like|is damaged, cut|cannot be read as an im)"
    ):
        load(path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ("clip.mkv", "clip.mp4"))
@pytest.mark.parametrize("on_terminal", (False, True))
@pytest.mark.parametrize("takes_long", (False, True))
def test_reading_that_takes_long_shows_a_bar(folder, monkeypatch, name, on_terminal, takes_long):
    """On a terminal, where all packets of a file have to be read."""
    shown = Terminal() if on_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    if takes_long:
        bar = media.progress.tqdm
        monkeypatch.setattr(media.progress, "tqdm", lambda **given: bar(**{**given, "delay": 0, "mininterval": 0}))
    load_video(folder / name)
    assert (f"reading {folder / name}"[:60] in shown.getvalue()) == (on_terminal and takes_long and name == "clip.mkv")
