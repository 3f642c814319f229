"""Bytes against accuracy in federated training."""
