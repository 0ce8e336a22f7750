"""The pages of docs, and the code in them."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A python block: its code, the line that it begins on, and the text block right behind it ("" if none)."""

    code: str
    line: int
    prints: str


def blocks(text: str) -> list[Block]:
    """Return the python blocks of a page.

    >>> blocks("```python\\nprint(1)\\n```\\n\\n```text\\n1\\n```\\n")
    [Block(code='print(1)\\n', line=2, prints='1\\n')]
    """
    found = list(_BLOCK.finditer(text))
    made = []
    for at, block in enumerate(found):
        if block[1] != "python":
            continue
        after = found[at + 1] if at + 1 < len(found) else None
        follows = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
        made.append(Block(block[2], text.count("\n", 0, block.start(2)) + 1, after[2] if follows and after else ""))
    return made


def alike(expected: str, got: str) -> bool:
    """Compare texts word by word; "..." in what is expected stands for anything.

    >>> alike("in ...: no", "in /tmp/x:  no")
    True
    """
    pattern = ".*".join(re.escape(" ".join(part.split())) for part in expected.split("..."))
    return re.fullmatch(pattern.replace(r"\ .*", r"\ ?.*"), " ".join(got.split())) is not None
