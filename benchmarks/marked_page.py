"""Tables of results in the documentation: each benchmark's stand between two marker lines of its own."""

from pathlib import Path


def replace_between_markers(page: Path, benchmark: str, tables: str) -> None:
    """Put the tables between the page's two marker lines for this benchmark, in place of what stood there."""
    first, last = f"<!-- {benchmark}: begin -->", f"<!-- {benchmark}: end -->"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{page}: got no {first} ... {last}, between which the tables go. Add both lines.")
    page.write_text(f"{before}{first}\n\n{tables}\n\n{last}{after}", encoding="utf-8")
