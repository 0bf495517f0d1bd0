"""Members become values by their extension, and nothing that is read can run code."""

from __future__ import annotations

import gc
import io
import json
import pickle
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from curriculum_sampler.decode import MAX_PIXELS, SAFE_DECODERS, SampleDecoder, decode_array
from curriculum_sampler.encode import encode
from curriculum_sampler.errors import ArgumentError, ShardError

pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
arrays = hnp.arrays(
    hnp.scalar_dtypes().filter(lambda kind: kind.kind in "biuf"), hnp.array_shapes(min_side=0)
)


def there_and_back(extension: str, value: Any) -> Any:
    return SampleDecoder().member(extension, encode(extension, value))


@given(pixels, st.sampled_from(["png", "webp", "seg.png"]))
def test_lossless_images_come_back_pixel_for_pixel(image: np.ndarray[Any, Any], extension: str) -> None:
    found = there_and_back(extension, image)
    if extension == "webp" and image.shape[2] != 3:
        return  # WebP has no grey, and may drop an alpha that is opaque
    assert np.array_equal(found, image)
    assert found.dtype == np.uint8
    assert found.flags.writeable


@given(json_values)
def test_json_comes_back(value: Any) -> None:
    assert there_and_back("json", value) == value


@given(arrays)
def test_arrays_come_back_with_shape_and_type(value: np.ndarray[Any, Any]) -> None:
    found = there_and_back("npy", value)
    assert found.dtype == value.dtype
    assert np.array_equal(found, value, equal_nan=value.dtype.kind == "f")
    (tensor,) = there_and_back("safetensors", {"x": value.astype(np.float32)}).values()
    assert np.array_equal(tensor, value.astype(np.float32), equal_nan=True)


@given(st.text(st.characters(codec="utf-8")), st.integers(-(10**9), 10**9))
def test_text_and_labels_come_back(text: str, label: int) -> None:
    assert there_and_back("caption.txt", text) == text
    assert there_and_back("cls", label) == label


def image_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_every_mode_of_image_has_stated_channels() -> None:
    base = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    for mode, kind, channels in [
        ("1", "PNG", 1),
        ("L", "PNG", 1),
        ("LA", "PNG", 2),
        ("P", "PNG", 3),
        ("RGB", "PNG", 3),
        ("RGBA", "PNG", 4),
        ("CMYK", "JPEG", 3),
    ]:
        found = SampleDecoder().member("png", image_bytes(base.convert(mode), kind))
        assert (found.shape, found.dtype) == ((4, 4, channels), np.uint8), mode
    with pytest.raises(ShardError, match="mode I;16 does not fit 8 bits"):
        SampleDecoder().member("png", image_bytes(Image.fromarray(np.zeros((2, 2), np.uint16))))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims many pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8193, 9_900, 60_000])
def test_an_image_that_claims_too_many_pixels_is_refused_before_it_is_unpacked(side: int) -> None:
    assert side * side > MAX_PIXELS
    with pytest.raises(ShardError, match=r"Member 'png' of \d+ bytes cannot be decoded: .*pixels"):
        SampleDecoder().member("png", bomb(side, side))


def test_a_format_that_starts_other_programs_is_not_tried() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(ShardError, match="ValueError: its beginning is that of no PNG"):
        SampleDecoder().member("png", postscript)


class Boom:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code ran",))


@pytest.mark.filterwarnings("ignore:Stored array in format")
@example(value=np.arange(6).reshape(2, 3), turned=True, at=0, new=b"", over=0)
@example(value=np.arange(6), turned=False, at=8, new=b"\x00", over=1)
@given(
    value=hnp.arrays(hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)),
    turned=st.booleans(),
    at=st.integers(0, 200),
    new=st.binary(max_size=2),
    over=st.integers(0, 2),
)
def test_array_files_are_read_as_numpy_reads_them_whole_and_damaged(
    value: np.ndarray[Any, Any], turned: bool, at: int, new: bytes, over: int
) -> None:
    written = encode("npy", value.T if turned else value)
    for file in (written, written[:at] + new + written[at + over :]):
        expected = told_of(lambda file: np.lib.format.read_array(io.BytesIO(file)), file)
        assert told_of(decode_array, file) == expected


def told_of(read: Callable[[bytes], np.ndarray[Any, Any]], file: bytes) -> Any:
    """Return all that is to be known of an array, or None where it is refused."""
    try:
        found = read(file)
    except Exception:
        return None
    layout = found.flags
    return (
        found.dtype,
        found.shape,
        found.tobytes(),
        layout.writeable,
        layout.c_contiguous,
        layout.f_contiguous,
    )


