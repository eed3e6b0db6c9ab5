"""The command line of a tool that makes files of the project: it writes them, or with `--check` compares them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROOT = Path(__file__).parent.parent


def write_or_compare(description: str, command: str, folder: Path, make: Callable[[Path], Mapping[str, str]]) -> int:
    """What `make` makes for a folder, by file; it says which files are stale, and gives the exit code.

    `folder` is where they are unless another one is named. `command` is what renews them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is stale")
    parser.add_argument("folder", type=Path, nargs="?", default=folder, help="where they are (default: %(default)s)")
    arguments = parser.parse_args()
    made = make(arguments.folder)
    stale = {file: text for name, text in made.items() if _content(file := arguments.folder / name) != text}
    for file, text in stale.items():
        shown = file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else file
        if arguments.check:
            sys.stderr.write(f"{shown} is stale; renewed by: {command}\n")
        else:
            file.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{shown} written\n")
    return 1 if stale and arguments.check else 0


def _content(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None
