"""From the bytes of a member to a value, chosen by its extension. Nothing here can run code.

An extension that is not known is an error, and so is one whose format can run code (pickle): silence
would hand a model the wrong thing. ``decode={"ext": function}`` says what to do with it.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, BadSampleError, ShardError
from .extras import missing

try:
    import safetensors.numpy
    from PIL import Image, UnidentifiedImageError
except ImportError as error:
    raise missing("pillow and safetensors", "data") from error

Decoder = Callable[[bytes], Any]

# An image that claims more is refused before its pixels are unpacked.
MAX_PIXELS = 1 << 26

# Pillow would otherwise also try formats that start other programs.
_IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
_COLOURS = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}
# The header that numpy writes before an array of a simple type and no empty axis. numpy reads headers through
# Python's own parser, which takes several times longer than all the rest.
_PLAIN_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<>|=][a-zA-Z][1-9]\d*(?:\[\w+\])?)', 'fortran_order': (True|False), "
    rb"'shape': \((|[1-9]\d*,|[1-9]\d*(?:, [1-9]\d*)+)\), \} *\n",
    re.DOTALL,
)
# The parser of Python 3.11 and 3.12 now and then fails with SystemError when two threads are in it at once.
_PARSER_TRIES = 20
_UNSAFE = ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill")


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Return pixels as ``uint8[height, width, channels]``, writable; one channel for grey, three or four for colour.

    Palettes become colours. Orientation tags are not applied. Animations give their first frame.

    Raises:
        ValueError: No image of a known format, more than ``MAX_PIXELS`` pixels, or more than 8 bits a channel.
    """
    try:
        opened = Image.open(io.BytesIO(data), formats=_IMAGE_FORMATS)
    except UnidentifiedImageError:  # Pillow's message names a place in memory
        raise ValueError(f"its beginning is that of no {', '.join(_IMAGE_FORMATS)} file") from None
    with opened as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} that are allowed")
        mode = _COLOURS.get(image.mode, image.mode)
        if image.mode == "P" and "transparency" in image.info:
            mode = "RGBA"
        if mode not in ("L", "LA", "RGB", "RGBA"):
            raise ValueError(f"mode {image.mode} does not fit 8 bits a channel; store it as npy")
        # A copy, because tensors want memory that they may write to.
        pixels = np.array(image.convert(mode) if mode != image.mode else image, dtype=np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def decode_array(data: bytes) -> NDArray[Any]:
    """Return the array of an ``npy`` file, writable; one that holds Python objects (a pickle) is refused.

    Raises:
        ValueError: No ``npy`` file, a cut one, or one with objects.
    """
    header = _PLAIN_HEADER.match(data)
    if header and header.end() == 10 + int.from_bytes(header[1], "little"):
        shape = [int(length) for length in re.findall(rb"\d+", header[4])]
        flat = np.frombuffer(data, header[2].decode(), math.prod(shape), header.end())
        return flat.copy().reshape(shape, order="F" if header[3] == b"True" else "C")
    for _ in range(_PARSER_TRIES):
        with suppress(SystemError):
            array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            return array
    raise ValueError(f"Python's parser failed {_PARSER_TRIES} times at its header")


def decode_tensors(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``safetensors`` file by name."""
    found: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
    return found


def decode_text(data: bytes) -> str:
    """Return UTF-8 text."""
    return data.decode()


SAFE_DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {
        **dict.fromkeys(
            ("png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "pbm", "tif", "tiff"), decode_image
        ),
        "json": json.loads,
        "txt": decode_text,
        "cls": int,
        "npy": decode_array,
        "safetensors": decode_tensors,
    }
)


class SampleDecoder:
    """Decodes the members of a sample.

    Args:
        decoders: Extension -> function of the member's bytes, beside or in place of the safe ones.
            Of an extension with dots (``seg.png``) the longest known ending decides.

    Raises:
        ArgumentError: ``decoders`` is no such mapping.

    >>> SampleDecoder().member("caption.txt", b"red shirt"), SampleDecoder({"mp4": bytes}).member("mp4", b"..")
    ('red shirt', b'..')
    >>> SampleDecoder().member("pkl", b"")
    Traceback (most recent call last):
    curriculum_sampler.errors.ShardError: Member 'pkl' is a pickle, which can run any code, so it is not decoded. ...
    """

    def __init__(self, decoders: Mapping[str, Decoder] = MappingProxyType({})) -> None:
        fits = isinstance(decoders, Mapping) and all(
            isinstance(ending, str) and callable(decoder) for ending, decoder in decoders.items()
        )
        if not fits:
            raise ArgumentError(
                f"decode={decoders!r} must map extensions to functions of a member's bytes, such as "
                "decode={'png': function}; None leaves every member as bytes."
            )
        self._decoders = {**SAFE_DECODERS, **decoders}

    def member(self, extension: str, data: bytes) -> Any:
        """Return the decoded value of one member.

        Raises:
            ShardError: No decoder for the extension.
            BadSampleError: The bytes are not what it says.
        """
        ending = extension
        while ending not in self._decoders and "." in ending:
            ending = ending.partition(".")[2]
        decoder = self._decoders.get(ending)
        if decoder is None:
            raise ShardError(_refusal(extension, ending))
        try:
            return decoder(data)
        except Exception as error:
            raise BadSampleError(
                f"Member {extension!r} of {len(data)} bytes cannot be decoded: {type(error).__name__}: {error}"
            ) from error


def _refusal(extension: str, ending: str) -> str:
    if ending in _UNSAFE:
        return (
            f"Member {extension!r} is a pickle, which can run any code, so it is not decoded. If you trust the "
            f"data, pass decode={{{ending!r}: pickle.loads}}; better, store it as npy or safetensors."
        )
    return (
        f"Member {extension!r} has no decoder. Pass decode={{{ending!r}: function}}, where bytes as the "
        f"function leaves it as it is."
    )
