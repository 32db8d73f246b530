from __future__ import annotations

import itertools
import json
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import png_texts
from oneword import images
from oneword.images import (
    Frame,
    ImageError,
    bucket_sizes,
    contact_sheet,
    data_uri,
    from_uint8,
    labelled_sheet,
    read_folder,
    read_image,
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
        "table.csv (not a picture)",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: None, "at least one picture, got none"),
        (lambda f: (f / "x.md").write_text("hi"), "skipped x.md"),
        (lambda f: (f / "x.jpg").write_text("no jpeg"), "complete and readable, got x.jpg"),
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
    with pytest.raises(
        ImageError, match=r"complete and readable, got x\.jpg .*repair it or remove it"
    ):
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
    with pytest.raises(ImageError, match=r"only pictures in its folder, got none\.png"):
        read_folder(tmp_path, resolution=16)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}')
    with pytest.raises(ImageError, match=r"must be JSON such as .* got line 1"):
        read_folder(tmp_path, resolution=16)


def test_crops_tell_the_original_size_and_the_place_in_the_resized_picture(tmp_path):
    picture(80, 40).save(tmp_path / "a.png")
    picture(40, 60).save(tmp_path / "b.png")
    assert read_folder(tmp_path, resolution=20).crops.tolist() == [[40, 80, 0, 10], [60, 40, 5, 0]]
    squashed = read_folder(tmp_path, resolution=20, fit="squash")
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
    with pytest.raises(ImageError, match="masks must be in a folder"):
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
    assert to_pixels(image, Frame((20, 20))).min() == 1
    assert to_pixels(image, Frame((20, 20), "squash")).min() == -1


def test_pixels_and_pictures_round_trip_exactly():
    values = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pixels = from_uint8(values)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    assert all((np.asarray(i) == v).all() for i, v in zip(to_images(pixels), values, strict=True))


def test_settings_travel_inside_a_png(tmp_path):
    save_png(picture(), tmp_path / "x.png", {"prompt": "a photo of a S* – café", "seed": "3"})
    assert png_texts.read(tmp_path / "x.png") == {"prompt": "a photo of a S* – café", "seed": "3"}


@pytest.mark.parametrize(("side", "rows", "columns"), [(24, 3, 4), (64, 1, 1), (130, 2, 5)])
def test_the_pictures_of_a_contact_sheet_can_be_had_back(side, rows, columns):
    g = torch.Generator().manual_seed(0)
    given = [
        Image.fromarray(torch.randint(0, 255, (side, side, 3), generator=g).byte().numpy())
        for _ in range(rows * columns)
    ]
    found = images.cells_of(contact_sheet(given, columns=columns, cell_px=64), rows)
    assert [len(row) for row in found] == [columns] * rows
    for picture, cell in zip(given, itertools.chain(*found), strict=True):
        factor = cell.width // side
        assert (np.asarray(cell)[::factor, ::factor] == np.asarray(picture)).all()


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


# --- what else lies in a folder of pictures


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("receipt.pdf", b"%PDF-1.4\n%%EOF\n", "not a picture"),
        ("clip.mpg", b"\0\0\1\xba" + bytes(200), "not a picture"),
        ("features.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "not a picture"),
        ("IMG_1.jxl", b"\xff\n" + bytes(99), "a JPEG XL file, which cannot be read"),
        ("layers.psd", b"8BPS", "a Photoshop file, which cannot be read"),
        ("DSC_1.NEF", b"II*\0", "a raw file, which cannot be read"),
    ],
)
def test_files_of_other_kinds_are_left_out_by_name(name, data, reason, tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / name).write_bytes(data)
    (skipped,) = read_folder(tmp_path, resolution=16).skipped
    assert skipped.startswith(f"{name} ({reason}")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
def test_postscript_starts_no_interpreter_whatever_it_is_called(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/gs-was-run\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    for head in (b"", b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(POSTSCRIPT), 0, 0, 0, 0)):
        (tmp_path / name).write_bytes(head + b"\0\0" * bool(head) + POSTSCRIPT)
        with pytest.raises(ImageError, match=f"complete and readable, got {name}"):
            read_image(tmp_path / name)
    assert not (tmp_path / "gs-was-run").exists()


