"""Federated averaging with autoencoders that clients learn before the first round."""
