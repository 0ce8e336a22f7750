"""Tables and pictures of a run, from plain values."""
