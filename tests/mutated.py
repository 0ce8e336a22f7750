"""Structure-aware fuzzing: a valid value, changed somewhere."""

from hypothesis import strategies as st


def mutated(data, value, names, added, junk):
    """Return a value with something in it replaced, taken out or added.

    Args:
        data: of hypothesis.
        value: dicts, lists and tuples, and whatever they hold.
        names, added: strategies for what is put into a dict.
        junk: a strategy for what takes the place of something.
    """
    if isinstance(value, dict) and value and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(value)))
        match data.draw(st.integers(0, 4)):
            case 0:
                return {name: part for name, part in value.items() if name != key}
            case 1:
                return {**value, data.draw(names): data.draw(added)}
            case _:
                return {**value, key: mutated(data, value[key], names, added, junk)}
    if isinstance(value, list | tuple) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return type(value)([*value[:at], mutated(data, value[at], names, added, junk), *value[at + 1 :]])
    return data.draw(junk)
