"""Bad media end in a clear error of one type before any model work, through the front door; media.py has more."""

import http.server
import threading

import av
import numpy as np
import pytest
import torch
from PIL import Image
from render_clip import render_clip

from transformers_videollama.media import MediaAccess, MediaError


RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that are broken in all the ways that files are."""
    folder = tmp_path_factory.mktemp("bad")
    clip = folder / "clip.mp4"
    render_clip(clip, seconds=2.0)
    data = clip.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is not a video.", encoding="utf-8")
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "codec.mp4").write_bytes(data.replace(b"avc1", b"zzz1"))
    (folder / "empty.wav").write_bytes(b"")
    with av.open(str(folder / "nothing.wav"), "w") as container:
        container.add_stream("pcm_s16le", rate=16000)
        container.start_encoding()
    return folder


@pytest.fixture(scope="module")
def server():
    """Answers 404, or not at all."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "hangs" in self.path:
                released.wait(30)
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    server.shutdown()


def prepare(processor, block, **kwargs):
    message = {"role": "user", "content": [block, {"type": "text", "text": "What is it?"}]}
    return processor.apply_chat_template(
        [message], tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=kwargs
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("video", "missing.mp4"),
        ("video", "empty.mp4"),
        ("video", "text.mp4"),
        ("video", "truncated.mp4"),
        ("video", "codec.mp4"),
        ("audio", "missing.wav"),
        ("audio", "empty.wav"),
        ("audio", "nothing.wav"),
        ("audio", "text.mp4"),
        ("image", "missing.jpg"),
        ("image", "text.mp4"),
    ],
)
def test_bad_files(processor, folder, kind, name):
    with pytest.raises(MediaError, match=name):
        prepare(processor, {"type": kind, kind: str(folder / name)})


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"type": "video", "video": np.zeros((0, 8, 8, 3), np.uint8)}, "frame"),
        ({"type": "video", "video": []}, "frame"),
        ({"type": "audio", "audio": np.zeros(0, np.float32)}, "sample"),
        ({"type": "audio", "audio": np.full(32000, np.nan, np.float32)}, "(?i)nan|finite"),
        ({"type": "audio", "audio": np.full(300, 0.5, np.float32)}, "window of 0.025 s"),
        ({"type": "image", "image": object()}, "object"),
        ({"type": "video", "video": 3}, "int"),
        ({"type": "video", "video": np.zeros((4, 8, 8, 3), np.uint8), "start": 1.0}, "(?i)fps|frames per second"),
    ],
)
def test_bad_values(processor, block, message):
    with pytest.raises(MediaError, match=message):
        prepare(processor, block)


def test_wrong_sampling_rate(processor, folder):
    with pytest.raises(MediaError, match="8000"):
        processor.feature_extractor(np.ones(16000, np.float32), sampling_rate=8000)


@pytest.mark.parametrize("kind", ("video", "audio", "image"))
def test_url_that_answers_404(processor, server, kind):
    with pytest.raises(MediaError, match=r"nothing\.mp4.*404|404.*nothing\.mp4"):
        prepare(processor, {"type": kind, "url": f"{server}/nothing.mp4"})


def test_url_that_hangs(processor, server):
    message = {"role": "user", "content": [{"type": "video", "url": f"{server}/hangs.mp4"}]}
    with pytest.raises(MediaError, match=r"hangs\.mp4"):
        processor.apply_chat_template([message], access=MediaAccess(download_timeout=0.5))


@pytest.mark.parametrize("num_frames", (1, 2))
def test_short_videos_work(processor, num_frames):
    frames = RNG.integers(0, 255, (num_frames, 20, 30, 3), dtype=np.uint8)
    inputs = prepare(processor, {"type": "video", "video": frames})
    assert inputs["video_frame_mask"].shape == (1, num_frames)


def test_short_sound_works(processor):
    inputs = prepare(processor, {"type": "audio", "audio": RNG.normal(size=1600).astype(np.float32)})
    assert inputs["input_features"].shape == (1, 8, 128, 204)
    assert inputs["input_features"].isfinite().all()


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(RNG.integers(0, 65535, (40, 50), dtype=np.uint16)),
        Image.fromarray(RNG.integers(0, 255, (40, 50, 4), dtype=np.uint8), "RGBA"),
        Image.fromarray(RNG.integers(0, 255, (1, 4000, 3), dtype=np.uint8)),
        Image.fromarray(RNG.integers(0, 255, (40, 50), dtype=np.uint8)).convert("P"),
    ],
    ids=("16-bit", "alpha", "1x4000", "palette"),
)
def test_unusual_images_work(processor, picture):
    assert prepare(processor, {"type": "image", "image": picture})["pixel_values"].shape == (1, 3, 224, 224)


def test_video_of_odd_size_works(processor):
    frames = RNG.integers(0, 255, (3, 1, 4000, 3), dtype=np.uint8)
    assert prepare(processor, {"type": "video", "video": frames})["pixel_values_videos"].shape == (1, 3, 3, 224, 224)


def test_more_frames_than_positions(processor, model):
    with pytest.raises(ValueError, match=r"got 20 frames .* position table has 16 rows; sample at most 16"):
        model.get_video_features(torch.zeros(1, 20, 3, 224, 224))


def test_truncated_text_is_refused(processor):
    """Cutting placeholders off would leave features without a place."""
    with pytest.raises(ValueError, match="truncation"):
        prepare(processor, {"type": "image", "image": Image.new("RGB", (9, 9))}, truncation=True, max_length=20)
