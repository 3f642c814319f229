"""Errors of devices."""

from tff_compress.codec.errors import CompressionError


class DeviceError(CompressionError):
  """The device cannot go on; one sentence that says what to do."""
