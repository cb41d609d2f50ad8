"""Links of the documentation lead somewhere, and what it says about make targets is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "bench/README.md", ROOT / "tests/envoy/README.md"])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings."""
    found = set()
    for line in page.read_text().splitlines():
        if heading := re.fullmatch(r"#+ (.+)", line):
            text = re.sub(r"[^\w\- ]", "", heading[1].lower())
            found.add(text.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_target_that_is_named_exists() -> None:
    rules = re.findall(r"^([a-z0-9 -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"^ *make ([a-z0-9 -]+?)(?: [A-Z_]+=.*)?(?: +#.*)?$", text, re.MULTILINE)
        named += re.findall(r"`make ([a-z0-9 -]+)(?: [A-Z_]+=[^`]*)?`", text)
        for words in named:
            assert set(words.split()) <= targets, f"{page.name}: make {words}"
