"""The seam and its sides: parties that answer, federations that carry."""
