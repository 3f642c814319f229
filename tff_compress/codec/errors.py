"""Typed errors of the codec. Each message is one sentence that says what was wrong and what is expected."""


class CompressionError(ValueError):
  """Base class of every error this package raises for bad input."""


class CodecError(CompressionError):
  """A codec text, a stage's parameter or a combination of stages is not valid."""


class UnmatchedRuleWarning(UserWarning):
  """A rule of a codec that names variables has no effect on a model, one sentence that says why."""


class SpecError(CompressionError):
  """An update, a model or a shape does not fit the spec it is used with."""


class UpdateError(CompressionError):
  """An update holds values that cannot be encoded (NaN, infinity or a magnitude above 2^64)."""


class PayloadError(CompressionError):
  """A payload is not one that this codec could have produced for this spec."""


class ArtefactError(CompressionError):
  """What a codec refers to by digest is missing, damaged or of another size."""
