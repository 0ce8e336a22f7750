"""Numbers of things, as sentences say them."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number and its noun; `many` where the plural has no simple s.

    >>> counted(1, "round"), counted(3, "round"), counted(0, "entry", "entries"), counted(12_000, "row")
    ('1 round', '3 rounds', '0 entries', '12,000 rows')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
