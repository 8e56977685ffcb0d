"""Check the links and paths in all Markdown pages, and `docs/….md` in code.

Run by `make lint` and `make docs`.

Only links inside the repository are checked, so no network is needed. A link to a Markdown page may name an
anchor: the heading as GitHub writes it (lower case, no punctuation, hyphens for spaces).
"""

import os
import re
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {"node_modules", "build", "dist", "__pycache__"}  # and all names that begin with a dot, except .ci
CODE_SUFFIXES = {".py", ".toml", ".yaml", ".service", ".env", ".ts", ".js", ".html"}
CODE_NAMES = {"Makefile", "Dockerfile"}

LINK = re.compile(r"(?<!\\)\]\((?P<target>[^()\s]+(?:\([^()\s]*\))?)(?:\s+\"[^\"]*\")?\)")
_FENCE = re.compile(r"(?ms)^ *(`{3,}|~{3,})[^\n]*\n.*?^ *\1`*~*[ \t]*$")
_CODE = re.compile(r"(?s)(?<!`)(`+)(?!`)(?:.*?[^`])\1(?!`)")
_HEADING = re.compile(r"(?m)^#{1,6}[ \t]+(?P<text>.*?)[ \t#]*$")
_PATH_IN_PAGE = re.compile(r"`((?:\.ci|benchmarks|clients|deploy|docs|gateway|tests)/[\w./-]*\w)/?`")
_PAGE_IN_CODE = re.compile(r"(?<![\w/])docs/[\w./-]+\.md\b")


def files(root: Path = ROOT) -> Iterator[Path]:
    """Yield the files of the repository, without installed packages, builds and caches."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(n for n in folders if n not in SKIPPED and not (n.startswith(".") and n != ".ci"))
        yield from (Path(folder, name) for name in sorted(names))


def without_code(text: str) -> str:
    """Return the text with code blocks and code spans blanked; each character keeps its place."""
    for code in (_FENCE, _CODE):
        text = code.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    return text


def links(text: str) -> Iterator[re.Match[str]]:
    """Yield each relative link or image, and each anchor of the same page. The group `target` is the URL."""
    for found in LINK.finditer(without_code(text)):
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:|/", found["target"]):
            yield found


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    found: set[str] = set()
    blocks = _FENCE.sub("", text)
    for heading in _HEADING.finditer(blocks):
        plain = re.sub(r"\]\([^)]*\)|[`*]", "", heading["text"]).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (unique := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(unique)
    return found


def broken(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, link and reason for each broken link of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    for found in links(text):
        path, _, anchor = unquote(found["target"]).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            reason = "no such file"
        elif not target.is_relative_to(ROOT):
            reason = "outside the repository"
        elif target.is_dir() and anchor:
            reason = "an anchor of a folder"
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            reason = "no such heading"
        else:
            continue
        yield text.count("\n", 0, found.start()) + 1, found["target"], reason


def gone(page: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, path and reason for each path in code spans of a page that does not exist."""
    text = page.read_text(encoding="utf-8")
    for found in _PATH_IN_PAGE.finditer(text):
        if not (ROOT / found[1]).exists():
            yield text.count("\n", 0, found.start()) + 1, found[1], "no such path"


def missing(code: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, path and reason for each page in code that does not exist."""
    text = code.read_text(encoding="utf-8", errors="replace")
    for found in _PAGE_IN_CODE.finditer(text):
        if not (ROOT / found[0]).exists():
            yield text.count("\n", 0, found.start()) + 1, found[0], "no such file"


def main() -> int:
    """Print each broken link. Returns the exit code: 1 if there is one."""
    count = pages = 0
    for path in files():
        if path.suffix == ".md":
            problems, pages = chain(broken(path), gone(path)), pages + 1
        elif path.suffix in CODE_SUFFIXES or path.name in CODE_NAMES:
            problems = missing(path)
        else:
            continue
        for line, target, reason in problems:
            print(f"{path.relative_to(ROOT)}:{line}: broken link {target}: {reason}")
            count += 1
    print(f"{count} broken links in {pages} pages" if count else f"All links of {pages} pages work")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
