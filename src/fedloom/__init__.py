"""Federated learning for people who hold data that they may not share."""
