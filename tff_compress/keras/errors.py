"""What cannot be trained, and training that failed."""

from tff_compress.codec.errors import CompressionError


class FederateError(CompressionError):
  """A model, data or arguments that cannot be trained with, or training that diverged; one sentence."""
