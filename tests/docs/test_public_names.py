"""What `fedloom` offers and what its pages name are the same."""

import re

import pytest
from pages import DOCS

import fedloom

PAGES = "\n".join(page.read_text() for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"])
USED = set(re.findall(r"\bfedloom\.([A-Za-z_]+)\(", PAGES))


@pytest.mark.parametrize("name", sorted(set(fedloom.__all__) - {"__version__"}))
def test_a_public_name_is_in_a_page(name):
    assert re.search(rf"\b{name}\b", PAGES)


@pytest.mark.parametrize("name", sorted(USED))
def test_a_name_that_pages_call_is_public(name):
    assert name in fedloom.__all__
