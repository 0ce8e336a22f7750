import inspect
import re

from fedloom.core import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.FedloomError)]


def test_every_error_has_its_own_code():
    assert len({c.code for c in CLASSES}) == len(CLASSES)
    assert all(re.fullmatch(r"FL\d{3}", c.code) and "code" in vars(c) for c in CLASSES)


def test_the_drawn_tree_is_the_tree():
    rows = [re.match(r"([│├└─ ]*)(\w+) +(FL\d{3})", line) for line in errors.__doc__.splitlines()]
    above, drawn = {}, {}
    for row in filter(None, rows):
        depth = len(row[1]) // 4
        above[depth] = row[2]
        drawn[row[2]] = (row[3], above[depth - 1] if depth else "Exception")
    assert drawn == {c.__name__: (c.code, c.__bases__[0].__name__) for c in CLASSES}


def test_a_child_has_the_code_of_its_parents_hundred():
    assert all(
        c.code[:3] == c.__bases__[0].code[:3] for c in CLASSES if c.__bases__[0] not in (Exception, errors.FedloomError)
    )


def test_no_other_module_defines_one():
    import fedloom  # noqa: F401

    found, queue = set(), [errors.FedloomError]
    while queue:
        queue.extend((one := queue.pop()).__subclasses__())
        found.add(one)
    assert found == set(CLASSES)
