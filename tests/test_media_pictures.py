"""Pictures as people have them: turned by cameras, transparent, of more than 8 bits, huge, damaged."""

import contextlib
import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, features

from transformers_videollama.media import MediaError, load_image, load_video, media_kind
from transformers_videollama.media import images as media_images


PICTURE = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


# -------------------------------------------------------------------------------------------------------- orientation


def with_exif(path, orientation: int, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PICTURE).save(path, exif=exif, **options)
    return path


TURNED = {
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: np.rot90(PICTURE, -1),
    7: np.rot90(PICTURE, -1)[:, ::-1][::-1, ::-1],
    8: np.rot90(PICTURE),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_photos_are_upright(tmp_path, orientation):
    path = with_exif(tmp_path / "photo.png", orientation)
    for source in (path, path.read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(load_image(source), TURNED[orientation])
    np.testing.assert_array_equal(load_video(path).frames[0], TURNED[orientation])
    np.testing.assert_array_equal(load_video([path, Image.open(path)]).frames[1], TURNED[orientation])
    np.testing.assert_array_equal(load_video(tmp_path).frames[0], TURNED[orientation])


@pytest.mark.parametrize("name", ("photo.jpg", "photo.webp", "photo.tif", "photo.avif", "photo.mpo"))
def test_every_format_with_an_orientation_is_turned_once(tmp_path, name):
    if name.endswith(("webp", "avif")) and not features.check(name[6:]):
        pytest.skip("this Pillow cannot write the format")
    options = {"save_all": True, "append_images": [Image.fromarray(PICTURE)]} if name.endswith("mpo") else {}
    assert load_image(with_exif(tmp_path / name, 6, **options)).size == PICTURE.shape[:2]


def test_a_picture_in_memory_stays_as_it_is(tmp_path):
    image = Image.open(with_exif(tmp_path / "photo.jpg", 6))
    assert load_image(image).size == (6, 10)
    assert image.size == (10, 6)


def test_a_damaged_exif_does_not_matter(tmp_path):
    content = with_exif(tmp_path / "photo.jpg", 6).read_bytes()
    (tmp_path / "photo.jpg").write_bytes(content.replace(b"Exif\0\0MM", b"Exif\0\0XX"))
    assert load_image(tmp_path / "photo.jpg").size == (10, 6)


# ------------------------------------------------------------------------------------------------------- transparency


def transparent(mode: str) -> Image.Image:
    """Black: on the left nothing, on the right opaque."""
    rgba = np.zeros((4, 8, 4), np.uint8)
    rgba[:, 4:, 3] = 255
    image = Image.fromarray(rgba)
    if mode == "P":
        palette = Image.new("P", (8, 4), 0)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.paste(1, (4, 0, 8, 4))
        palette.info["transparency"] = 0
        return palette
    if mode == "PA":
        palette = Image.new("PA", image.size)
        palette.putpalette([0, 0, 0], "RGB")
        palette.putalpha(image.getchannel("A"))
        return palette
    if mode == "La":
        return image.convert("LA").convert("La")
    return image.convert(mode)


@pytest.mark.parametrize("mode", ("RGBA", "RGBa", "LA", "La", "P", "PA"))
def test_what_is_transparent_is_white(mode):
    image = transparent(mode)
    assert image.mode == mode
    pixels = np.asarray(load_image(image))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == 0).all()
    np.testing.assert_array_equal(load_video([image]).frames[0], pixels)


@pytest.mark.parametrize("mode", ("RGB", "L", "1"))
def test_a_colour_that_a_file_calls_transparent_is_white(tmp_path, mode):
    image = Image.new("RGB", (8, 4)).convert(mode)
    image.paste((9, 99, 199) if mode == "RGB" else 255, (4, 0, 8, 4))
    image.save(tmp_path / "logo.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    pixels = np.asarray(load_image(tmp_path / "logo.png"))
    assert (pixels[:, :4] == 255).all()
    assert (pixels[0, 5] == ((9, 99, 199) if mode == "RGB" else 255)).all()


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 128))
    expected = (127, 177, 227)
    assert load_image(image).getpixel((0, 0)) == expected
    array = np.asarray(image)
    for source in (array, array / 255, array.astype(np.float32) / 255, array.transpose(2, 0, 1)):
        assert load_image(source).getpixel((0, 0)) == expected
    assert tuple(load_video(array[None]).frames[0, 0, 0]) == expected


# -------------------------------------------------------------------------------------------- grey of more than 8 bits


@pytest.mark.parametrize(
    ("mode", "dtype", "top"),
    (
        ("I;16", "<u2", 255),
        ("I;16", "<u2", 65535),
        ("I;16B", ">u2", 65535),
        ("I", "i4", 255),
        ("I", "i4", 65535),
        ("I", "i4", 2**31 - 1),
        ("F", "f4", 1),
        ("F", "f4", 255),
        ("F", "f4", 65535),
    ),
)
def test_the_range_of_grey_is_told_from_its_largest_value(tmp_path, mode, dtype, top):
    ramp = (np.arange(256) / 255 * top)[None]
    ramp = (ramp if mode == "F" else ramp.round()).astype(dtype)
    image = Image.frombytes(mode, (256, 1), ramp.tobytes())
    sources = [image]
    if mode != "I;16B":
        image.save(tmp_path / "ramp.tif")
        sources.append(tmp_path / "ramp.tif")
    for source in sources:
        pixels = np.asarray(load_image(source))
        np.testing.assert_array_equal(pixels[0], np.arange(256)[:, None].repeat(3, 1))