def test_what_would_wait_for_ever_is_left_out_or_refused(tmp_path):
    picture().save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "y.jpg").symlink_to("/dev/zero")
    assert read_folder(tmp_path, resolution=16).skipped == (
        "x.png (not a regular file)",
        "y.jpg (not a regular file)",
    )
    for name in ("a.txt", "a.mask.png", "metadata.jsonl"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ImageError, match="a FIFO"):
            read_folder(tmp_path, resolution=16)
        (tmp_path / name).unlink()


# --- words beside pictures


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_caption(encoding, tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a café of <cat>", encoding=encoding)
    assert read_folder(tmp_path, resolution=16).captions == ("a café of <cat>",)
    (tmp_path / "a.txt").unlink()
    line = json.dumps({"file_name": "a.png", "text": "a <cat>"})
    (tmp_path / "metadata.jsonl").write_text(line, encoding=encoding)
    assert read_folder(tmp_path, resolution=16).captions == ("a <cat>",)


def test_a_caption_in_another_encoding_is_named(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("a café".encode("latin-1"))
    with pytest.raises(ImageError, match=r"a\.txt must be text in UTF-8.*save it as UTF-8"):
        read_folder(tmp_path, resolution=16)


@pytest.mark.parametrize(
    ("file", "listed", "text", "caption"),
    [
        ("a.png", "a.png", None, None),
        ("a.png", "a.png", "  ", None),
        ("a.png", "./a.png", "a <cat>", "a <cat>"),
        ("a.png", "a.png", "a <cat>\u2028on a mat\x0b\x85.", "a <cat>\u2028on a mat\x0b\x85."),
        ("cafe\u0301.png", "caf\u00e9.png", "x", "x"),
        ("caf\u00e9.png", "cafe\u0301.png", "x", "x"),
    ],
)
def test_captions_are_found_as_others_list_them(file, listed, text, caption, tmp_path):
    picture().save(tmp_path / file)
    line = json.dumps({"file_name": listed, "text": text}, ensure_ascii=False)
    (tmp_path / "metadata.jsonl").write_text(line + "\n", encoding="utf-8")
    assert read_folder(tmp_path, resolution=16).captions == (caption,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"file_name": 3, "text": "x"}', "must be a string, got 3"),
        ('{"file_name": "a.png", "text": ["x"]}', "must be a string or null"),
        ("[" * 100_000, "nested too deeply"),
        ('"a.png"', "must be an object"),
    ],
)
def test_a_line_of_another_form_is_named(line, reason, tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(ImageError, match=rf"got line 1.*{reason}"):
        read_folder(tmp_path, resolution=16)


# --- headers of cameras


def exif(*entries):
    """EXIF as bytes, from (tag, type, count, value) each."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    return head + body + struct.pack("<I", 0) + bytes(40)


TURNED = (0x0112, 3, 1, 6)
ODD = {
    "ResolutionUnit as text": (0x0128, 2, 4, 0x41414141),
    "DateTime as a double": (0x0132, 12, 1, 38),
    "Software as a rational": (0x0131, 5, 1, 38),
    "XResolution as text": (0x011A, 2, 1, 38),
    "a further header at itself": (0x8769, 4, 1, 8),
    "a further header of text": (0x8769, 2, 4, 0x41414141),
    "a type that is none": (0x010F, 99, 1, 0),
    "longer than the file": (0x010F, 2, 0xFFFFFFFF, 8),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_a_picture_is_turned_whatever_else_its_header_holds(name, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    header = exif(*sorted([TURNED, ODD[name]]))
    image = Image.new("RGB", (64, 32), (255, 0, 0))
    if ending == "tif":
        image.save(path, tiffinfo={0x0112: 6})
    else:
        image.save(path, exif=header)
    assert read_folder(tmp_path, resolution=32).crops[0, :2].tolist() == [64, 32]


def test_an_orientation_that_is_none_turns_nothing(tmp_path):
    for orientation in ((0x0112, 3, 1, 0), (0x0112, 3, 1, 9), (0x0112, 2, 4, 0x41414141)):
        Image.new("RGB", (64, 32)).save(tmp_path / "a.jpg", exif=exif(orientation))
        assert read_image(tmp_path / "a.jpg").size == (64, 32)


# --- colours


def profile(space=b"RGB ", gamma=2.2, description=b"wide"):
    """A colour profile: Display P3's primaries, or a grey curve."""

    def fixed(x):
        return struct.pack(">i", round(x * 65536))

    def xyz(v):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, v))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = description + b"\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    text += bytes(-len(text) % 4)
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0none\0\0\0\0"),
            (b"wtpt", xyz((0.9642, 1, 0.8249)))]  # fmt: skip
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        tags += [(b"rXYZ", xyz((0.51512, 0.2412, -0.00105))),
                 (b"gXYZ", xyz((0.29198, 0.69225, 0.04189))),
                 (b"bXYZ", xyz((0.1571, 0.06657, 0.78407))), (b"rTRC", curve), (b"gTRC", curve),
                 (b"bTRC", curve)]  # fmt: skip
    place, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, value in tags:
        table += tag + struct.pack(">II", place + len(data), len(value))
        data += value
    head = struct.pack(">I", place + len(data)) + b"lcms" + struct.pack(">I", 0x02400000)
    head += b"mntr" + space + b"XYZ " + struct.pack(">6H", 2024, 1, 1, 0, 0, 0)
    head += b"acspAPPL" + bytes(4) + b"nonenone" + bytes(12)
    return head + fixed(0.9642) + fixed(1) + fixed(0.8249) + b"lcms" + bytes(44) + table + data


