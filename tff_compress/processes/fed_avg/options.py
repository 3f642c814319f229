"""What `build_fed_avg` is given: each option checked alone, and against those that it does not go with."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tff_compress.codec import Codec
from tff_compress.codec import meaning
from tff_compress.processes import options
from tff_compress.processes.down.changes import Changes
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.protocols import ClientMemory
from tff_compress.processes.protocols import Confinement
from tff_compress.processes.protocols import JointMemory
from tff_compress.processes.protocols import ServerMemory
from tff_compress.processes.protocols import UploadRule
from tff_compress.processes.up import steps as steps_lib

PROTOCOLS = {'relevance': (UploadRule, 'Relevance(…)'), 'structured': (Confinement, 'Structured(…)'),
             'server': (ServerMemory, 'FetchSgd(…)')}
"""{option: (what it has to be, an example)}."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(options.Options):
  """Arguments of `build_fed_avg`, where they go together.

  Which pairs do not is said by the options themselves: `conflicts` of each protocol is a table of other options and
  sentences.

  Raises:
    ProcessError, CodecError: they do not.
  """
  uplink: Any
  downlink: Any
  error_feedback: Any
  relevance: UploadRule | None
  structured: Confinement | None
  server: ServerMemory | None

  def __post_init__(self):
    super().__post_init__()
    for name, (protocol, example) in PROTOCOLS.items():
      value = getattr(self, name)
      if value is not None and not isinstance(value, protocol):
        raise ProcessError(f'{name} must be a {protocol.__name__} such as {example}, or None, not {value!r}.')
    if self.structured and self.error_feedback is None:
      for codec in steps_lib.parts(self.uplink):
        meaning.without_feedback(codec, 'leave structured out')
    memories = [memory for memory in (self.feedback, self.server) if memory]
    for memory in memories:
      if isinstance(memory, JointMemory) and not all(memory == other for other in (self.feedback, self.server)):
        raise ProcessError(f'{memory} is what clients and server remember together: give the same one as '
                           'error_feedback and as server.')
    needed = [*self.needs, *(need for memory in memories for need in memory.needs)]
    object.__setattr__(self, 'needs', tuple(dict.fromkeys(needed)))
    given = {'structured': self.structured, 'error_feedback': self.feedback, 'relevance': self.relevance,
             'server': self.server, 'changes': self.changes}
    for option in given.values():
      for other, sentence in getattr(option, 'conflicts', {}).items():
        if given[other]:
          raise ProcessError(sentence)
    self.check_needs(sends_changes=self.changes is not None)

  @functools.cached_property
  def feedback(self) -> ClientMemory | None:
    return ErrorFeedback.of(self.error_feedback, *steps_lib.parts(self.uplink))

  @functools.cached_property
  def steps(self) -> tuple[tuple[int, Codec], ...]:
    """The uplink's codecs, each with the round that it is used from."""
    return steps_lib.schedule(self.uplink)

  @functools.cached_property
  def down(self) -> Changes | Codec:
    """`Changes`, or the `Codec` of what clients receive instead: the model, or their part of it."""
    downlink = 'float32' if self.downlink is None else self.downlink
    if self.sends_parts and not isinstance(downlink, Changes):
      return meaning.of_whole_models(downlink, 'leave structured out')
    return Changes.of(downlink)

  @property
  def changes(self) -> Changes | None:
    """What sends changes of the model; None where the model is sent."""
    return self.down if isinstance(self.down, Changes) else None

  @property
  def sends_parts(self) -> bool:
    """Whether clients receive the part of the model alone that they train."""
    return self.structured is not None and self.structured.own_downlink

  @property
  def keeps_model(self) -> bool:
    """Whether clients keep the model that they received."""
    return self.relevance is not None or self.changes is not None and self.changes.since == 'last'

  @property
  def keeps_start(self) -> bool:
    """Whether clients keep the model that changes of the downlink start from."""
    return self.changes is not None and self.changes.since == 'start'
