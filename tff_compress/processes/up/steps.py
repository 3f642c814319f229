"""Codecs that change with the round: how they are written. messages.py has their messages."""

import collections

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import grammar
from tff_compress.processes.errors import ProcessError


def schedule(codec):
  """((first round, `Codec`), …) in ascending order, the first from round 0.

  Args:
    codec: `Codec` or its text, or a mapping of round to such: each is used from that round on. A text may be a schedule
      too: 'topk:1/4 | float32 @5 topk:1/100 | float32' is {0: 'topk:1/4 | float32', 5: 'topk:1/100 | float32'}.

  Raises:
    ProcessError: the rounds are not whole numbers from 0 on, or in a text not in ascending order.
    CodecError: a codec is not valid.
  """
  if isinstance(codec, str):
    codec = _of_text(codec)
  if not isinstance(codec, collections.abc.Mapping):
    return ((0, codec_lib(codec)),)
  if 0 not in codec or not all(checks.is_whole_number(r, 0, 2**31 - 1) for r in codec):
    raise ProcessError('a schedule is a mapping of round to codec that begins with round 0, such as '
                       "{0: 'topk:1/4 | float32', 5: 'topk:1/100 | float32'}.")
  return tuple((int(start), codec_lib(codec[start])) for start in sorted(codec))


def parts(codec):
  """The codecs of a schedule, in order and as they are written: one where it is no schedule. Raises ProcessError."""
  found = _of_text(codec) if isinstance(codec, str) else codec
  return list(found.values()) if isinstance(found, collections.abc.Mapping) else [found]


def _of_text(text):
  """The mapping that a text with breaks stands for; the text itself where it has none."""
  first, *rest = grammar.BREAK.split(text) if len(text) <= codec_lib.MAX_TEXT else [text]
  if not rest:
    return text
  rounds = [int(number) for number in rest[::2]]
  if not all(a < b for a, b in zip([0, *rounds], rounds)):
    raise ProcessError('the rounds of a schedule must rise from the second codec on, as in '
                       "'topk:1/4 | float32 @5 topk:1/100 | float32'.")
  return {0: first, **dict(zip(rounds, rest[1::2]))}
