"""Typed errors of exports. Each message is one sentence that says what was wrong and what to do."""

import re

from tff_compress.codec.errors import CompressionError


class ExportError(CompressionError):
  """A model, a codec or an option cannot be exported as asked."""


class ParityError(ExportError):
  """The exported file does not compute what the original computes."""


class FileError(ExportError):
  """A file is missing, in the way, too large or not what it should be."""


def reason(error: BaseException) -> str:
  """The first sentence of a foreign error, at most 200 characters and without its full stop.

  Where Keras reports that a layer failed, this is the layer's name and why.
  """
  text = str(error).strip() or type(error).__name__
  layer = re.match(r"Exception encountered when calling layer '(.*?)' .*?\n\n(.*)", text, re.DOTALL)
  sentence = re.split(r'(?<=[^.])\.(?:\s|$)', ' '.join((layer[2] if layer else text).split()))[0][:200].rstrip('.:')
  return f'the layer {layer[1]!r}: {sentence}' if layer else sentence
