"""Collect the pages of the docs site in build/docs, for `make docs`.

`docs/` becomes the root of the site. The pages of PAGES are added, so that the site needs no link to a hosted
repository. Links between pages are adjusted, and linked files of the repository are copied. The navigation in
zensical.toml must have each page once.
"""

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from links import ROOT, files, links

TARGET = ROOT / "build" / "docs"
CONFIG = ROOT / "zensical.toml"
PAGES = {  # outside of docs/
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "readme.md",
    "SECURITY.md": "security-policy.md",
    "clients/js/README.md": "clients/js/index.md",
    "deploy/README.md": "deploy/index.md",
    "deploy/nginx/README.md": "deploy/nginx/index.md",
}


def pages() -> dict[Path, str]:
    """Return the path in the site of each page, by its path in the repository."""
    found = {ROOT / source: target for source, target in PAGES.items()}
    for path in files(ROOT / "docs"):
        if path.suffix == ".md":
            relative = path.relative_to(ROOT / "docs").as_posix()
            found[path] = re.sub(r"(^|/)README\.md$", r"\1index.md", relative)
    return found


def place(path: Path, known: dict[Path, str]) -> str:
    """Return the path in the site of a file or folder of the repository.

    A folder without a page has the page of the nearest folder above it.
    """
    if path.is_dir():
        path /= "README.md"
        while path not in known and path.parent != ROOT:
            path = path.parent.parent / "README.md"
    if path in known:
        return known[path]
    relative = path.relative_to(ROOT).as_posix()
    return relative.removeprefix("docs/")


def adjusted(page: Path, known: dict[Path, str], copied: set[Path]) -> str:
    """Return the text of a page with the links of the site. Add the linked files to ``copied``."""
    text = page.read_text(encoding="utf-8")
    parts, end = [], 0
    for found in links(text):
        path, hash_, anchor = unquote(found["target"]).partition("#")
        if not path:
            continue
        target = (page.parent / path).resolve()
        there = place(target, known)
        if target.is_file() and target not in known:
            copied.add(target)
        relative = os.path.relpath(there, os.path.dirname(known[page]) or ".")
        parts += [text[end : found.start("target")], relative, hash_, anchor]
        end = found.end("target")
    return "".join([*parts, text[end:]])


def named(nav: Any) -> list[str]:
    """Return the paths of all pages in a navigation."""
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav
    return [path for entry in entries for path in named(entry)]


def main() -> None:
    """Replace build/docs. Exit with 1 if the navigation does not have each page once."""
    known, copied = pages(), set[Path]()
    nav = named(tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"])
    for path in sorted({*nav, *known.values()}):
        if nav.count(path) != 1 or path not in known.values():
            sys.exit(f"zensical.toml: {path} is {nav.count(path)} times in nav; each page must be there once")
    shutil.rmtree(TARGET, ignore_errors=True)
    for page, there in known.items():
        text = adjusted(page, known, copied)
        (TARGET / there).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / there).write_text(text, encoding="utf-8")
    for file in copied:
        there = place(file, known)
        (TARGET / there).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, TARGET / there)


if __name__ == "__main__":
    main()
