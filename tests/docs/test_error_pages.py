"""Every error has a page, every page an error, and each page's example raises it with the message that is shown."""

import sys

import pytest
from pages import DOCS, alike, blocks

from fedloom.core.errors import FedloomError

PAGES = {path.stem: path for path in sorted((DOCS / "errors").glob("*.md"))}


def tree(root: type[FedloomError]) -> list[type[FedloomError]]:
    return [root, *(found for kind in root.__subclasses__() for found in tree(kind))]


ERRORS = {kind.code: kind for kind in tree(FedloomError) if kind.__module__.startswith("fedloom.")}


def test_every_error_has_a_page_and_every_page_an_error():
    assert set(PAGES) == set(ERRORS)


@pytest.mark.parametrize("code", sorted(PAGES))
def test_a_page_begins_with_code_and_class_and_says_what_to_do(code):
    text = PAGES[code].read_text()
    assert text.startswith(f"# {code} {ERRORS[code].__name__}\n")
    assert "**What to do.**" in text


@pytest.mark.parametrize("code", sorted(set(PAGES) - {"FL000"}))
def test_the_example_raises_the_error_with_the_message_that_is_shown(code, monkeypatch):
    if code == "FL120":
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # as if it were not installed
    (block,) = blocks(PAGES[code].read_text())
    with pytest.raises(ERRORS[code]) as raised:
        exec(compile(block.code, PAGES[code].name, "exec"), {})
    assert type(raised.value) is ERRORS[code]
    assert alike(block.prints, str(raised.value)), str(raised.value)
