"""Lay out a table as text or Markdown."""

from collections.abc import Collection, Sequence


def lay_out(
    rows: Sequence[Sequence[str]], markdown: bool = False, right: Collection[int] = ()
) -> list[str]:
    """Return the lines of a table whose first row holds the headings.

    rows: of strings, all of the same length. markdown: Markdown, else columns padded with spaces.
    right: indices of the columns to align right.
    """
    if markdown:
        rules = ("---:" if column in right else "---" for column in range(len(rows[0])))
        head, *others = ["| " + " | ".join(row) + " |" for row in rows]
        return [head, "| " + " | ".join(rules) + " |", *others]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(row, widths, right)).rstrip() for row in rows]


def _padded(row, widths, right):
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if column in right else cell.ljust(width)
