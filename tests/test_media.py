"""Media: which frames are chosen, that the decoded ones are right, and that every bad input is a `MediaError`."""

import base64
import copy
import gc
import http.server
import io
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from optional import import_torchaudio
from PIL import Image
from render_clip import render_clip
from transformers.dynamic_module_utils import get_imports
from whole_videos import decode_all

from transformers_videollama import media
from transformers_videollama.media import (
    MediaAccess,
    MediaError,
    Sound,
    Video,
    load_image,
    load_sound,
    load_video,
    media_kind,
    sample_indices,
)


SIZE = (96, 128)  # (height, width) of the clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    """3 s, 75 frames at 25 per second, a key frame every 10, with sound."""
    return render_clip(folder / "clip.mp4", size=SIZE[::-1], keyframe_interval=10)


@pytest.fixture(scope="module")
def silent_clip(folder) -> Path:
    return render_clip(folder / "silent.mp4", seconds=1.0, size=SIZE[::-1], sound=False)


@pytest.fixture(scope="module")
def index_first_clip(folder) -> Path:
    return render_clip(folder / "index_first.mp4", size=SIZE[::-1], index_first=True)


@pytest.fixture(scope="module")
def picture(folder) -> Path:
    path = folder / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


def nearest(frames: np.ndarray, reference: np.ndarray) -> list[int]:
    """For each frame the number of the reference frame that it resembles most."""
    return [int(np.abs(reference.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()) for frame in frames]


def write_wav(path: Path, samples: np.ndarray, sampling_rate: int) -> Path:
    """16-bit samples of shape (channels, samples)."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(np.ascontiguousarray(samples.T).tobytes())
    return path


def encode_sound(path: Path, codec: str, samples: np.ndarray, sampling_rate: int) -> Path:
    """Mono float samples in a container and codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sampling_rate, layout="mono")
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=sampling_rate)
        piece = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        piece.sample_rate = sampling_rate
        for frame in (*resampler.resample(piece), *resampler.resample(None), None):
            container.mux(stream.encode(frame))
    return path


def noise(num_samples: int, channels: int = 1) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((channels, num_samples)) * 8000).astype(np.int16)


# --------------------------------------------------------------------------------------------------- choosing frames


@pytest.mark.parametrize("wanted", (4, 8, 16, 20, 24, 30, 32, 48))
def test_uniform_sampling_equals_the_original_formula_and_gives_exactly_n(wanted):
    for total in range(wanted, 1000, 7):
        original = np.floor(np.arange(0, total, total / wanted)).astype(int).tolist()
        assert sample_indices(total, wanted) == original[:wanted]


def test_eight_frames_by_default():
    assert sample_indices(80) == sample_indices(80, 8) == list(range(0, 80, 10))


@pytest.mark.parametrize(("wanted", "total"), ((8, 100), (7, 100), (1, 9), (2, 2), (5, 6), (9, 9), (20, 9), (8, 1)))
def test_headtail_draws_half_of_the_frames_from_each_half(wanted, total):
    for seed in range(20):
        indices = sample_indices(total, wanted, sampling="headtail", generator=seed)
        count = min(wanted, total)
        assert indices == sorted(set(indices))
        assert len(indices) == count
        assert sum(index < total // 2 for index in indices) == count // 2
        assert 0 <= indices[0] <= indices[-1] < total


def test_headtail_is_reproducible_and_follows_its_generator():
    def draw(generator):
        return sample_indices(1000, 8, sampling="headtail", generator=generator)

    assert draw(None) == draw(0) == draw(np.random.default_rng(0)) != draw(1)
    generator = np.random.default_rng(0)
    assert draw(generator) != draw(generator)


@pytest.mark.parametrize(
    ("options", "indices"),
    (
        ({"fps": 1, "video_fps": 25}, [0, 25, 50, 75]),
        ({"fps": 2, "video_fps": 25}, [0, 12, 25, 37, 50, 62, 75, 87]),
        ({"fps": 25, "video_fps": 25}, list(range(100))),
        ({"fps": 60, "video_fps": 25}, list(range(100))),
        ({"fps": 0.1, "video_fps": 25}, [0]),
        ({"fps": 10, "video_fps": 29.97, "end": 0.5}, [0, 2, 5, 8, 11, 14]),
        ({"start": 2, "video_fps": 25, "num_frames": 5}, [50, 60, 70, 80, 90]),
        ({"start": 1, "end": 1.16, "video_fps": 25}, [25, 26, 27, 28]),
        ({"end": 0.04, "video_fps": 25}, [0]),
        ({"start": 3.96, "end": 99, "video_fps": 25}, [99]),
        ({"start": 0.3, "end": 0.7, "video_fps": 10}, [3, 4, 5, 6]),
    ),
)
def test_rate_and_span_choose_the_frames_at_those_times(options, indices):
    assert sample_indices(100, **options) == indices


@pytest.mark.parametrize(
    ("options", "match"),
    (
        ({"fps": 1, "num_frames": 8, "video_fps": 25}, "fps=1 with num_frames=8.*fps stands alone"),
        ({"fps": 1, "sampling": "headtail", "video_fps": 25}, "fps stands alone"),
        ({"sampling": "random"}, "sampling='random', expected 'uniform' or 'headtail' or 'time'"),
        ({"num_frames": 0}, "num_frames=0, expected a positive whole number"),
        ({"fps": -1.0}, "fps=-1.0, expected a positive number"),
        ({"video_fps": float("nan")}, "video_fps=nan, expected a positive number"),
        ({"start": -1, "video_fps": 25}, "start=-1, expected a number of at least 0"),
        ({"start": float("nan"), "video_fps": 25}, "start=nan, expected a number of at least 0"),
    ),
)
def test_contradicting_options_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        sample_indices(100, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    (
        ({"fps": 1}, "fps=1 needs the frame rate"),
        ({"start": 1}, "start and end need the frame rate"),
        ({"start": 4, "video_fps": 25}, "from 4 to 4.0 s, expected one within 0 to 4.000 s"),
        ({"start": 2, "end": 1, "video_fps": 25}, "from 2 to 1 s, expected one within"),
        ({"start": 0.05, "end": 0.06, "video_fps": 25}, "no frame lies between 0.05 and 0.06 s"),
    ),
)
def test_spans_without_frames_are_refused(options, match):
    with pytest.raises(MediaError, match=match):
        sample_indices(100, **options)


def test_a_video_without_frames_is_refused():
    with pytest.raises(MediaError, match=r"a video of 0 frames, expected at least 1"):
        sample_indices(0)


# ---------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("changes", "match"),
    (
        ({"frames": np.zeros((2, 4, 4, 3))}, "frames float64 .2, 4, 4, 3., expected uint8"),
        ({"frames": np.zeros((2, 4, 4), np.uint8)}, r"expected uint8 \(T, H, W, 3\)"),
        ({"frames": np.zeros((2, 0, 4, 3), np.uint8)}, "expected uint8"),
        ({"indices": (0,)}, "2 frames, 1 indices, 2 times"),
        ({"timestamps": None}, "fps=25.0 with timestamps=None"),
        ({"indices": (0, 9)}, r"indices \(0, 9\) of 9 frames"),
    ),
)
def test_video_checks_its_parts(changes, match):
    parts = {"frames": np.zeros((2, 4, 4, 3), np.uint8), "indices": (0, 4), "timestamps": (0.0, 0.16), "fps": 25.0}
    parts |= {"total_num_frames": 9, "sound": None, "name": "clip"}
    assert Video(**parts).fps == 25.0
    with pytest.raises(MediaError, match=f"clip: .*{match}"):
        Video(**(parts | changes))


