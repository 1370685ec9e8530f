"""Pictures of every mode become the RGB pixels they stand for; what is no picture is refused."""

import numpy as np
import pytest
from PIL import Image

from fixtures.core import pictures, samples
from fixtures.core.pictures import PictureError, built_in, list_pictures, open_picture


@pytest.mark.parametrize("mode", samples.SAMPLES)
def test_every_mode_is_read_as_its_pixels(tmp_path, mode):
    name, write = samples.SAMPLES[mode]
    known = write(tmp_path / name)
    opened = open_picture(tmp_path / name)
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), known)


def test_samples_are_what_they_say(tmp_path):
    """The files have the modes that they are to prove, or the cases above prove nothing."""
    modes = {}
    for name, (file, write) in samples.SAMPLES.items():
        write(tmp_path / file)
        with Image.open(tmp_path / file) as opened:
            modes[name] = opened.mode
            if name == "exif-rotated":
                assert opened.getexif()[0x0112] == 6
                assert opened.size == (220, 300)
            if name == "huge":
                assert opened.size == (4000, 3000)
    assert {modes[name] for name in ("rgb", "exif-rotated", "tiny", "huge")} == {"RGB"}
    assert {name: modes[name] for name in ("rgba", "l", "la", "p", "cmyk")} == {
        "rgba": "RGBA",
        "l": "L",
        "la": "LA",
        "p": "P",
        "cmyk": "CMYK",
    }
    assert modes["16-bit"].startswith("I")  # I;16, or I with older Pillows


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 257, 0x7FFF, 0xFF00, 0xFFFF]], dtype=np.uint16)
    for name in ("deep.png", "deep.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        levels = np.asarray(open_picture(tmp_path / name))[0, :, 0].tolist()
        assert levels == [0, 0, 1, 1, 127, 254, 255]


def test_whole_numbers_of_more_than_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[70000]], dtype=np.int32)).save(tmp_path / "deep.tiff")
    with pytest.raises(PictureError, match=r"deep\.tiff has pixels of more than 16 bits"):
        open_picture(tmp_path / "deep.tiff")
    Image.fromarray(np.array([[0.5]], dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(PictureError, match=r"float\.tiff has floating-point pixels"):
        open_picture(tmp_path / "float.tiff")


def test_bilevel_and_transparent_palettes_are_read(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "two.png")
    assert np.asarray(open_picture(tmp_path / "two.png"))[0].tolist() == [[0] * 3, [255] * 3]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=bytes([0, 255]))
    assert np.asarray(open_picture(tmp_path / "p.png"))[0].tolist() == [[10, 20, 30], [40, 50, 60]]


def test_a_large_picture_that_pillow_only_warns_of_is_read(tmp_path, monkeypatch):
    samples.SAMPLES["rgb"][1](tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 220 // 2 + 1)
    assert open_picture(tmp_path / "a.png").size == (300, 220)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 220 // 2 - 1)
    with pytest.raises(PictureError, match="claims more than 65998 pixels"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("fault", samples.REFUSED)
def test_what_is_no_picture_is_refused_in_one_sentence(tmp_path, fault):
    name, write, words = samples.REFUSED[fault]
    write(tmp_path / name)
    with pytest.raises(PictureError, match=words) as refused:
        open_picture(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PictureError, match="no such file"):
        open_picture(tmp_path / "none.png")


def test_a_folder_lists_readable_and_unreadable_files_by_name(tmp_path):
    samples.REFUSED["text"][1](tmp_path / "a.jpg")
    samples.SAMPLES["tiny"][1](tmp_path / "b.png")
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    assert [path.name for path in list_pictures(tmp_path)] == ["a.jpg", "b.png"]


def test_a_folder_without_a_picture_is_refused(tmp_path):
    with pytest.raises(PictureError, match="holds no files"):
        list_pictures(tmp_path)
    with pytest.raises(PictureError, match="is no folder"):
        list_pictures(tmp_path / "none")
    samples.REFUSED["text"][1](tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="no picture that can be read"):
        list_pictures(tmp_path)


def test_the_built_in_set_is_small_and_credited():
    files = built_in()
    assert len(files) == 8
    assert sum(path.stat().st_size for path in files) < 300_000
    text = (pictures.BUILT_IN / "CREDITS.md").read_text(encoding="utf-8")
    assert "resized" in text
    for path in files:
        assert max(open_picture(path).size) <= 320
        assert f"| {path.name} |" in text
