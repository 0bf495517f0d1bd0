"""From values to the bytes of a member, chosen by its extension: the inverse of ``decode``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ArgumentError
from .extras import missing

try:
    import safetensors.numpy
    from PIL import Image
except ImportError as error:
    raise missing("pillow and safetensors", "data") from error

_IMAGE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {"quality": 95}),
    "jpeg": ("JPEG", {"quality": 95}),
    "webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "pgm": ("PPM", {}),
}


def encode(extension: str, value: Any) -> bytes:
    """Return the bytes of a member.

    Bytes are stored as they are, under any extension. Otherwise the last part of the extension
    decides: images take a ``uint8`` array (height, width or height, width, channels) or a Pillow
    image, ``json`` anything that JSON holds, ``txt`` text, ``cls`` a whole number, ``npy`` an array,
    ``safetensors`` a dict of arrays.

    Raises:
        ArgumentError: The value does not suit the extension, or the extension is not known.

    >>> encode("json", {"sleeve": "long"}), encode("cls", 3), encode("seg.txt", "left")
    (b'{"sleeve": "long"}', b'3', b'left')
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    kind = extension.rpartition(".")[2]
    try:
        if kind in _IMAGE_FORMATS:
            return _image(kind, value)
        if kind == "json":
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        if kind == "txt" and isinstance(value, str):
            return value.encode()
        if kind == "cls" and isinstance(value, int | np.integer):
            return str(int(value)).encode()
        if kind == "npy":
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
            return buffer.getvalue()
        if kind == "safetensors":
            return bytes(
                safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in value.items()})
            )
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:
        raise ArgumentError(
            f"Member {extension!r}: a {type(value).__name__} cannot be stored as {kind} ({error}). "
            "Convert it, or give the encoded bytes."
        ) from error
    raise ArgumentError(
        f"Member {extension!r}: a {type(value).__name__} cannot be stored under this extension. "
        "Give the encoded bytes, or use png, jpg, webp, json, txt, cls, npy or safetensors."
    )


def encode_members(where: str, key: str, sample: Mapping[str, Any]) -> dict[str, bytes]:
    """Return extension -> bytes of a sample's members, leaving out what begins with two underscores.

    Raises:
        ArgumentError: A bad extension or value, or no members; the message begins with ``where``.

    >>> encode_members("my data", "0007", {"__key__": "0007", "cls": 3, "txt": b"red"})
    {'cls': b'3', 'txt': b'red'}
    """
    members = {}
    for extension, value in sample.items():
        if isinstance(extension, str) and extension.startswith("__"):
            continue
        _check_extension(where, key, extension)
        try:
            members[extension] = encode(extension, value)
        except ArgumentError as error:
            raise ArgumentError(f"{where}, sample {key!r}: {error}") from error
    if not members:
        raise ArgumentError(f"{where}: sample {key!r} has no members. Give it some content.")
    return members


def _check_extension(where: str, key: str, extension: Any) -> None:
    fits = isinstance(extension, str) and extension.isprintable() and extension == extension.lower()
    if not fits or "/" in extension or not all(extension.split(".")):
        raise ArgumentError(
            f"{where}, sample {key!r}: extension {extension!r} must be lower-case text without '/' and "
            "without empty parts, such as 'png' or 'mask.png'. Rename it."
        )


def _image(kind: str, value: Any) -> bytes:
    image = value if isinstance(value, Image.Image) else _from_array(np.asarray(value))
    name, options = _IMAGE_FORMATS[kind]
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if array.dtype != np.uint8:
        raise ValueError(f"an image holds uint8 values, not {array.dtype}")
    return Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
