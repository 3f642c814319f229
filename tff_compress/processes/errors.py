"""What can go wrong around processes whose clients remember."""

from tff_compress.codec.errors import CompressionError


class ProcessError(CompressionError):
  """A process cannot be built or run with these arguments."""


class ClientError(ProcessError):
  """The clients of a round are not such that it can run. Nothing has changed: call again with others."""


class StateError(ProcessError):
  """What is stored of a client cannot be used. Nothing has changed: forget the client, or leave it out."""
