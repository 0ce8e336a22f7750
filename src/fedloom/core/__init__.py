"""The nouns: layouts, updates, tasks, states, random streams, and the protocols of the axes. NumPy and the standard library only."""