def test_colours_of_a_wide_profile_are_brought_to_srgb(tmp_path):
    # Display P3's green (0, 255, 0) lies outside of sRGB; a greyish one is inside
    Image.new("RGB", (32, 32), (120, 160, 120)).save(tmp_path / "x.png", icc_profile=profile())
    found = np.array(centre(read_image(tmp_path / "x.png")))
    assert np.abs(found - (107, 161, 116)).max() <= 3
    Image.new("RGBA", (32, 32), (120, 160, 120, 255)).save(
        tmp_path / "y.png", icc_profile=profile()
    )
    assert (np.array(centre(read_image(tmp_path / "y.png"))) == found).all()


def test_a_grey_profile_is_applied(tmp_path):
    image = Image.new("L", (32, 32), 128)
    image.save(tmp_path / "x.png", icc_profile=profile(b"GRAY", gamma=1.0))
    assert abs(centre(read_image(tmp_path / "x.png"))[0] - 188) <= 2  # linear 0.5 in sRGB


@pytest.mark.parametrize("data", [profile(description=b"sRGB IEC61966-2.1"), profile(b"GRAY")])
def test_a_profile_that_says_nothing_new_keeps_the_bits(data, tmp_path):
    Image.new("RGB", (32, 32), (120, 160, 120)).save(tmp_path / "x.png", icc_profile=data)
    assert centre(read_image(tmp_path / "x.png")) == (120, 160, 120)