def test_reprs_show_shapes_and_not_pixels(clip):
    text = repr(load_video(clip))
    assert "frames=(8, 96, 128, 3)" in text
    assert "Sound(name=" in text
    assert "array" not in text


def test_loaded_media_are_returned_as_they_are(clip):
    video = load_video(clip)
    assert load_video(video) is video
    assert load_sound(video.sound) is video.sound


@pytest.mark.parametrize("duplicate", (copy.deepcopy, lambda sound: pickle.loads(pickle.dumps(sound))))
def test_sounds_can_be_copied(clip, duplicate):
    sound = load_sound(clip)
    sound.read(1.5, 2.0, 16_000)
    np.testing.assert_array_equal(duplicate(sound).read(1.5, 2.0, 16_000), sound.read(1.5, 2.0, 16_000))


# ----------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    "options",
    ({}, {"num_frames": 75}, {"sampling": "headtail", "generator": 3}, {"fps": 5}, {"start": 1.0, "end": 2.0}),
)
def test_frames_are_those_of_decoding_from_first_to_last(clip, options):
    everything = decode_all(clip)
    video = load_video(clip, **options)
    assert video.indices == tuple(sample_indices(75, video_fps=25.0, **options))
    assert video.timestamps == tuple(index / 25.0 for index in video.indices)
    assert (video.total_num_frames, video.fps, video.frames.shape[1:]) == (75, 25.0, (*SIZE, 3))
    assert np.abs(video.frames - everything[list(video.indices)].astype(int)).max() < 8
    assert nearest(video.frames[1:], everything[::5]) == nearest(everything[list(video.indices)][1:], everything[::5])


@pytest.mark.parametrize("codec_and_name", (("mpeg4", "clip.avi"), ("libvpx-vp9", "clip.webm"), ("h264", "clip.mkv")))
def test_other_containers(tmp_path, codec_and_name):
    codec, name = codec_and_name
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(12):
            pixels = np.full((48, 64, 3), number * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    video = load_video(tmp_path / name, num_frames=12)
    assert (video.total_num_frames, video.fps, video.sound) == (12, 10.0, None)
    np.testing.assert_allclose(video.frames.mean((1, 2, 3)), np.arange(12) * 20, atol=3)


def trim(source: Path, target: Path, first: int) -> Path:
    """Cut the first frames off by stream copy, as telephones do: the file keeps them, an edit list hides them."""
    with av.open(str(source)) as container, av.open(str(target), "w") as trimmed:
        stream = container.streams.video[0]
        copied = trimmed.add_stream_from_template(stream)
        shift = int(Fraction(first, 25) / stream.time_base)
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copied
                trimmed.mux(packet)
    return target


@pytest.mark.parametrize("first", (3, 9))
def test_frames_hidden_by_an_edit_list_do_not_count(clip, tmp_path, first):
    trimmed = trim(clip, tmp_path / "trimmed.mp4", first)
    everything = decode_all(trimmed)
    for options in ({}, {"num_frames": 1000}, {"sampling": "headtail", "generator": 1}):
        video = load_video(trimmed, **options)
        assert video.total_num_frames == len(everything) == 75 - first
        assert np.abs(video.frames - everything[list(video.indices)].astype(int)).max() < 8


@pytest.mark.parametrize("size", ((24, 32), (50, 33), (1, 1), (224, 224), (48, 96), (30, 400)))
def test_frames_are_scaled_while_decoding(clip, size):
    frames = load_video(clip, size=size).frames
    assert frames.shape == (8, *size, 3)
    everything = decode_all(clip)[[0, 37]]
    expected = [np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BOX)) for frame in everything]
    assert np.abs(frames[[0, 4]].astype(int) - expected).mean() < 12


