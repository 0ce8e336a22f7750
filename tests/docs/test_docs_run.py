"""The code in docs runs, page by page in one namespace, and prints what the text block behind it shows."""

import pytest
from pages import DOCS, alike, blocks

PAGES = [path for path in sorted(DOCS.glob("*.md")) if blocks(path.read_text())]


@pytest.mark.parametrize("path", [*PAGES, DOCS / "errors" / "FL000.md"], ids=lambda path: path.stem)
def test_code_of_a_page_runs(path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": path.stem}
    for block in blocks(path.read_text()):
        exec(compile("\n" * (block.line - 1) + block.code, str(path), "exec"), names)
        printed = capsys.readouterr().out
        assert alike(block.prints, printed), f"{path.name}, line {block.line}: printed\n{printed}"
