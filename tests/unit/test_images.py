from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from oneword.images import (
    ImageError,
    contact_sheet,
    data_uri,
    from_uint8,
    labelled_sheet,
    read_folder,
    read_image,
    read_metadata,
    save_png,
    to_images,
    to_pixels,
)


def picture(width=40, height=30, colour=(200, 40, 90)):
    return Image.new("RGB", (width, height), colour)


def centre(image):
    return image.getpixel((image.width // 2, image.height // 2))


def test_a_folder_is_read_in_the_order_of_names_with_captions_and_skips(tmp_path):
    picture(colour=(255, 0, 0)).save(tmp_path / "b.png")
    picture(colour=(0, 0, 255)).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "a.txt").write_text(" a photo of S* \n")
    (tmp_path / "notes.txt").write_text("no caption")
    (tmp_path / "table.csv").write_text("1,2")
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden.png").write_text("")
    found = read_folder(tmp_path, resolution=16)
    assert found.names == ("a.jpg", "b.png")
    assert found.captions == ("a photo of S*", None)
    assert found.pixels.shape == (2, 3, 16, 16)
    assert found.pixels[1, :, 8, 8].tolist() == [1, -1, -1]
    assert found.skipped == (
        "notes.txt (a text file without its picture)",
        "sub (a folder)",
        "table.csv (no picture)",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "at least one picture, got none"),
        (lambda f: (f / "x.md").write_text("hi"), "skipped x.md"),
        (lambda f: (f / "x.jpg").write_text("no jpeg"), "whole and readable, got x.jpg"),
        (lambda f: picture(1, 1).save(f / "x.png"), "at least 16 px wide and high, got x.png"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ImageError, match=message):
        read_folder(tmp_path, resolution=16)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(ImageError, match="nothing there"):
        read_folder(tmp_path / "none", resolution=16)
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="a file"):
        read_folder(tmp_path / "file", resolution=16)


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"whole and readable, got x\.jpg .*mend it or take it"):
        read_image(path)


def bomb(path, side):
    """A PNG header that promises side x side pixels, over almost no data."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def test_captions_may_be_listed_as_the_imagefolder_layout_lists_them(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture().save(tmp_path / name)
    (tmp_path / "b.txt").write_text("beside")
    lines = [{"file_name": n, "text": f" of {n} "} for n in ("a.png", "b.png")]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(json.dumps(line) for line in lines))
    assert read_folder(tmp_path, resolution=16).captions == ("of a.png", "beside", None)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "none.png", "text": "x"}')
    with pytest.raises(ImageError, match=r"only pictures of its folder, got none\.png"):
        read_folder(tmp_path, resolution=16)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    with pytest.raises(ImageError, match=r"must be JSON such as .* got line 1"):
        read_folder(tmp_path, resolution=16)


def test_crops_tell_the_original_size_and_the_place_in_the_resized_picture(tmp_path):
    picture(80, 40).save(tmp_path / "a.png")
    picture(40, 60).save(tmp_path / "b.png")
    assert read_folder(tmp_path, resolution=20).crops.tolist() == [[40, 80, 0, 10], [60, 40, 5, 0]]
    squashed = read_folder(tmp_path, resolution=20, center_crop=False)
    assert squashed.crops.tolist() == [[40, 80, 0, 0], [60, 40, 0, 0]]


def half(width=40, height=30):
    """Left half marked."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 2, height))
    return mask


def test_masks_come_from_a_folder_from_beside_or_from_transparency(tmp_path):
    folder, masks = tmp_path / "pictures", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    for name in ("a.jpg", "b.jpg", "d.jpg"):
        picture().save(folder / name)
    clear = picture().convert("RGBA")
    clear.putalpha(half())
    clear.save(folder / "c.png")
    half().save(folder / "a.mask.png")
    half().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(masks / "b.png")
    half().save(folder / "x.mask.png")
    found = read_folder(folder, resolution=16, mask_dir=masks)
    assert found.names == ("a.jpg", "b.jpg", "c.png", "d.jpg")
    assert found.skipped == ("x.mask.png (a mask without its picture)",)
    left, right = found.masks[:, 0, 8, 2].tolist(), found.masks[:, 0, 8, 13].tolist()
    assert left == [1, 0, 1, 1]
    assert right == [0, 1, 0, 1]
    assert read_folder(folder, resolution=16, masks=False).masks is None


