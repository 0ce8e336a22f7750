"""The nouns, and the protocols of the axes: NumPy and the standard library only."""
