"""Typed errors of exports. Each message is one sentence that says what was wrong and what to do."""

from tff_compress.codec.errors import CompressionError


class ExportError(CompressionError):
  """A model, a codec or an option cannot be exported as asked."""


class ParityError(ExportError):
  """The exported file does not compute what the original computes."""


class FileError(ExportError):
  """A file is missing, in the way, too large or not what it should be."""