def test_masks_that_cannot_be_used_are_refused(tmp_path):
    picture().save(tmp_path / "a.jpg")
    assert read_folder(tmp_path, resolution=16).masks is None
    half(30, 30).save(tmp_path / "a.mask.png")
    with pytest.raises(ImageError, match=r"as large as its picture, got a\.mask\.png of 30 x 30"):
        read_folder(tmp_path, resolution=16)
    Image.new("L", (40, 30)).save(tmp_path / "a.mask.png")
    with pytest.raises(ImageError, match=r"nothing marked inside the square of a\.jpg"):
        read_folder(tmp_path, resolution=16)
    with pytest.raises(ImageError, match="masks must lie in a folder"):
        read_folder(tmp_path, resolution=16, mask_dir=tmp_path / "none")


@pytest.mark.parametrize("side", [12_000, 40_000])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    bomb(tmp_path / "x.png", side)
    with pytest.raises(ImageError, match="at most 100 megapixels"):
        read_image(tmp_path / "x.png")


def test_cmyk(tmp_path):
    picture().convert("CMYK").save(tmp_path / "x.jpg", quality=100, subsampling=0)
    assert np.abs(np.subtract(centre(read_image(tmp_path / "x.jpg")), (200, 40, 90))).max() <= 4


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.full((20, 20), 32_768, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert centre(read_image(tmp_path / "x.png")) == (128, 128, 128)


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [picture(colour=c) for c in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert centre(read_image(tmp_path / "x.gif")) == (255, 0, 0)


def test_exif_orientation_is_obeyed(tmp_path):
    image = picture()
    image.putpixel((0, 0), (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    image.save(tmp_path / "x.png", exif=exif)
    upright = read_image(tmp_path / "x.png")
    assert upright.size == (30, 40)
    assert upright.getpixel((29, 0)) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path, mode):
    image = Image.new("RGBA", (20, 20), (10, 20, 30, 0))
    if mode == "LA":
        image = image.convert("LA")
    elif mode == "P":
        image = Image.new("P", (20, 20), 0)
        image.info["transparency"] = 0
    image.save(tmp_path / "x.png", **({"transparency": 0} if mode == "P" else {}))
    assert centre(read_image(tmp_path / "x.png")) == (255, 255, 255)


def test_half_transparent_colours_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (20, 20), (0, 0, 0, 128)).save(tmp_path / "x.png")
    assert centre(read_image(tmp_path / "x.png")) == (127, 127, 127)


def test_cropping_keeps_the_middle_and_squashing_keeps_all():
    image = Image.new("RGB", (60, 20))
    image.paste((255, 255, 255), (20, 0, 40, 20))
    assert to_pixels(image, 20).min() == 1
    assert to_pixels(image, 20, center_crop=False).min() == -1


def test_pixels_and_pictures_round_trip_exactly():
    values = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pixels = from_uint8(values)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert all((np.asarray(i) == v).all() for i, v in zip(to_images(pixels), values, strict=True))


def test_settings_travel_inside_a_png(tmp_path):
    save_png(picture(), tmp_path / "x.png", {"prompt": "a photo of a S* – café", "seed": "3"})
    assert read_metadata(tmp_path / "x.png") == {"prompt": "a photo of a S* – café", "seed": "3"}


def test_a_contact_sheet_enlarges_small_pictures_and_keeps_their_order():
    reds = torch.stack([torch.full((3, 16, 16), v) for v in (-1.0, 0.0, 1.0, -0.5)])
    sheet = contact_sheet(reds, columns=2, row_labels=["one", "two"], cell_px=64)
    assert sheet.size == (4 + 2 * 68, 4 + 2 * (68 + 22))
    assert [sheet.getpixel(xy)[0] for xy in ((30, 50), (110, 50), (30, 140), (110, 140))] == [
        0, 128, 255, 64,
    ]  # fmt: skip


def test_a_long_group_goes_on_in_further_rows_below_one_label():
    few, many = (torch.full((n, 3, 128, 128), v) for n, v in ((1, -1.0), (5, 0.0)))
    sheet = labelled_sheet({"few": few, "many": many}, most_columns=2)
    assert sheet.size == (4 + 2 * 132, 4 + 4 * 132 + 2 * 22)
    tops = (26, 180, 312, 444)  # no room for a label above the second and third row of five
    corners = [[sheet.getpixel((x, y))[0] for x in (4, 136)] for y in tops]
    assert corners == [[0, 255], [128, 128], [128, 128], [128, 255]]


def test_a_data_uri_is_a_png():
    assert data_uri(picture()).startswith("data:image/png;base64,iVBOR")