def test_negative_integers_are_black():
    image = Image.fromarray(np.array([[-5, 0, 255]], np.int32))
    np.testing.assert_array_equal(np.asarray(load_image(image))[0, :, 0], [0, 0, 255])


@pytest.mark.parametrize("value", (-1.0, 70000.0, float("nan")))
def test_floats_of_no_known_range_are_refused(value):
    with pytest.raises(MediaError, match=r"image: got float pixels from .* to .*, expected 0 to 1"):
        load_image(Image.fromarray(np.array([[0.5, value]], np.float32)))


# --------------------------------------------------------------------------------------------- formats and large ones


def test_postscript_is_not_run(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "drawing.eps")
    for load in (load_image, load_video, media_kind):
        with pytest.raises(MediaError, match=r"drawing\.eps: "):
            load(tmp_path / "drawing.eps")


@pytest.mark.parametrize("name", ("a.bmp", "a.tga", "a.ppm", "a.ico", "a.sgi", "a.pcx", "a.tif", "a.dds", "a.jp2"))
def test_formats_that_are_opened(tmp_path, name):
    if name == "a.jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow cannot write the format")
    pixels = PICTURE.repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(tmp_path / name)
    assert media_kind(tmp_path / name) == "image"
    np.testing.assert_array_equal(
        load_image(tmp_path / name).convert("RGB"), Image.open(tmp_path / name).convert("RGB")
    )


@pytest.mark.parametrize(
    "error", (RuntimeError, NotImplementedError, MemoryError, KeyError, IndexError, ZeroDivisionError, OverflowError)
)
@pytest.mark.parametrize("step", ("open", "load"))
def test_whatever_a_plugin_raises_names_the_file(tmp_path, monkeypatch, error, step):
    Image.fromarray(PICTURE).save(tmp_path / "photo.bmp")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image if step == "open" else Image.Image, step, fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(MediaError, match=r"photo\.bmp: cannot be read as an image: \w+"):
        load_image(tmp_path / "photo.bmp")


def test_damaged_files_are_media_errors(tmp_path):
    """Whatever Pillow raises, nothing but a `MediaError` comes out."""
    rng = np.random.default_rng(0)
    for name in ("a.avif", "a.dds", "a.jp2", "a.webp", "a.png", "a.jpg", "a.tif", "a.gif", "a.ico", "a.psd", "a.tga"):
        Image.init()
        if Image.EXTENSION[name[1:]] not in Image.SAVE:
            continue
        buffer = io.BytesIO()
        Image.fromarray(PICTURE).save(buffer, Image.EXTENSION[name[1:]])
        for _ in range(60):
            content = bytearray(buffer.getvalue())
            for place in rng.integers(0, len(content), 4):
                content[place] = rng.integers(256)
            with warnings.catch_warnings(), contextlib.suppress(MediaError):
                warnings.simplefilter("ignore")
                load_image(bytes(content))


@pytest.mark.parametrize("mode", ("RGB", "L", "1", "P", "RGBA", "I;16", "F", "CMYK"))
def test_large_pictures_are_reduced_while_they_are_converted(monkeypatch, mode):
    shades = np.linspace(0, 255, 60).round().astype(np.uint8)
    grey = Image.fromarray(np.broadcast_to(shades[:, None], (60, 40)).copy())
    image = grey.convert("RGB").convert(mode) if mode in ("RGBA", "CMYK", "RGB") else grey.convert(mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode == "1":
        image = grey.convert("1", dither=Image.Dither.NONE)
    whole = np.asarray(load_image(image)).astype(int)
    monkeypatch.setattr(media_images, "MAX_KEPT_PIXELS", 40 * 60 // 8)
    monkeypatch.setattr(media_images, "MAX_BAND_PIXELS", 40 * 7)
    reduced = load_image(image)
    assert reduced.size == (14, 20)
    expected = whole.reshape(20, 3, 40, 3).mean((1, 2, 3))
    assert np.abs(np.asarray(reduced).astype(int).mean((1, 2)) - expected).max() <= 1


def test_a_large_jpeg_is_reduced_by_its_decoder(tmp_path, monkeypatch):
    Image.new("RGB", (640, 480), (200, 100, 50)).save(tmp_path / "photo.jpg")
    monkeypatch.setattr(media_images, "MAX_KEPT_PIXELS", 640 * 480 // 16)
    image = load_image(tmp_path / "photo.jpg")
    assert image.size == (160, 120)
    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 2


LARGE = """
import resource, sys, warnings
warnings.simplefilter("ignore")
from transformers_videollama.media import load_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_image(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_of_a_picture_that_compresses_well(tmp_path):
    path = tmp_path / "nothing.png"
    Image.new("1", (11_500, 11_500)).save(path)  # just within the limit of pixels
    output = subprocess.run([sys.executable, "-c", LARGE, str(path)], check=True, capture_output=True, text=True)
    assert int(output.stdout) < 700 << 10  # KiB
