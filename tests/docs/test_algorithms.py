"""docs/algorithms.md has a row for every recipe, with the sources that its docstring names; parts it names exist."""

import re

import pytest
from pages import DOCS

import fedloom
from fedloom.recipes import RECIPES

TEXT = (DOCS / "algorithms.md").read_text()
ROWS = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \|.*$", TEXT, re.MULTILINE)}
ARXIV = re.compile(r"\d{4}\.\d{5}v\d+")


def test_every_recipe_has_a_row_and_every_row_a_recipe():
    recipes = {recipe.__name__ for recipe in RECIPES}
    assert set(ROWS) & {name for name in dir(fedloom) if name.islower()} == recipes


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_row_names_the_sources_of_the_docstring(recipe):
    assert set(ARXIV.findall(recipe.__doc__)) <= set(ARXIV.findall(ROWS[recipe.__name__]))


def test_the_recipes_are_public():
    assert {recipe.__name__ for recipe in RECIPES} <= set(fedloom.__all__)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z][A-Za-z]+)[`(]", TEXT))))
def test_a_part_that_is_named_exists(name):
    assert hasattr(fedloom, name)
