"""Federated averaging whose clients remember."""
