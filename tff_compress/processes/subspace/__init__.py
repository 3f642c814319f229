"""Federated averaging in a shared subspace: updates, their sum and the model's changes in the same few coordinates."""
