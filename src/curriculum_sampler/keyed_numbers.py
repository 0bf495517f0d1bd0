"""A number for each sample, by its key, from a CSV or JSONL file: scores, or the losses of a model."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .column import table_parts
from .errors import ArgumentError
from .file_failure import file_failure

_SUFFIXES = (".csv", ".jsonl")


def keyed_numbers(place: str) -> dict[str, float]:
    """Return key -> number.

    Args:
        place: ``FILE.csv:COLUMN`` or ``FILE.jsonl:COLUMN``; the column ``key`` names the samples. Where there is one more
            column only, its name may be left out.

    Raises:
        ArgumentError: No such file or column, a key twice, or a value that is no finite number; the line is named.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "losses.csv"
    >>> _ = path.write_text("key,loss\\n0001,0.5\\n0002,0.25\\n")
    >>> keyed_numbers(str(path))
    {'0001': 0.5, '0002': 0.25}
    """
    parts = table_parts(place, _SUFFIXES)
    if parts is None:
        raise ArgumentError(
            f"{place!r} is no table. Write it like 'losses.csv', 'losses.csv:COLUMN' or 'losses.jsonl:COLUMN'."
        )
    path, name = parts
    found: dict[str, float] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = _csv_rows(file) if path.endswith(".csv") else _jsonl_rows(file, path)
            for line, row in rows:
                where = f"{path}, line {line}"
                name = name or _only_other(row, where)
                key, number = _checked(row, name, where)
                if key in found:
                    raise ArgumentError(
                        f"{where}: the key {key!r} comes a second time. Keep one row a sample."
                    )
                found[key] = number
    except OSError as error:
        raise file_failure(Path(path), error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"{path} is no table in UTF-8 ({error}). Save it as one.") from error
    if not found:
        raise ArgumentError(f"{path} has no rows. Give it one for every sample.")
    return found


def _csv_rows(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    table = csv.DictReader(file)
    for row in table:
        yield table.line_num, row


def _jsonl_rows(file: Any, path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise ArgumentError(f"{path}, line {line} is not JSON ({error}). Correct the line.") from error
        if not isinstance(row, dict):
            raise ArgumentError(f"{path}, line {line}: {text.strip()[:60]!r} is no object. Correct the line.")
        yield line, row


def _only_other(row: Mapping[str, Any], where: str) -> str:
    others = [str(name) for name in row if name != "key"]
    if len(others) != 1:
        raise ArgumentError(
            f"{where}: which column? There are: {', '.join(others) or 'none'}. Write FILE:COLUMN."
        )
    return others[0]


def _checked(row: Mapping[str, Any], name: str, where: str) -> tuple[str, float]:
    for wanted in ("key", name):
        if row.get(wanted) is None:
            have = ", ".join(str(told) for told in row) or "none"
            raise ArgumentError(
                f"{where}: no column {wanted!r}. There are: {have}. Correct the name or the row."
            )
    value = row[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentError(
            f"{where} (key {row['key']!r}): {name!r} is {value!r}, not a finite number. Correct it or leave the row out."
        )
    return str(row["key"]), number
