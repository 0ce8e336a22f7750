"""Predictions on rows that the model's holder cannot read: encrypted rows, encrypted outputs of a linear model."""

from .exchange import answer, ask, decrypt, linear
from .files import Answer, Key, Query
from .form import Form

__all__ = ["Answer", "Form", "Key", "Query", "answer", "ask", "decrypt", "linear"]