def test_a_damaged_profile_is_told_of_and_left_out(tmp_path):
    picture().save(tmp_path / "x.png", icc_profile=b"no profile")
    with pytest.warns(UserWarning, match=r"x\.png: its colour profile cannot be read"):
        assert centre(read_image(tmp_path / "x.png")) == (200, 40, 90)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "LAB", "I;16", "I", "F"]
)
def test_a_picture_of_any_mode_becomes_rgb(mode, tmp_path):
    Image.new(mode, (20, 20)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif").mode == "RGB"


def test_a_large_picture_is_worked_on_in_strips_to_the_same_bits(monkeypatch, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    Image.fromarray(values, "RGBA").save(tmp_path / "x.png")
    Image.fromarray(values[..., 0].astype(np.uint16) * 200).save(tmp_path / "y.png")
    whole = [np.asarray(read_image(tmp_path / name)) for name in ("x.png", "y.png")]
    monkeypatch.setattr(images, "_STRIP", 300)
    parts = [np.asarray(read_image(tmp_path / name)) for name in ("x.png", "y.png")]
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("interpolation", ["lanczos", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_picture_is_resized_as_pillow_does_it(fit, interpolation, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    found = read_folder(tmp_path, resolution=16, fit=fit, interpolation=interpolation).pixels[0]
    square = Image.fromarray(noise[:, 12:57] if fit == "crop" else noise)
    how = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    expected = np.asarray(square.resize((16, 16), how), dtype=np.float32) / 127.5 - 1
    assert torch.equal(found, torch.from_numpy(expected).permute(2, 0, 1))


def test_what_is_transparent_is_said_and_a_picture_of_nothing_is_refused(tmp_path):
    solid, half, gone = (Image.new("RGBA", (32, 32), (200, 30, 30, a)) for a in (255, 255, 0))
    half.paste((0, 0, 0, 0), (0, 0, 32, 16))
    solid.save(tmp_path / "a.png")
    assert read_folder(tmp_path, resolution=16).opacity is None
    half.save(tmp_path / "b.png")
    for masks in (True, False):
        found = read_folder(tmp_path, resolution=16, masks=masks)
        assert bool((found.opacity[0] == 1).all())
        assert found.opacity[1, 0, :7].max() < 0.02 < 0.98 < found.opacity[1, 0, 9:].min()
        assert float(found.pixels[1, :, :7].min()) > 0.9
        assert (found.masks is None) == (not masks)
    gone.save(tmp_path / "c.png")
    with pytest.raises(ImageError, match=r"nothing visible .* of c\.png"):
        read_folder(tmp_path, resolution=16, masks=False)


# --- pictures that are not square


def test_buckets_have_the_area_of_the_square_and_sides_of_whole_steps():
    for resolution, step in ((512, 64), (1024, 64), (128, 32), (64, 16)):
        sizes = bucket_sizes(resolution, step)
        assert (resolution, resolution) in sizes
        assert {(w, h) for h, w in sizes} == {*sizes}
        for height, width in sizes:
            assert height % step == width % step == 0
            assert height * width <= resolution**2
            assert max(height, width) <= 4 * min(height, width)
            # one step more would be over the square
            assert min(height, width) + step > resolution**2 / max(height, width)
    with pytest.raises(ImageError, match="at least one step of the buckets' sides, got 32 px"):
        bucket_sizes(32, 64)


def test_sdxls_own_sizes_are_buckets_at_1024():
    """Of the paper's appendix I, but for those that exceed the square."""
    published = [(512, 2048), (576, 1728), (640, 1600), (704, 1408), (768, 1344), (832, 1216),
                 (896, 1152), (960, 1088), (1024, 1024)]  # fmt: skip
    sizes = bucket_sizes(1024, 64)
    for short, long in published:
        assert any(abs(s - short) <= 64 and abs(t - long) <= 64 for s, t in sizes)


def test_pictures_of_many_aspects_go_to_the_nearest_bucket(tmp_path):
    for name, size in (("a", (90, 90)), ("b", (160, 96)), ("c", (96, 170)), ("d", (100, 59))):
        picture(*size).save(tmp_path / f"{name}.png")
    found = read_folder(tmp_path, resolution=64, fit="buckets", bucket_step=16)
    assert found.sizes.tolist() == [[64, 64], [48, 80], [80, 48], [48, 80]]
    assert found.pixels.shape == (4, 3, 80, 80)
    assert found.crops.tolist() == [
        [90, 90, 0, 0],
        [96, 160, 0, 0],
        [170, 96, 2, 0],
        [59, 100, 0, 1],
    ]
    assert bool((found.pixels[1, :, 48:] == 1).all())
    expected = to_pixels(Image.open(tmp_path / "b.png"), Frame((48, 80)))
    assert torch.equal(found.pixels[1:2, :, :48], expected)
    only = read_folder(tmp_path, resolution=64)
    assert only.sizes is None
    assert torch.equal(only.pixels[0], found.pixels[0, :, :64, :64])


def test_one_bucket_for_all_needs_no_frames(tmp_path):
    for name in "ab":
        picture(100, 60).save(tmp_path / f"{name}.png")
    found = read_folder(tmp_path, resolution=64, fit="buckets", bucket_step=16)
    assert (found.sizes, found.pixels.shape) == (None, (2, 3, 48, 80))


def test_bars_are_white_and_no_mask_marks_them(tmp_path):
    Image.new("RGB", (80, 40), (0, 0, 255)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "b.png")
    for masks in (True, False):
        found = read_folder(tmp_path, resolution=20, fit="pad", masks=masks)
        assert bool((found.pixels[0, :, :5] == 1).all())
        assert bool((found.pixels[0, :2, 5:15] == -1).all())
        assert found.masks[:, 0, :, 3].tolist() == [[0.0] * 5 + [1.0] * 10 + [0.0] * 5, [1.0] * 20]
        assert found.crops.tolist() == [[40, 80, 0, 0], [40, 40, 0, 0]]
    (tmp_path / "a.png").unlink()
    assert read_folder(tmp_path, resolution=20, fit="pad").masks is None


def test_bars_of_a_cut_out_picture_are_as_transparent_as_the_rest(tmp_path):
    cut = Image.new("RGBA", (80, 40), (0, 0, 255, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 40, 40))
    cut.save(tmp_path / "a.png")
    found = read_folder(tmp_path, resolution=20, fit="pad")
    assert found.opacity[0, 0, 10].tolist() == pytest.approx([0.0] * 10 + [1.0] * 10, abs=0.15)
    assert not found.opacity[0, 0, :5].any()
    assert bool((found.masks == found.opacity).all())


def test_masks_and_transparency_follow_the_buckets(tmp_path):
    picture(100, 60).save(tmp_path / "a.png")
    half(100, 60).save(tmp_path / "a.mask.png")
    cut = Image.new("RGBA", (60, 100), (0, 0, 255, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 60, 50))
    cut.save(tmp_path / "b.png")
    found = read_folder(tmp_path, resolution=64, fit="buckets", bucket_step=16)
    assert found.masks[0, 0, 20, [5, 30, 50, 75]].tolist() == [1, 1, 0, 0]
    assert found.masks[1, 0, [5, 30, 50, 75], 20].tolist() == [0, 0, 1, 1]
    assert found.opacity[1, 0, [5, 30, 50, 75], 20].tolist() == [0, 0, 1, 1]
    assert bool((found.opacity[0] == 1).all())


def test_captions_may_lie_in_a_folder_of_their_own(tmp_path):
    folder, texts = tmp_path / "pictures", tmp_path / "texts"
    folder.mkdir()
    texts.mkdir()
    for name in "ab":
        picture().save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("beside")
    (texts / "a.txt").write_text(" apart\n")
    found = read_folder(folder, resolution=16, caption_dir=texts)
    assert found.captions == ("apart", "beside")
    with pytest.raises(ImageError, match=r"captions must be in a folder, got .*none"):
        read_folder(folder, resolution=16, caption_dir=tmp_path / "none")


# --- formats that need an extra


def test_heic_is_read_as_a_person_sees_it(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    values = np.zeros((40, 60, 3), np.uint8)
    values[:, :30] = (250, 20, 20)
    Image.fromarray(values).save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    heif.from_pillow(Image.fromarray(values)).save(tmp_path / "a.HEIC", quality=95)
    heif.from_pillow(Image.fromarray(values)).save(
        tmp_path / "b.heic", quality=95, exif=exif.tobytes()
    )
    plain, turned = (read_image(tmp_path / name) for name in ("a.HEIC", "b.heic"))
    assert plain.size == (60, 40)
    assert np.abs(np.asarray(plain).astype(int) - values).mean() < 8
    assert turned.size == (40, 60)
    assert np.asarray(turned)[:20].mean((0, 1))[0] > 200
    (tmp_path / "a.HEIC").rename(tmp_path / "c.jpg")  # as some phones call it
    assert read_image(tmp_path / "c.jpg").size == (60, 40)
    found = read_folder(tmp_path, resolution=16)
    assert found.names == ("b.heic", "c.jpg", "plain.png")


def test_heic_passes_the_same_gate(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(picture(64, 48)).save(tmp_path / "a.heic")
    monkeypatch.setattr(images, "MAX_PIXELS", 3000)
    with pytest.raises(ImageError, match=r"megapixels, got a\.heic of 64 x 48; make it smaller"):
        read_image(tmp_path / "a.heic")
    data = (tmp_path / "a.heic").read_bytes()
    monkeypatch.undo()
    (tmp_path / "a.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"must be complete and readable, got a\.heic"):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg"])
def test_heic_without_its_extra_names_it(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images._reads_heif.cache_clear()
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    message = (
        rf"Cannot read {name} because pillow-heif is not installed; pip install .oneword\[heic"
    )
    try:
        with pytest.raises(ImageError, match=message):
            read_folder(tmp_path, resolution=16)
    finally:
        images._reads_heif.cache_clear()


def test_avif_is_read(tmp_path):
    picture(60, 40).save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").size == (60, 40)
