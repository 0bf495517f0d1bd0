"""A value for every sample: a field of its json, or a column of a table that names the samples by key."""

from __future__ import annotations

import csv
import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .checksum import checksum
from .errors import ArgumentError
from .extras import missing
from .file_failure import file_failure

Kind = Literal["number", "text"]


class Column(Protocol):
    """What ``column`` returns."""

    @property
    def name(self) -> str:
        """What the values are called."""
        ...

    @property
    def identity(self) -> str:
        """Names the values: other values, another identity."""
        ...

    @property
    def reads_samples(self) -> bool:
        """Whether the value is in the sample itself."""
        ...

    def value(self, key: str, sample: Mapping[str, Any]) -> Any:
        """Return a sample's value."""
        ...


def is_column(text: str) -> bool:
    """Say whether a text has the form ``json:FIELD``, ``FILE.csv:COLUMN`` or ``FILE.parquet:COLUMN``.

    >>> is_column("json:sleeve"), is_column("scores.csv:clutter"), is_column("scores.csv"), is_column("easy")
    (True, True, True, False)
    """
    return text.startswith("json:") or table_parts(text) is not None


def column(text: str, kind: Kind) -> Column:
    """Return the column that a text names.

    Args:
        text: ``json:FIELD`` (dots lead into objects: ``json:pose.area``); ``FILE.csv:COLUMN`` or
            ``FILE.parquet:COLUMN``, whose column ``key`` names the samples. Of a table with one more column, the name
            of that may be left out.
        kind: Whether the values are numbers or names.

    Raises:
        ArgumentError: Another form, no such file or column, or a key twice.
    """
    if text.startswith("json:"):
        return JsonField(text.removeprefix("json:"))
    parts = table_parts(text)
    if parts is None:
        raise ArgumentError(
            f"{text!r} names no column. Write it like 'json:FIELD', 'scores.csv:COLUMN' or 'scores.parquet:COLUMN'."
        )
    return read_table(*parts, kind)


@dataclass(frozen=True, slots=True)
class JsonField:
    """A field of each sample's json.

    >>> JsonField("pose.area").value("0007", {"json": {"pose": {"area": 0.3}}})
    0.3
    """

    name: str

    @property
    def identity(self) -> str:
        return f"json:{self.name}"

    @property
    def reads_samples(self) -> bool:
        return True

    def value(self, key: str, sample: Mapping[str, Any]) -> Any:
        """Return a sample's value.

        Raises:
            ArgumentError: It has no json, or that no such field.
        """
        if "json" not in sample:
            raise ArgumentError(
                f"Sample {key!r} has no json, so no field {self.name!r}. Add it, or leave it out."
            )
        found = sample["json"]
        for part in self.name.split("."):
            if not isinstance(found, Mapping) or part not in found:
                raise ArgumentError(
                    f"Sample {key!r}: its json has no field {self.name!r}. Add it, or correct the name."
                )
            found = found[part]
        return found


class TableColumn:
    """A column of a table in memory: 16 bytes a row for numbers, 12 for names, with the keys as hashes."""

    reads_samples = False

    def __init__(
        self, path: str, name: str, keys: NDArray[np.uint64], values: NDArray[Any], names: list[str] | None
    ) -> None:
        self.path = path
        self.name = name
        by_key = np.argsort(keys, kind="stable")
        self._keys, self._values, self._names = keys[by_key], values[by_key], names
        again = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if again.size:
            first, second = sorted(by_key[again[0] : again[0] + 2].tolist())
            raise ArgumentError(
                f"{path}: rows {first + 1} and {second + 1} have the same key. Keep one row for every sample."
            )

    @property
    def identity(self) -> str:
        content = hashlib.blake2b(digest_size=16)
        for part in (self._keys, self._values):
            content.update(part.tobytes())
        content.update(repr(self._names).encode())
        return f"table:{self.name} {content.hexdigest()}"

    def value(self, key: str, sample: Mapping[str, Any]) -> Any:
        """Return a sample's value.

        Raises:
            ArgumentError: The table has no row for it.
        """
        wanted = np.uint64(checksum(key.encode()))
        place = int(np.searchsorted(self._keys, wanted))
        if place == len(self._keys) or self._keys[place] != wanted:
            raise ArgumentError(
                f"{self.path} has no row for sample {key!r}. Add it, or leave the sample out."
            )
        found = self._values[place]
        return float(found) if self._names is None else self._names[found]


def read_table(path: str, name: str, kind: Kind) -> TableColumn:
    """Read one column of a CSV or Parquet file."""
    rows = _parquet_rows if path.endswith(".parquet") else _csv_rows
    keys, numbers = array("Q"), array("d")
    codes, names = array("i"), dict[str, int]()
    told = name
    for number, (told, key, value) in enumerate(rows(path, name), 1):
        keys.append(checksum(str(key).encode()))
        if kind == "text":
            codes.append(names.setdefault(str(value), len(names)))
            continue
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            raise ArgumentError(
                f"{path}, row {number} (key {str(key)!r}): {told!r} is {value!r}, not a number. Correct the row."
            ) from None
    if not keys:
        raise ArgumentError(f"{path} has no rows. Give it one for every sample.")
    values = np.array(codes, np.int32) if kind == "text" else np.array(numbers, np.float64)
    return TableColumn(path, told, np.array(keys, np.uint64), values, list(names) if kind == "text" else None)


def _csv_rows(path: str, name: str) -> Iterator[tuple[str, str, str | None]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            told = _chosen(path, name, list(table.fieldnames or ()))
            for row in table:
                yield told, row["key"], row[told]
    except OSError as error:
        raise file_failure(Path(path), error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"{path} is no CSV file in UTF-8 ({error}). Save it as one.") from error


def _parquet_rows(path: str, name: str) -> Iterator[tuple[str, Any, Any]]:
    try:
        import pyarrow  # noqa: PLC0415 -- optional: only those who have Parquet files need it
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise missing("pyarrow", "parquet") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            told = _chosen(path, name, table.schema_arrow.names)
            for batch in table.iter_batches(columns=["key", told]):
                keys, values = batch.column("key").to_pylist(), batch.column(told).to_pylist()
                for key, value in zip(keys, values, strict=True):
                    yield told, key, value
    except OSError as error:
        raise file_failure(Path(path), error) from error
    except pyarrow.ArrowException as error:
        raise ArgumentError(f"{path} is no Parquet file ({error}). Write it again.") from error


def _chosen(path: str, name: str, columns: list[str]) -> str:
    others = [told for told in columns if told != "key"]
    if "key" not in columns:
        raise ArgumentError(
            f"{path} has no column 'key', which names the samples. It has: {', '.join(columns) or 'none'}. Rename one."
        )
    if not name and len(others) == 1:
        return others[0]
    if name not in others:
        raise ArgumentError(
            f"{path} has {f'no column {name!r}' if name else 'several columns'}. Name one of: "
            f"{', '.join(others) or 'none'}, such as '{path}:{others[0] if others else 'COLUMN'}'."
        )
    return name


def table_parts(text: str, suffixes: Sequence[str] = (".csv", ".parquet")) -> tuple[str, str] | None:
    """Return file and column, which may be left out, if a text names a table of such a kind.

    >>> table_parts("scores.csv:clutter"), table_parts("scores.csv"), table_parts("easy")
    (('scores.csv', 'clutter'), ('scores.csv', ''), None)
    """
    for suffix in suffixes:
        path, found, name = text.rpartition(f"{suffix}:")
        if found:
            return f"{path}{suffix}", name
        if text.endswith(suffix):
            return text, ""
    return None