@pytest.mark.parametrize("size", ((4000, 1), (1, 4000)))  # (width, height)
def test_frames_of_extreme_shapes(tmp_path, size):
    path = render_clip(tmp_path / "thin.mp4", seconds=0.2, size=size, sound=False)
    assert load_video(path, size=(224, 224)).frames.shape == (5, 224, 224, 3)
    assert load_video(path).frames.shape == (5, *size[::-1], 3)


def test_one_frame_is_enough(tmp_path):
    video = load_video(render_clip(tmp_path / "one.mp4", seconds=0.04, sound=False))
    assert (video.indices, video.timestamps, video.total_num_frames) == ((0,), (0.0,), 1)


def test_an_animated_image_is_a_video_and_a_still_one_is_a_frame(tmp_path, picture):
    shades = [Image.fromarray(np.full((48, 64, 3), shade, np.uint8)) for shade in (0, 80, 160, 240)]
    shades[0].save(tmp_path / "moving.gif", save_all=True, append_images=shades[1:], duration=100)
    shades[1].save(tmp_path / "still.gif")
    moving = load_video(tmp_path / "moving.gif")
    assert (moving.total_num_frames, moving.sound) == (4, None)
    np.testing.assert_allclose(moving.frames.mean((1, 2, 3)), (0, 80, 160, 240), atol=2)
    for still in (tmp_path / "still.gif", picture, picture.read_bytes(), Image.open(picture)):
        video = load_video(still)
        assert (len(video.frames), video.fps, video.timestamps, video.sound) == (1, None, None, None)


# ------------------------------------------------------------------------------------------------ frames in memory


