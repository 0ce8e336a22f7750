import io
import json
import sys

import pytest

from fedloom.commands.told import tell


@pytest.mark.parametrize(("encoding", "line"), [("utf-8", '{"told": "ε"}\n'), ("latin-1", '{"told": "\\u03b5"}\n')])
def test_letters_stay_as_they_are_where_the_output_can_show_them(monkeypatch, encoding, line):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    tell({"told": "ε"})
    assert raw.getvalue().decode(encoding) == line
    assert json.loads(line) == {"told": "ε"}
