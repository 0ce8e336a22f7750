"""Docstrings say what signatures say: everything public has one, and what it lists under Args exists."""

import ast
import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src" / "fedloom").rglob("*.py"))


def documented(node: ast.AST) -> list[str]:
    """Return the names that stand under Args: in a docstring."""
    text = ast.get_docstring(node) or ""  # type: ignore[arg-type]
    found = re.search(r"^Args:\n((?:[ ]{4,}.*\n?|\n)+)", text, re.MULTILINE)
    if not found:
        return []
    lines = [line for line in found[1].splitlines() if re.match(r"^ {4}\w", line)]
    heads = [head for line in lines for head in re.findall(r"(?:^ {4}|; )(\w+(?:, \w+)*):", line)]
    return [name for head in heads for name in head.split(", ")]


def parameters(node: ast.AST) -> set[str]:
    if isinstance(node, ast.ClassDef):
        fields = {s.target.id for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)}
        inits = [s for s in node.body if isinstance(s, ast.FunctionDef) and s.name == "__init__"]
        return fields | {name for init in inits for name in parameters(init)}
    assert isinstance(node, ast.FunctionDef)
    each = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {argument.arg for argument in each}


def public(tree: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            found += [node, *(public(node) if isinstance(node, ast.ClassDef) else [])]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_everything_public_is_documented_as_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for node in public(tree):
        assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
        unknown = [name for name in documented(node) if name not in parameters(node)]
        assert not unknown, f"{path.name}: {node.name} documents {unknown}, which it does not take"