FRAMES = np.random.default_rng(1).integers(0, 256, (20, 6, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize("as_float", (False, True))
@pytest.mark.parametrize("channels_first", (False, True))
@pytest.mark.parametrize("convert", (np.ascontiguousarray, torch.tensor), ids=("numpy", "torch"))
def test_arrays_and_tensors_of_frames(convert, channels_first, as_float):
    source = FRAMES.transpose(0, 3, 1, 2) if channels_first else FRAMES
    source = convert(source / 255 if as_float else source)
    before = copy.deepcopy(source)
    video = load_video(source, num_frames=5, video_fps=10)
    np.testing.assert_array_equal(video.frames, FRAMES[::4])
    assert (video.timestamps, video.sound) == ((0.0, 0.4, 0.8, 1.2, 1.6), None)
    video.frames[:] = 0
    assert (source == before).all()


def test_frames_without_a_rate_have_no_times():
    video = load_video(FRAMES)
    assert (video.fps, video.timestamps, len(video.frames)) == (None, None, 8)
    with pytest.raises(MediaError, match=r"pass video_fps"):
        load_video(FRAMES, start=1)


def test_bfloat16_frames():
    assert load_video(torch.full((2, 3, 4, 4), 0.5, dtype=torch.bfloat16)).frames.max() == 128


def test_lists_and_folders_of_frames(tmp_path):
    images = [Image.fromarray(frame) for frame in FRAMES]
    for number, image in enumerate(images):
        image.save(tmp_path / f"frame {number}.png")  # "frame 10" sorts before "frame 2"
    (tmp_path / "notes.txt").write_text("no frame")
    files = [tmp_path / f"frame {number}.png" for number in range(20)]
    for source in (images, tuple(FRAMES), files, [str(file) for file in files], tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(load_video(source, num_frames=4).frames, FRAMES[::5])


def test_only_the_chosen_frames_of_a_list_are_opened(tmp_path):
    Image.fromarray(FRAMES[0]).save(tmp_path / "first.png")
    assert len(load_video([tmp_path / "first.png", tmp_path / "missing.png"], num_frames=1).frames) == 1


def test_frames_in_memory_are_scaled_with_antialiasing():
    stripes = np.zeros((2, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    frames = load_video(stripes, size=(8, 8)).frames
    assert frames.shape == (2, 8, 8, 3)
    np.testing.assert_allclose(frames[:, 2:-2, 2:-2], 128, atol=10)


# ---------------------------------------------------------------------------------------------------------- sources


def data_uri(path: Path) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()


SOURCES = {
    "path": lambda path: path,
    "text": str,
    "file URI": lambda path: path.as_uri(),
    "data URI": data_uri,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
}


@pytest.mark.parametrize("form", SOURCES)
def test_files_in_every_form(clip, picture, form):
    video = load_video(SOURCES[form](clip), size=(28, 28))
    np.testing.assert_array_equal(video.frames, load_video(clip, size=(28, 28)).frames)
    window = load_sound(clip).read(1.5, 2.5, 16_000)
    np.testing.assert_array_equal(video.sound.read(1.5, 2.5, 16_000), window)
    np.testing.assert_array_equal(load_sound(SOURCES[form](clip)).read(1.5, 2.5, 16_000), window)
    np.testing.assert_array_equal(load_image(SOURCES[form](picture)), Image.open(picture))
    assert media_kind(SOURCES[form](clip)) == "video"


def test_odd_file_names(clip, tmp_path):
    for name in ("a:b c.mp4", "concat:x.mp4", "Ünïcode 视频.mp4", "100%.mp4", "#1?.mp4"):
        path = tmp_path / name
        path.write_bytes(clip.read_bytes())
        assert load_video(path, num_frames=1).sound.read(0, 0.1, 16_000).shape == (1, 1600)
        assert load_video(path.as_uri(), num_frames=1).total_num_frames == 75


def test_a_relative_path_is_still_found_after_a_change_of_folder(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(clip.parent)
    sound = load_sound(clip.name)
    monkeypatch.chdir(tmp_path)
    assert sound.read(0, 1, 16_000).shape == (1, 16_000)


def test_temporary_files_live_as_long_as_they_are_needed(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    video = load_video(clip.read_bytes(), num_frames=1)
    duplicate = copy.deepcopy(video.sound)
    assert len(list(tmp_path.iterdir())) == 1
    del video
    gc.collect()
    assert duplicate.read(0, 1, 16_000).shape == (1, 16_000)
    del duplicate
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_modules_imports_no_decoder(tmp_path):
    """Alone, without the rest of the package."""
    wing = Path(shutil.copytree(Path(media.__file__).parent, tmp_path / "wing", ignore=lambda *_: ["__pycache__"]))
    for module in wing.glob("*.py"):
        # the library would import what it finds at the top of these
        assert {"av", "torchaudio"}.isdisjoint(get_imports(module))
    check = "import sys, wing; print([name for name in ('av', 'torchaudio') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_missing_decoder_is_named(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"av is needed to decode this: pip install av"):
        load_video(clip)


# ------------------------------------------------------------------------------------------------------------- URLs


class Handler(http.server.BaseHTTPRequestHandler):
    """A server with every bad habit; `content` and `requests` are set by the fixture."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        self.server.requests.append(self.path)
        getattr(self, f"get_{self.path.partition('?')[0].strip('/')}", lambda: self.send_error(404))()

    def start(self, **headers: int):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def get_clip(self):
        self.start(Content_Length=len(self.server.content))
        self.wfile.write(self.server.content)

    get_unsized = property(lambda self: lambda: (self.start(), self.wfile.write(self.server.content)))

    def get_moved(self):
        self.send_response(302)
        self.send_header("Location", "/clip")
        self.end_headers()

    def get_circle(self):
        self.send_response(302)
        self.send_header("Location", "/circle")
        self.end_headers()

    def get_hang(self):
        self.server.stopped.wait(20)

    def get_drip(self):
        self.start(Content_Length=10_000)
        self.drip(b"x")

    def get_drip_in_headers(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drip: ")
        self.drip(b"x")

    def drip(self, byte: bytes):
        while not self.server.stopped.wait(0.05):
            self.wfile.write(byte)
            self.wfile.flush()

    def get_short(self):
        self.start(Content_Length=len(self.server.content))
        self.wfile.write(self.server.content[:1000])

    def get_empty(self):
        self.start(Content_Length=0)

    def get_huge(self):
        self.start(Content_Length=1 << 40)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    url: str
    content: bytes
    requests: list[str]
    stopped: threading.Event

    def handle_error(self, *_):  # clients that give up are the point
        pass


@pytest.fixture
def server(clip, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content, server.requests, server.stopped = clip.read_bytes(), [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.stopped.set()
        server.shutdown()


@pytest.mark.parametrize("page", ("clip", "unsized", "moved"))
def test_a_url_is_fetched_once_for_frames_and_sound(server, clip, page):
    video = load_video(f"{server.url}/{page}?signature=secret")
    np.testing.assert_array_equal(video.frames, load_video(clip).frames)
    np.testing.assert_array_equal(video.sound.read(0, 2, 16_000), load_sound(clip).read(0, 2, 16_000))
    assert server.requests[-1].startswith("/clip" if page == "moved" else f"/{page}")
    assert len(server.requests) == (2 if page == "moved" else 1)
    assert "secret" not in video.name


def test_an_image_by_url(server, picture):
    server.content = picture.read_bytes()
    np.testing.assert_array_equal(load_image(f"{server.url}/clip"), Image.open(picture))
    np.testing.assert_array_equal(load_video(f"{server.url}/clip").frames[0], Image.open(picture))


@pytest.mark.parametrize(
    ("page", "match"),
    (
        ("missing", "404"),
        ("hang", "not here after 0.5 s"),
        ("drip", "not here after 0.5 s"),
        ("drip_in_headers", "not here after 0.5 s"),
        ("short", "ended after 1000 of"),
        ("empty", "ended after 0 of"),
        ("huge", "more than .* bytes .max_download_bytes of MediaAccess"),
        ("circle", "cannot be downloaded: .*redirect"),
    ),
)
@pytest.mark.parametrize("load", (load_video, load_sound))
def test_bad_servers(server, tmp_path, monkeypatch, load, page, match):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(MediaError, match=f"^{server.url}/{page}: .*{match}"):
        load(f"{server.url}/{page}", timeout=0.5)
    assert time.monotonic() - started < 3
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_downloads_of_unknown_length_are_bounded(server):
    with pytest.raises(MediaError, match=r"/unsized: cannot be downloaded: it has more than 1000 bytes"):
        load_video(f"{server.url}/unsized", access=MediaAccess(max_download_bytes=1000))


def test_a_server_that_is_not_there():
    with pytest.raises(MediaError, match=r"^http://127.0.0.1:9/x.mp4: cannot be downloaded"):
        load_video("http://127.0.0.1:9/x.mp4", timeout=2)


# ------------------------------------------------------------------------------------------------------- bad videos


def cut_in_half(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size // 2]


def with_zeros(path: Path) -> bytes:
    content = path.read_bytes()
    begin = content.index(b"mdat") + 1500
    return content[:begin] + bytes(len(content) // 3) + content[begin + len(content) // 3 :]


def without_frames(path: Path) -> bytes:
    """An MP4 file whose sample tables have no entries."""
    content = bytearray(path.read_bytes())
    for box, offset in ((b"stts", 8), (b"stsc", 8), (b"stco", 8), (b"stsz", 12), (b"stss", 8)):
        count = content.index(box) + offset
        content[count : count + 4] = bytes(4)
    return bytes(content)


BAD_VIDEOS = {
    "no frames": (lambda clip, index_first: without_frames(clip), "its video has no frames that can be decoded"),
    "empty": (lambda clip, index_first: b"", r"is empty \(0 bytes\)"),
    "text": (lambda clip, index_first: b"no video " * 99, "is damaged, cut, or no video or sound"),
    "cut, index lost": (lambda clip, index_first: cut_in_half(clip), "is damaged, cut, or no video or sound"),
    "cut, index first": (lambda clip, index_first: cut_in_half(index_first), "is cut: it should have .* bytes"),
    "last bytes lost": (lambda clip, index_first: index_first.read_bytes()[:-9], "is cut: it should have .* bytes"),
    "overwritten": (lambda clip, index_first: with_zeros(clip), "is damaged, cut, or no video or sound: Invalid data"),
    "codec": (
        lambda clip, index_first: clip.read_bytes().replace(b"avc1", b"zzzz"),
        "has a video codec that is not supported",
    ),
}


@pytest.mark.parametrize("fault", BAD_VIDEOS)
def test_bad_videos_are_named_with_the_reason(clip, index_first_clip, tmp_path, capfd, fault):
    make, match = BAD_VIDEOS[fault]
    path = tmp_path / "bad.mp4"
    path.write_bytes(make(clip, index_first_clip))
    started = time.monotonic()
    with pytest.raises(MediaError, match=f"bad.mp4: {match}"):
        load_video(path)
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""  # FFmpeg prints its complaints unless told not to


@pytest.mark.parametrize("name", ("clip.mkv", "clip.avi"))
def test_other_containers_do_not_lose_frames_without_a_word(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert load_video(tmp_path / name).total_num_frames == 40
    (tmp_path / name).write_bytes(cut_in_half(tmp_path / name))
    with pytest.raises(MediaError, match=r"is cut: "):
        load_video(tmp_path / name)


def test_a_header_that_claims_a_million_years_has_the_frames_that_are_there(tmp_path):
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("h264", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = bytearray(path.read_bytes())
    start_time = content.rindex(b"tfdt") + 8  # of the last fragment
    content[start_time : start_time + 8] = (1 << 50).to_bytes(8, "big")
    path.write_bytes(content)
    assert load_video(path).total_num_frames == 3


@pytest.mark.parametrize(
    ("make", "match"),
    (
        (lambda folder: folder / "missing.mp4", "missing.mp4: does not exist"),
        (lambda folder: (folder / "missing.mp4").as_uri(), "missing.mp4: does not exist"),
        (lambda folder: "", "does not exist|is a folder"),
        (lambda folder: "x" * 100_000, "has 100000 characters, more than 8192 .max_path_length"),
        (lambda folder: "null\0byte", "does not exist"),
        (lambda folder: b"", "<0 bytes>: holds no bytes"),
        (lambda folder: b"text", "<4 bytes>: is damaged"),
        (lambda folder: "data:video/mp4,plain", "data URI 'data:video/mp4' cannot be decoded: expected"),
        (lambda folder: "data:video/mp4;base64,?!", "cannot be decoded"),
        (lambda folder: "data:video/mp4;base64,", "holds no bytes"),
        (lambda folder: None, "got NoneType, expected a path"),
        (lambda folder: 3.5, "got float, expected a path"),
        (lambda folder: {"where": "x"}, "got a dict with .'where'., expected one with 'bytes' or 'path'"),
        (lambda folder: {"path": "x"}, "x: does not exist"),
        (lambda folder: [], "list of 0 frames: got a video of 0 frames"),
        (lambda folder: [None], "list of 1 frames: frame 0: got NoneType"),
        (lambda folder: [folder / "missing.png"], "frame 0: .*missing.png: does not exist"),
        (lambda folder: [FRAMES[0], FRAMES[1][:3]], "frames differ in size"),
        (lambda folder: FRAMES[0], r"shape \(6, 10, 3\), expected \(T, H, W, C\)"),
        (lambda folder: np.zeros(()), r"shape \(\), expected"),
        (lambda folder: np.zeros((2, 5, 5, 7), np.uint8), "with 1, 3 or 4 channels"),
        (lambda folder: FRAMES.astype(int), "int64 .*expected uint8, or float from 0 to 1"),
        (lambda folder: FRAMES.astype(np.float32), "expected uint8, or float from 0 to 1"),
        (lambda folder: np.full((2, 4, 4, 3), np.nan), "expected uint8, or float from 0 to 1"),
        (lambda folder: np.zeros((0, 4, 4, 3), np.uint8), "a video of 0 frames"),
    ),
)
def test_bad_video_sources(tmp_path, make, match):
    with pytest.raises(MediaError, match=match):
        load_video(make(tmp_path))


def test_a_folder_without_frames(tmp_path):
    (tmp_path / "notes.txt").write_text("no frame")
    with pytest.raises(MediaError, match=r"is a folder without frames .*.png"):
        load_video(tmp_path)
    for load in (load_image, load_sound):
        with pytest.raises(MediaError, match=r"is a folder, expected a file"):
            load(tmp_path)
    assert media_kind(tmp_path) == "video"


def test_no_video_in_a_sound(tmp_path):
    path = write_wav(tmp_path / "sound.wav", noise(8000), 16_000)
    with pytest.raises(MediaError, match=r"has no video stream \(streams: \['audio'\]\)"):
        load_video(path)


@pytest.mark.parametrize("options", ({"start": 3.0}, {"start": 1.0, "end": 0.5}))
def test_spans_outside_of_a_file(clip, options):
    with pytest.raises(MediaError, match=r"clip.mp4: got the span .* expected one within 0 to 3.0"):
        load_video(clip, **options)


@pytest.mark.parametrize(
    ("options", "match"), (({"size": (0, 8)}, "size="), ({"size": (8,)}, "size="), ({"video_fps": 30}, "video_fps=30"))
)
def test_bad_options(clip, options, match):
    with pytest.raises(ValueError, match=match):
        load_video(clip, **options)


def test_the_right_frame_rate_may_be_given_for_a_file(clip):
    assert load_video(clip, video_fps=25).fps == 25.0


def test_decoded_frames_are_bounded(clip):
    access = MediaAccess(max_request_bytes=8 * 96 * 128 * 3)
    assert len(load_video(clip, access=access).frames) == 8
    with pytest.raises(MediaError, match=r"9 frames of .* bytes, .* more than .* ask for fewer frames"):
        load_video(clip, num_frames=9, access=access)


# ----------------------------------------------------------------------------------------------------------- images


def test_images_become_rgb(picture):
    rgb = np.asarray(Image.open(picture))
    image = load_image(picture)
    assert (image.mode, image.size) == ("RGB", SIZE[::-1])
    np.testing.assert_array_equal(image, rgb)
    tensor = torch.tensor(rgb).permute(2, 0, 1)
    sources = (rgb, rgb / 255, tensor, tensor / 255, tensor.permute(1, 2, 0), Image.fromarray(rgb))
    for source in (*sources, np.dstack([rgb, np.full(SIZE, 255, np.uint8)])):
        np.testing.assert_array_equal(load_image(source), rgb)
    grey = np.asarray(load_image(rgb[..., 0]))
    np.testing.assert_array_equal(grey, rgb[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(load_image(rgb[..., :1]), grey)


@pytest.mark.parametrize("mode", ("I;16", "I;16B", "I"))
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, mode):
    ramp = np.linspace(0, 65535, 256).round().astype({"I;16": "<u2", "I;16B": ">u2", "I": "i4"}[mode])[None]
    image = Image.frombytes(mode, (256, 1), ramp.tobytes())
    np.testing.assert_array_equal(np.asarray(load_image(image))[0, :, 0], np.arange(256))
    if mode == "I;16":
        image.save(tmp_path / "ramp.png")
        np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "ramp.png"))[0, :, 2], np.arange(256))


@pytest.mark.parametrize("mode", ("RGBA", "LA", "P", "1", "CMYK", "L"))
def test_other_modes_are_converted_as_the_original_did(picture, tmp_path, mode):
    image = Image.open(picture).convert("RGB" if mode in ("RGBA", "CMYK") else "L").convert(mode)
    np.testing.assert_array_equal(load_image(image), image.convert("RGB"))
    assert image.mode == mode


@pytest.mark.parametrize("size", ((1, 4000), (4000, 1)))
def test_images_of_extreme_shapes(tmp_path, size):
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "thin.png")
    assert load_image(tmp_path / "thin.png").size == size
    assert load_image(np.zeros((*size[::-1], 3), np.uint8)).size == size
    assert load_image(torch.zeros((3, *size[::-1]), dtype=torch.uint8)).size == size
    assert load_image(torch.zeros((*size[::-1], 3), dtype=torch.uint8)).size == size
    assert load_video(tmp_path / "thin.png", size=(8, 8)).frames.shape == (1, 8, 8, 3)


def test_bad_images(picture, clip, tmp_path, monkeypatch):
    (tmp_path / "cut.png").write_bytes(cut_in_half(picture))
    Image.open(picture).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes(cut_in_half(tmp_path / "whole.jpg"))
    for path in (clip, tmp_path / "cut.png", tmp_path / "cut.jpg"):
        with pytest.raises(MediaError, match=f"{path.name}: cannot be read as an image"):
            load_image(path)
    with pytest.raises(MediaError, match=r"image: cannot be read as an image"):
        load_image(Image.open(tmp_path / "cut.png"))
    with pytest.raises(MediaError, match=r"float64 images of shape \(2, 2\), expected uint8, or float from 0 to 1"):
        load_image(np.full((2, 2), 2.0))
    with pytest.raises(MediaError, match=r"got list, expected a path"):
        load_image([1, 2])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for load in (load_image, load_video):
        with pytest.raises(MediaError, match=r"picture.png: .*could be decompression bomb"):
            load(picture)


# ------------------------------------------------------------------------------------------------------------ sound


RATES = (44_100, 22_050, 48_000, 16_000, 8_000)
WINDOWS = ((0.0, 2.0), (0.0, 0.01), (1.3, 3.3), (2.17, 2.171), (1.23456, 2.34567), (3.0, 5.0), (4.9, 5.0), (0.0, 5.0))


@pytest.mark.parametrize(
    "rates", ((44_100, 16_000), (22_050, 16_000), (8_000, 16_000), (16_000, 44_100), (11_025, 48_000))
)
def test_resampling_equals_torchaudio(rates):
    resample = import_torchaudio("torchaudio.functional").resample
    samples = noise(rates[0] * 2, channels=2)
    whole = load_sound(samples, sampling_rate=rates[0]).read(0, 2, rates[1])
    expected = resample(torch.tensor(samples / 32768, dtype=torch.float32), *rates)
    np.testing.assert_allclose(whole, expected, atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_windows_are_cut_out_of_the_whole_resampled_track(tmp_path, rate):
    path = write_wav(tmp_path / "sound.wav", noise(rate * 5, channels=2), rate)
    sound = load_sound(path)
    whole = load_sound(noise(rate * 5, channels=2), sampling_rate=rate).read(0, 5, 16_000)
    assert (sound.sampling_rate, sound.num_channels, sound.duration, whole.shape) == (rate, 2, 5.0, (2, 80_000))
    for start, end in WINDOWS:
        window = sound.read(start, end, 16_000)
        assert (window.shape, window.dtype) == ((2, round((end - start) * 16_000)), np.float32)
        first = round(start * 16_000)
        np.testing.assert_allclose(window, whole[:, first : first + window.shape[1]], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    (
        ("sound.mp3", "libmp3lame", 44_100),
        ("sound.flac", "flac", 44_100),
        ("sound.opus", "libopus", 48_000),
        ("sound.webm", "libopus", 48_000),
        ("sound.wav", "pcm_s24le", 22_050),
        ("sound.wav", "pcm_u8", 16_000),
        ("sound.wav", "pcm_f64le", 8_000),
    ),
)
def test_codecs_give_the_same_samples_wherever_they_are_entered(tmp_path, name, codec, rate):
    path = encode_sound(tmp_path / name, codec, noise(rate * 5)[0] / 32768, rate)
    with av.open(str(path)) as container:
        decoded = [media.tracks.samples_of(frame) for frame in container.decode(audio=0)]
    whole = load_sound(np.concatenate(decoded, axis=1), sampling_rate=rate).read(0, 9, 16_000)
    sound = load_sound(path)
    assert sound.duration == pytest.approx(5, abs=0.1)
    for start, end in WINDOWS[:6]:
        window, first = sound.read(start, end, 16_000), round(start * 16_000)
        length = min(window.shape[1], whole.shape[1] - first)
        assert length == pytest.approx((end - start) * 16_000, abs=200)
        np.testing.assert_allclose(window[:, :length], whole[:, first : first + length], atol=1e-4)


def test_the_sound_of_a_clip_is_the_bell(clip):
    with av.open(str(clip)) as container:
        whole = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    sound = load_video(clip).sound
    assert sound.duration == pytest.approx(3, abs=0.05)
    for start in (0.0, 0.5, 1.1, 2.0):
        first = round(start * 44_100)
        np.testing.assert_allclose(sound.read(start, start + 0.5, 44_100), whole[:, first : first + 22_050], atol=1e-4)


def test_a_span_of_a_video_selects_its_sound(clip):
    video, sound = load_video(clip, start=1.0, end=2.5), load_sound(clip)
    assert video.timestamps[0] == 1.0
    assert video.sound.duration == load_sound(clip, start=1.0, end=2.5).duration == 1.5
    np.testing.assert_array_equal(video.sound.read(0.2, 0.7, 16_000), sound.read(1.2, 1.7, 16_000))
    np.testing.assert_array_equal(load_sound(sound, start=1, end=2).read(0, 9, 16_000), sound.read(1, 2, 16_000))
    assert video.sound.read(1.0, 9.0, 16_000).shape == (1, 8000)


def test_a_window_that_reaches_past_the_end_is_cut():
    sound = load_sound(noise(16_000), sampling_rate=16_000)
    assert sound.read(0.5, 2.5, 16_000).shape == (1, 8000)
    assert sound.read(0.5, 2.5, 44_100).shape == (1, 22_050)
    with pytest.raises(MediaError, match=r"window 1.0 to 2.0 s of 1.000 s of sound"):
        sound.read(1.0, 2.0, 16_000)


def test_short_sounds(tmp_path):
    short = load_sound(write_wav(tmp_path / "short.wav", noise(1600), 16_000))
    assert short.read(0, 2, 16_000).shape == (1, 1600)
    single = load_sound(write_wav(tmp_path / "single.wav", noise(1), 16_000))
    assert single.read(0, 2, 16_000).shape == (1, 1)


def test_ten_hours_cost_what_ten_seconds_cost(tmp_path, monkeypatch):
    rate, seconds = 16_000, 36_000
    path = write_wav(tmp_path / "long.wav", np.zeros((1, 0), np.int16), rate)
    header = bytearray(path.read_bytes())
    header[4:8], header[40:44] = (
        (36 + seconds * rate * 2).to_bytes(4, "little"),
        (seconds * rate * 2).to_bytes(4, "little"),
    )
    with path.open("wb") as file:
        file.write(header)
        file.truncate(44 + seconds * rate * 2)  # a hole: no space on disk
    decoded = []
    convert = media.tracks.samples_of

    def count(frame):
        decoded.append(frame.samples)
        return convert(frame)

    monkeypatch.setattr(media.tracks, "samples_of", count)
    sound = load_sound(path)
    for start in (0.0, 17_999.5, 35_998.0):
        assert sound.read(start, start + 2, rate).shape == (1, 32_000)
    assert sum(decoded) < 15 * rate


@pytest.mark.parametrize(
    ("source", "shape"),
    (
        (np.zeros(800, np.float32), (1, 800)),
        (np.zeros((2, 800), np.float64), (2, 800)),
        (torch.zeros(800), (1, 800)),
        (torch.zeros(2, 800, dtype=torch.float16), (2, 800)),
        (np.zeros(800, np.int16), (1, 800)),
    ),
)
def test_samples_in_memory(source, shape):
    sound = load_sound(source)
    assert (sound.sampling_rate, sound.num_channels, sound.duration) == (16_000, shape[0], 0.05)
    assert (sound.read(0, 1, 16_000).shape, sound.read(0, 1, 16_000).dtype) == (shape, np.float32)


def test_sixteen_bit_samples_are_scaled():
    samples = np.array([0, 16384, -32768], np.int16)
    np.testing.assert_array_equal(load_sound(samples).read(0, 1, 16_000), [[0, 0.5, -1]])
    assert samples.tolist() == [0, 16384, -32768]


@pytest.mark.parametrize(
    ("source", "options", "match"),
    (
        (np.zeros(0, np.float32), {}, "at least one sample"),
        (np.zeros((800, 2), np.float32), {}, r"shape \(800, 2\): expected shape \(samples,\)"),
        (np.zeros((1, 1, 800), np.float32), {}, "expected shape"),
        (np.full(800, np.nan), {}, "without NaN"),
        (np.full(800, np.inf), {}, "without NaN"),
        (np.full(800, 32_000.0), {}, "float from -1 to 1"),
        (np.zeros(800, np.int64), {}, "int64 samples .* expected float"),
        (np.zeros(800), {"start": 1}, "from 1 to 0.05 s, expected one within 0 to 0.050 s"),
        ([0.0, 0.1], {}, "got list, expected a path"),
        ("missing.wav", {}, "missing.wav: does not exist"),
        (b"RIFF", {}, "is damaged, cut, or no video or sound"),
    ),
)
def test_bad_sound_sources(source, options, match):
    with pytest.raises(MediaError, match=match):
        load_sound(source, **options)


def test_a_wrong_sampling_rate_is_an_error(tmp_path, clip):
    path = write_wav(tmp_path / "sound.wav", noise(8000), 8_000)
    assert load_sound(path, sampling_rate=8_000).sampling_rate == 8_000
    with pytest.raises(MediaError, match=r"sound.wav: wrong sampling rate given, 16000 Hz; it has 8000 Hz"):
        load_sound(path, sampling_rate=16_000)
    with pytest.raises(MediaError, match=r"wrong sampling rate given"):
        load_sound(load_sound(clip), sampling_rate=8_000)


def test_a_silent_video_has_no_sound_stream(silent_clip):
    assert load_video(silent_clip).sound is None
    with pytest.raises(MediaError, match=r"silent.mp4: has no sound stream \(streams: \['video'\]\)"):
        load_sound(silent_clip)


def test_a_sound_without_samples(tmp_path):
    path = write_wav(tmp_path / "none.wav", noise(0), 16_000)
    with pytest.raises(MediaError, match=r"none.wav: its sound holds no samples"):
        load_sound(path)


def test_an_unknown_sound_codec_does_not_hide_the_frames(clip, tmp_path):
    path = tmp_path / "odd.mp4"
    path.write_bytes(clip.read_bytes().replace(b"mp4a", b"zzzz").replace(b"esds", b"free"))
    video = load_video(path)
    assert len(video.frames) == 8
    with pytest.raises(MediaError, match=r"odd.mp4: its sound has a codec that is not supported"):
        video.sound.read(0, 1, 16_000)
    with pytest.raises(MediaError, match=r"odd.mp4: its sound has a codec that is not supported"):
        load_sound(path)


def test_nan_in_a_file(tmp_path):
    samples = np.zeros(32_000, np.float32)
    samples[20_000] = np.nan
    sound = load_sound(encode_sound(tmp_path / "nan.wav", "pcm_f32le", samples, 16_000))
    assert sound.read(0, 1, 16_000).shape == (1, 16_000)
    with pytest.raises(MediaError, match=r"nan.wav: NaN or infinite samples between 1 and 2 s"):
        sound.read(1, 2, 16_000)


@pytest.mark.parametrize("name", ("sound.wav", "sound.flac", "sound.webm", "sound.mp4"))
def test_a_file_that_is_cut_while_it_is_read_is_an_error_and_not_silence(tmp_path, name):
    codec = {"wav": "pcm_s16le", "flac": "flac", "webm": "libopus", "mp4": "aac"}[name.partition(".")[2]]
    path = encode_sound(tmp_path / name, codec, noise(48_000 * 10)[0] / 32768, 48_000)
    sound = load_sound(path)
    path.write_bytes(cut_in_half(path))
    with pytest.raises(MediaError, match=f"{name}: is (cut|damaged)"):
        sound.read(7, 9, 16_000)


def test_a_damaged_stretch_of_sound_is_an_error(tmp_path):
    path = encode_sound(tmp_path / "sound.mp4", "aac", noise(48_000 * 10)[0] / 32768, 48_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(content)
    sound = load_sound(path)
    assert sound.read(0, 2, 16_000).shape == (1, 32_000)
    with pytest.raises(MediaError, match=r"sound.mp4: is damaged"):
        sound.read(4, 7, 16_000)


def test_rates_without_a_common_divisor_are_refused(tmp_path):
    with pytest.raises(MediaError, match=r"cannot resample at the ratio 44101:16000"):
        load_sound(noise(44_101), sampling_rate=44_101).read(0, 1, 16_000)


# ------------------------------------------------------------------------------------------------------------- kind


def test_kind_is_told_from_the_content(tmp_path, clip, silent_clip, picture):
    moving = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue")]
    moving[0].save(tmp_path / "moving.gif", save_all=True, append_images=moving[1:])
    sound = write_wav(tmp_path / "sound.wav", noise(1600), 16_000)
    kinds = {clip: "video", silent_clip: "video", picture: "image", tmp_path / "moving.gif": "video", sound: "audio"}
    for path, kind in kinds.items():
        renamed = tmp_path / "renamed.bin"
        renamed.write_bytes(path.read_bytes())
        assert media_kind(path) == media_kind(renamed) == kind


def test_a_song_with_cover_art_is_audio(tmp_path):
    path = tmp_path / "song.mp3"
    jpeg = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(jpeg, "JPEG")
    picture_frame = b"\0image/jpeg\0\3\0" + jpeg.getvalue()
    frame = b"APIC" + len(picture_frame).to_bytes(4, "big") + b"\0\0" + picture_frame
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    encode_sound(path, "libmp3lame", noise(44_100)[0] / 32768, 44_100)
    path.write_bytes(b"ID3\3\0\0" + size + frame + path.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert media_kind(path) == "audio"
    assert load_sound(path).duration == pytest.approx(1, abs=0.1)
    with pytest.raises(MediaError, match=r"song.mp3: has no video stream"):
        load_video(path)


def test_text_is_of_no_kind(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video " * 99)
    with pytest.raises(MediaError, match=r"notes.mp4: is damaged, cut, or no video or sound"):
        media_kind(tmp_path / "notes.mp4")


def test_rendered_clips_are_seeded(tmp_path):
    contents = [
        render_clip(tmp_path / "clip.mp4", seconds=0.2, size=(32, 32), seed=seed).read_bytes() for seed in (0, 0, 1)
    ]
    assert contents[0] == contents[1] != contents[2]


def test_sound_is_a_plain_record(clip):
    sound = load_sound(clip)
    assert isinstance(sound, Sound)
    assert (sound.name, sound.num_channels, sound.sampling_rate) == (str(clip), 1, 44_100)
