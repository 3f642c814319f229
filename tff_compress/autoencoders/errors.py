"""Typed errors of learned encoders."""

from tff_compress.codec import CompressionError


class SnapshotError(CompressionError):
  """The snapshots, or what is to be learned from them, cannot be used."""
