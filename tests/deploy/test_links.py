"""The scripts behind `make docs`: which links are broken, and how links are adjusted for the site."""

import sys
from pathlib import Path

import pytest

from tests.support.gateway_process import ROOT

sys.path.append(str(ROOT / ".ci"))

import links
import site_pages

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (links, site_pages):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "docs" / "examples").mkdir(parents=True)
    (tmp_path / "docs" / "other.md").write_text(
        "# Title\n\n## `GET /events/{id}` & more\n\n## Twice\n\n## Twice\n"
    )
    (tmp_path / "docs" / "examples" / "README.md").write_text("# Examples\n")
    (tmp_path / "docs" / "examples" / "watch.sh").write_text("true\n")
    (tmp_path / "README.md").write_text("# Readme\n")
    return tmp_path


@pytest.mark.parametrize(
    "link",
    [
        "other.md",
        "other.md#title",
        "other.md#get-eventsid--more",
        "other.md#twice-1",
        "#here",
        "examples",
        "examples/watch.sh",
        "../README.md",
        "https://example.com/no-such",
    ],
)
def test_links_that_work(folder: Path, link: str) -> None:
    page = folder / "docs" / "page.md"
    page.write_text(f"# Here\n\n[text]({link})\n")
    assert not list(links.broken(page))


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("no-such.md", "no such file"),
        ("other.md#no-such", "no such heading"),
        ("#no-such", "no such heading"),
        ("examples/#no-such", "an anchor of a folder"),
        ("../..", "outside the repository"),
    ],
)
def test_broken_links(folder: Path, link: str, reason: str) -> None:
    page = folder / "docs" / "page.md"
    page.write_text(f"# Here\n\n![text]({link})\n")
    assert list(links.broken(page)) == [(3, link, reason)]


def test_code_has_no_links(folder: Path) -> None:
    page = folder / "docs" / "page.md"
    page.write_text("# Here\n\n```\n[text](no-such.md)\n```\n\n`[text](no-such.md)`\n")
    assert not list(links.broken(page))


def test_pages_that_code_names(folder: Path) -> None:
    code = folder / "code.py"
    there, gone = (f"docs/{name}.md" for name in ("other", "no-such"))
    code.write_text(f'"""See {there},\n{gone}."""\n')
    assert list(links.missing(code)) == [(2, gone, "no such file")]


def test_paths_that_pages_name(folder: Path) -> None:
    page = folder / "docs" / "page.md"
    page.write_text("`docs/examples/`, `docs/examples/watch.sh`, `docs/*.md` and\n`docs/no-such.sh`\n")
    assert list(links.gone(page)) == [(2, "docs/no-such.sh", "no such path")]


def test_links_of_the_site(folder: Path) -> None:
    page = folder / "docs" / "examples" / "README.md"
    page.write_text("[a](../other.md#title) [b](watch.sh) [c](../../README.md) [d](.) `[e](../other.md)`\n")
    known = {
        page: "examples/index.md",
        folder / "docs" / "other.md": "other.md",
        folder / "README.md": "readme.md",
    }
    copied: set[Path] = set()
    text = site_pages.adjusted(page, known, copied)
    assert text == "[a](../other.md#title) [b](watch.sh) [c](../readme.md) [d](index.md) `[e](../other.md)`\n"
    assert copied == {folder / "docs" / "examples" / "watch.sh"}
