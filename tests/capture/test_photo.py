import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from humansplat.capture.photo import load_mask, load_photo
from humansplat.errors import UserError

ORANGE = (230, 120, 30)


@pytest.fixture
def picture() -> Image.Image:
    """Orange, with a blue top left quarter: every turn of it is another picture."""
    image = Image.new("RGB", (160, 200), ORANGE)
    image.paste((20, 60, 200), (0, 0, 80, 100))
    return image


def assert_same(pixels: np.ndarray, expected: Image.Image, tolerance: int) -> None:
    np.testing.assert_allclose(pixels.astype(int), np.asarray(expected).astype(int), atol=tolerance)


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".png", {}, 0),
        (".jpg", {"quality": 95, "subsampling": 0}, 6),
        (".webp", {"lossless": True}, 0),
        (".tif", {}, 0),
        (".bmp", {}, 0),
    ],
)
def test_reads_every_common_format(picture, tmp_path, suffix, options, tolerance):
    picture.save(tmp_path / f"a{suffix}", **options)
    photo = load_photo(tmp_path / f"a{suffix}")
    assert (photo.height, photo.width, photo.alpha) == (200, 160, None)
    assert_same(photo.pixels, picture, tolerance)


def test_reads_heic(picture, tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    picture.save(tmp_path / "a.heic", quality=90)
    assert_same(load_photo(tmp_path / "a.heic").pixels[10:90, 10:70], picture.crop((10, 10, 70, 90)), 12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture.transpose(undo[orientation]) if orientation in undo else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert_same(load_photo(tmp_path / "a.png").pixels, picture, 0)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "LA", "RGBA", "1", "I;16", "F"])
def test_every_mode_becomes_rgb(picture, mode):
    grey = picture.convert("L")
    if mode == "I;16":
        stored, expected = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), grey.convert("RGB")
    elif mode == "F":
        stored, expected = Image.fromarray(np.asarray(grey).astype(np.float32) / 255), grey.convert("RGB")
    else:
        stored = picture.convert(mode)
        expected = stored.convert("RGB")
    photo = load_photo(stored)
    assert photo.alpha is None
    assert_same(photo.pixels, expected, 1)


def test_sixteen_bit_file_keeps_its_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 200 * 160).reshape(200, 160).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.testing.assert_allclose(load_photo(tmp_path / "a.png").pixels[..., 1], ramp / 257.0, atol=1)


def test_alpha_is_kept_and_a_palette_s_transparency_too(picture, tmp_path):
    cutout = picture.convert("RGBA")
    alpha = np.full((200, 160), 255, np.uint8)
    alpha[:, :80] = 0
    cutout.putalpha(Image.fromarray(alpha))
    np.testing.assert_allclose(load_photo(cutout).alpha, alpha / 255.0)
    palette = picture.quantize(4)
    palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    found = load_photo(tmp_path / "a.png").alpha
    assert found[:100, :80].max() == 0.0
    assert found[101:].min() == 1.0


def test_opaque_alpha_is_no_cutout(picture):
    assert load_photo(picture.convert("RGBA")).alpha is None


def test_colour_profile_is_converted(picture, tmp_path):
    """A profile whose red and blue are swapped must give swapped colours."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    picture.save(tmp_path / "a.png", icc_profile=bytes(data))
    assert_same(load_photo(tmp_path / "a.png").pixels[..., ::-1], picture, 4)


def test_useless_profile_is_warned_about(picture, tmp_path):
    picture.save(tmp_path / "a.png", icc_profile=b"no profile")
    photo = load_photo(tmp_path / "a.png")
    assert_same(photo.pixels, picture, 0)
    assert "colour profile" in photo.warnings[0]


def test_arrays_and_tensors(picture):
    array = np.asarray(picture)
    floats = array.astype(np.float32) / 255.0
    for source in (array, floats, torch.from_numpy(floats).movedim(-1, 0)):
        assert_same(load_photo(source).pixels, picture, 0)
    assert load_photo(array[..., 0]).pixels.shape == (200, 160, 3)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((200, 160, 5), np.uint8), r"shape \(200, 160, 5\)"),
        (np.zeros((200, 160), np.int64), "int64"),
        (np.full((200, 160), np.nan), "finite"),
        (np.full((200, 160), 255.0), "255"),
        (np.zeros((127, 300), np.uint8), "300 x 127 px"),
    ],
)
def test_bad_arrays_are_refused(array, complaint):
    with pytest.raises(UserError, match=complaint):
        load_photo(array)


def test_unreadable_files_are_refused_with_the_reason(picture, tmp_path):
    buffer = io.BytesIO()
    picture.resize((800, 1000)).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, complaint in [
        ("cut.jpg", "damaged or truncated"),
        ("text.jpg", "not a picture"),
        ("empty.png", "not a picture"),
        ("none.png", "does not exist"),
        (".", "is a folder|not a picture|cannot be read"),
    ]:
        with pytest.raises(UserError, match=complaint):
            load_photo(tmp_path / name)


def test_decompression_bombs_are_refused(tmp_path):
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    with pytest.raises(UserError, match="too many pixels"):
        load_photo(tmp_path / "a.png")


def test_masks_of_any_kind(picture):
    photo = load_photo(picture)
    wanted = np.zeros((200, 160), np.float32)
    wanted[50:150, 40:100] = 1.0
    cutout = np.dstack([np.zeros((200, 160, 3), np.float32), wanted])
    for source in (wanted, wanted > 0, cutout, torch.from_numpy(wanted), Image.fromarray(wanted > 0)):
        np.testing.assert_array_equal(load_mask(source, photo), wanted)
    half = load_mask(Image.fromarray(wanted > 0).resize((320, 400)), photo)
    assert np.abs(half - wanted).mean() < 0.01


def test_masks_that_do_not_fit_are_refused(picture):
    photo = load_photo(picture)
    with pytest.raises(UserError, match="200 x 200 px"):
        load_mask(np.ones((200, 200), np.float32), photo)
    with pytest.raises(UserError, match="no pixel"):
        load_mask(np.zeros((200, 160), np.float32), photo)
