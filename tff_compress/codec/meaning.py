"""What presets are meant for: one rule for everything that takes a codec.

A preset may be meant for a sender that remembers what it loses (`Preset.feedback`), or for what changes in a model
(`Preset.changes`). What takes a codec sends with it as it is meant; what cannot do so refuses it, with the functions
below in place of `tff_compress.codec`. The rule goes by the preset's name: a `Codec`, or a text that is a chain of
stages, is used as it is. So the chain is what to write for sending without memory on purpose.
"""

from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import CodecError
from tff_compress.codec.grammar import as_codec
from tff_compress.codec.grammar import parse
from tff_compress.codec.grammar import preset
from tff_compress.codec.presets import Preset


def needing_feedback(*codecs: Codec | str) -> Preset | None:
  """The first `Preset` that is meant for error feedback among codecs (`Codec` or text); None where there is none."""
  return next((named for named in map(_named, codecs) if named is not None and named.feedback), None)


def needing_changes(codec: Codec | str) -> Preset | None:
  """The `Preset` where a codec (`Codec` or text) is one that is meant for changes of a model; otherwise None."""
  named = _named(codec)
  return named if named is not None and named.changes else None


def without_feedback(codec: Codec | str, instead: str) -> Codec:
  """The `Codec` of senders that cannot remember what it loses.

  Args:
    codec: `Codec` or its text.
    instead: what to do with a preset that is meant for those that can, for the error.

  Raises:
    CodecError: it is such a preset, or not valid.
  """
  return _unless_meant(needing_feedback(codec), codec, 'error feedback, senders that remember what it loses', instead,
                       'send without memory')


def of_whole_models(codec: Codec | str, instead: str) -> Codec:
  """The `Codec` of messages that hold a model as a whole.

  Args:
    codec: `Codec` or its text.
    instead: what to do with a preset that is meant for changes, for the error.

  Raises:
    CodecError: it is such a preset, or not valid.
  """
  return _unless_meant(needing_changes(codec), codec, 'what changes in a model, not for the whole of it', instead,
                       'send the whole model with it')


def _named(codec: Codec | str) -> Preset | None:
  return preset(codec) if isinstance(codec, str) else None


def _unless_meant(named: Preset | None, codec: Codec | str, meant: str, instead: str, purpose: str) -> Codec:
  """The `Codec`, unless it is this `Preset`, meant for something else; `purpose` is what its chain is to be written
  for."""
  if named is not None:
    raise CodecError(f'{named.name} is meant for {meant}: {instead}, or write {str(parse(named.text))!r} to {purpose}.')
  return as_codec(codec)