def test_threads_read_arrays_at_once_though_pythons_parser_may_not_be_entered_twice() -> None:
    """A collector with a callback lets another thread in while the parser of Python 3.11 builds its tree."""
    values = [np.arange(8.0), np.zeros(2, dtype=[("left", "<i4"), ("right", "<f4")])]
    files = [encode("npy", value) for value in values]

    def read(_: int) -> bool:
        return all(
            np.array_equal(decode_array(file), value) for file, value in zip(files, values, strict=True)
        )

    def called(*_: Any) -> None:
        sum(range(50))

    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(called)
    try:
        gc.set_threshold(5)
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(1000)))
    finally:
        gc.callbacks.remove(called)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("extension", ["pkl", "pickle", "pyd", "pth", "pt", "weights.pt"])
def test_pickles_are_refused_by_name_and_never_run(extension: str) -> None:
    with pytest.raises(ShardError, match=rf"Member '{extension}' is a pickle.*if you trust|If you trust"):
        SampleDecoder().member(extension, pickle.dumps(Boom()))


def test_a_pickle_inside_an_array_file_is_refused_too() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Boom()], dtype=object), allow_pickle=True)
    for data in (buffer.getvalue(), pickle.dumps(Boom())):
        with pytest.raises(ShardError, match="Member 'npy'"):
            SampleDecoder().member("npy", data)
    with pytest.raises(ArgumentError, match="stored as npy"):
        encode("npy", np.array([Boom()], dtype=object))


def test_an_array_that_claims_more_than_it_holds_is_an_error() -> None:
    whole = encode("npy", np.zeros(8))
    for data in (whole[:-1], whole.replace(b"(8,)", b"(99999999999,)")):
        with pytest.raises(ShardError, match="Member 'npy'"):
            SampleDecoder().member("npy", data)


@pytest.mark.parametrize("extension", sorted(set(SAFE_DECODERS) - {"txt"}))
def test_bytes_that_are_not_what_the_extension_says_are_an_error(extension: str) -> None:
    with pytest.raises(ShardError, match=f"Member '{extension}' of 7 bytes cannot be decoded"):
        SampleDecoder().member(extension, b"\xffrubbish"[:7])


def test_what_a_decoder_raises_is_named_with_its_type() -> None:
    with pytest.raises(ShardError, match=r"Member 'json' of 2 bytes cannot be decoded: KeyError: 'sleeve'"):
        SampleDecoder({"json": lambda data: json.loads(data)["sleeve"]}).member("json", b"{}")


def test_an_unknown_extension_is_an_error_that_says_what_to_pass() -> None:
    with pytest.raises(ShardError, match=r"Member 'a\.mp4' has no decoder. Pass decode=.'mp4': function"):
        SampleDecoder().member("a.mp4", b"")


def test_own_decoders_add_to_and_replace_the_safe_ones_the_longest_ending_first() -> None:
    decoder = SampleDecoder({"mp4": bytes, "seg.png": len, "pkl": pickle.loads, "cls": str})
    assert decoder.member("mp4", b"12") == b"12"
    assert decoder.member("left.seg.png", b"123") == 3
    assert decoder.member("pkl", pickle.dumps([1])) == [1]
    assert decoder.member("json", json.dumps(1).encode()) == 1
    assert SampleDecoder().member("cls", b"4") == 4


@pytest.mark.parametrize("decoders", [len, {"png": "pil"}, {3: len}, ["png"], "png"])
def test_decoders_are_functions_by_extension_or_an_error_shows_how(decoders: Any) -> None:
    with pytest.raises(ArgumentError, match=r"must map extensions.*decode=\{'png': function\}") as caught:
        SampleDecoder(decoders)
    assert repr(decoders) in str(caught.value)


@pytest.mark.parametrize(
    ("extension", "value", "message"),
    [
        ("png", np.zeros((2, 2, 3), np.float32), "an image holds uint8 values, not float32"),
        ("png", np.zeros((2, 2, 7), np.uint8), "cannot be stored as png"),
        ("jpg", np.zeros((2, 2, 4), np.uint8), "cannot be stored as jpg"),
        ("json", float("nan"), "cannot be stored as json"),
        ("txt", 5, "a int cannot be stored under this extension"),
        ("cls", 1.5, "a float cannot be stored under this extension"),
        ("safetensors", [1], "a list cannot be stored as safetensors"),
        ("pkl", {"a": 1}, "Give the encoded bytes"),
    ],
)
def test_a_value_that_does_not_suit_its_extension_is_an_error(
    extension: str, value: Any, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        encode(extension, value)


def test_bytes_and_pillow_images_are_stored_as_they_are() -> None:
    assert encode("anything", b"12") == b"12"
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    assert there_and_back("png", image).tolist() == [[[1, 2, 3]] * 3] * 2
