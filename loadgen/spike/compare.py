"""`crowdspike spike compare A B`: two run folders, or two folders of runs, and what changed between them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loadgen.spike import folder
from loadgen.spike.compare_page import page
from loadgen.spike.comparison import Comparison, Side, compare, row
from loadgen.spike.folder import BadFolder, read_run

BAD_INPUT, NOT_WRITTEN = 2, 74


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name, words in (("a", "a run's folder, or a folder of several runs"), ("b", "the one to set beside it")):
        parser.add_argument(name, type=Path, metavar=name.upper(), help=words)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with both in each plot")
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def command(args: argparse.Namespace) -> int:
    """The exit code: 2 for folders that are none, 74 for a page that can't be written."""
    try:
        comparison = compare(read("A", args.a), read("B", args.b))
    except BadFolder as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    print(comparison.to_json() if args.json else text(comparison))
    if args.html:
        try:
            folder.write(args.html, page(comparison))
        except OSError as error:
            print(f"{args.html} can't be written: {error.strerror or error}.", file=sys.stderr)
            return NOT_WRITTEN
    return 0


def read(name: str, path: Path) -> Side:
    """A run's folder, or one that holds several. Raises BadFolder."""
    if not path.is_dir():
        raise BadFolder(f"{path} is no folder.")
    inside = [one for one in sorted(path.iterdir()) if (one / folder.SUMMARY).is_file()]
    if inside and not any((path / one).exists() for one in folder.FILES):
        return Side(name, str(path), tuple(map(read_run, inside)))
    return Side(name, str(path), (read_run(path),))


def text(comparison: Comparison) -> str:
    """For a terminal."""
    rows = [("", "A", "B", "B − A", "B / A", "99 % interval of B − A", "")]
    rows += [row(change) for change in comparison.changes if (change.a, change.b) != (None, None)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            cell.ljust(width) if i in (0, len(one) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(one, widths, strict=True))
        ).rstrip()
        for one in rows
    ]
    heads = [f"{side.name}  {side.text}" for side in (comparison.a, comparison.b)]
    doubts = ["", "Not like with like:", *(f"  {one}" for one in comparison.warnings)] if comparison.warnings else []
    return "\n".join([*heads, *doubts, "", *table, "", comparison.method, ""])
