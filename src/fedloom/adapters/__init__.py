"""The only files that import a machine learning framework; each is imported where it is used, so none is needed."""
