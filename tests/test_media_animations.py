"""Animated images as videos: their frames, and when each is shown."""

import numpy as np
import pytest
from PIL import Image, features

from transformers_videollama.media import MediaAccess, MediaError, load_image, load_video, media_kind
from transformers_videollama.media.animations import Animation
from transformers_videollama.media.sources import local_file


SHADES = (10, 90, 170, 250)
DELAYS = (100, 1000, 40, 300)  # milliseconds


def animation(path, shades=SHADES, **options):
    pictures = [Image.fromarray(np.full((48, 64, 3), shade, np.uint8)) for shade in shades]
    options = {"duration": list(DELAYS), "loop": 3, **options}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.fixture(scope="module")
def webp(tmp_path_factory):
    if not features.check("webp"):
        pytest.skip("Pillow without WebP")
    return animation(tmp_path_factory.mktemp("webp") / "moving.webp", lossless=True)


def test_animated_webp_is_a_video(webp):
    assert media_kind(webp) == "video"
    video = load_video(webp)
    assert (video.total_num_frames, video.sound) == (4, None)  # one turn of the loop
    assert video.fps == pytest.approx(4 / 1.44)
    np.testing.assert_array_equal(video.frames.mean((1, 2, 3)), SHADES)
    assert load_video(webp.read_bytes(), size=(8, 10)).frames.shape == (4, 8, 10, 3)
    assert np.asarray(load_image(webp)).mean() == SHADES[0]


def test_frames_are_shown_when_the_file_says(webp):
    assert Animation(local_file(webp), None).times == pytest.approx([0.0, 0.1, 1.1, 1.14, 1.44])


def test_delays_that_are_none_are_a_tenth_of_a_second(tmp_path):
    path = animation(tmp_path / "fast.webp", duration=0)
    assert Animation(local_file(path), None).times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_frames_are_read_in_any_order(webp):
    frames = Animation(local_file(webp), None).read([3, 0, 3, 1])
    assert {index: frame.mean() for index, frame in frames.items()} == {index: SHADES[index] for index in (0, 1, 3)}


def test_partial_frames_and_transparency(tmp_path):
    """Each frame changes a part of what was there before, and nothing is white."""
    pictures = []
    for number in range(3):
        rgba = np.zeros((32, 32, 4), np.uint8)
        rgba[: 8 * (number + 1), :8] = (200, 20, 20, 255)
        rgba[:8, 8 * (number + 1)] = (0, 0, 0, 128)
        pictures.append(Image.fromarray(rgba))
    path = tmp_path / "parts.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, lossless=True)
    for number, frame in enumerate(load_video(path).frames):
        expected = np.full((32, 32, 3), 255, np.uint8)
        expected[: 8 * (number + 1), :8] = (200, 20, 20)
        expected[:8, 8 * (number + 1)] = 127
        np.testing.assert_array_equal(frame, expected)


def test_a_cut_animation_is_named(webp, tmp_path):
    content = webp.read_bytes()
    path = tmp_path / "cut.webp"
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(MediaError, match=r"cut\.webp: "):
        load_video(path)


def test_a_still_webp_is_an_image(tmp_path):
    Image.new("RGB", (8, 8), (9, 99, 199)).save(tmp_path / "still.webp", lossless=True)
    assert media_kind(tmp_path / "still.webp") == "image"
    assert load_video(tmp_path / "still.webp").frames.shape == (1, 8, 8, 3)


def test_limits_hold_for_animations(webp):
    with pytest.raises(MediaError, match=r"moving\.webp: is 64 x 48, 3072 pixels, more than 3071"):
        load_video(webp, access=MediaAccess(max_frame_pixels=3071))
    with pytest.raises(MediaError, match=r"moving\.webp: .*max_request_bytes"):
        load_video(webp, access=MediaAccess(max_request_bytes=3 * 3 * 3072))
