"""Published methods by name: one file each, found by the registry.

A method is more than a codec: it also says what clients or the server remember, who uploads, how votes are counted.
What one codec is all there is to is a preset of `tff_compress.codec` instead, and no name stands for both. `method`
reads either:

    method = processes.method('dgc:p=1/1000')
    process = method.build(model_fn, **method.arguments())

A method's name is that of its file, with - for _: so a codec's error can say that a name is a method's without this
package (`tff_compress.codec.grammar.method_names`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any
from typing import ClassVar

from tff_compress import codec as codec_lib
from tff_compress.codec import defaults
from tff_compress.codec import discovery
from tff_compress.codec import grammar
from tff_compress.codec import stage as stage_lib
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.figures import CLIENT_STATES
from tff_compress.processes.figures import Figure
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.needs import Facts
from tff_compress.processes.needs import Need
from tff_compress.processes.protocols import ClientMemory
from tff_compress.processes.protocols import JointMemory
from tff_compress.processes.up import steps
from tff_compress.timeline.start import Start

_registry: dict[str, type[Method]] = {}


@dataclasses.dataclass(frozen=True)
class Method:
  """Base class of methods: frozen dataclasses whose fields are their parameters.

  Class attributes:
    name: the word that names it, as its file does.
    summary: one line for `tff-compress codecs`.
    source: where it is from.
    page: where it is described, from the folder docs/.
    memory: what remembers between rounds: 'clients', 'server', 'clients, server' or 'nothing'.
    downlink: codec of the downlink that belongs to it; '' where any will do; its own name with `both_ways`.
    both_ways: whether what it sends down is of its own kind as well, and no codec.
    weighting: 'uniform' where clients then weigh the same; '' where that is not settled.
    needs: what a run must fulfil, such as `needs.ALL_CLIENTS`.
    local_steps: of a client between messages, where they belong to it; None where any number will do.
    codec_suffices: whether, but for error feedback, its codec is all there is to it, so that `tff_compress.uplink` does
      as well.
    figures: what it measures in a round beyond what every method does.
    examples: parameter texts that are tested.
  """
  name: ClassVar[str] = ''
  summary: ClassVar[str] = ''
  source: ClassVar[str] = ''
  page: ClassVar[str] = ''
  memory: ClassVar[str] = 'nothing'
  downlink: ClassVar[str] = ''
  both_ways: ClassVar[bool] = False
  weighting: ClassVar[str] = ''
  needs: ClassVar[tuple[Need, ...]] = ()
  local_steps: ClassVar[Any] = None
  codec_suffices: ClassVar[bool] = False
  figures: ClassVar[tuple[Figure, ...]] = ()
  examples: ClassVar[tuple] = ('',)

  def __post_init__(self):
    self.check()
    steps.schedule(self.uplink)

  def check(self):
    """Raises ProcessError where a parameter cannot be used that the uplink does not have."""
    del self

  def settled(self, facts: Facts) -> Method:
    """The method as it is in a run of which so much is known; itself where nothing depends on that. Raises ProcessError
    where it cannot be used there."""
    del facts
    return self

  @property
  def remark(self) -> str:
    """What to tell the user of how it was settled, one sentence; '' for nothing."""
    return ''

  @property
  def uplink(self):
    """Codec of the updates: a text, or {round: text}. Raises CodecError where a parameter cannot be used."""
    raise NotImplementedError

  @property
  def error_feedback(self) -> ClientMemory | None:
    """What clients remember of their updates; a `JointMemory` also says what the server remembers."""
    return None

  @property
  def prepass(self):
    """How clients learn in a pre-pass, before the first round and when they are told to again: 'groups', in any groups,
    one call for each; 'together', all that learn in one call; '' where there is no pre-pass."""
    return ''

  @property
  def codec_of_same_length(self):
    """Codec whose messages are as long as the uplink's, for `tff-compress codecs`."""
    return self.uplink

  def encoder_input(self, update):
    """What its codec is given of an update that is one matrix, in the first round: NumPy arrays."""
    return update

  def build(self, model_fn, **arguments):
    """Builds the process that trains with it.

    Args:
      model_fn: function that makes a `tff.learning.models.VariableModel`.
      **arguments: of `build_fed_avg`, with those that `arguments` gives.
    """
    from tff_compress.processes.fed_avg.build import build_fed_avg
    return build_fed_avg(model_fn, **arguments)

  def arguments(self, model: Any = None) -> dict[str, Any]:
    """What `build` is given for it; the arguments that are not there are free.

    Args:
      model: the Keras model that clients train, which some methods have to know.

    Raises:
      ProcessError: such a method was not told, or cannot use this model.
    """
    weighting = {}
    if self.weighting == 'uniform':
      import tensorflow_federated as tff
      weighting['client_weighting'] = tff.learning.ClientWeighting.UNIFORM
    remembered = self.error_feedback
    server = {'server': remembered} if isinstance(remembered, JointMemory) else {}
    # Nothing can be said twice: a name that is there already is an error.
    return dict(uplink=self.uplink, error_feedback=remembered or False, needs=self.needs, **server, **weighting,
                **self.other_arguments(model))

  def other_arguments(self, model: Any) -> dict[str, Any]:
    """What of `arguments` follows from nothing else here, such as `server`; arguments and errors as there."""
    del model
    return {}

  def arguments_of_start(self, start: Start, model: Any) -> dict[str, Any]:
    """What `build` is given besides where a run draws the first weights of a Keras model from a seed: `start` says
    how."""
    del start, model
    return {}

  def __str__(self):
    shown = [f'{field.name}={stage_lib.format_value(getattr(self, field.name))}' for field in dataclasses.fields(self)
             if getattr(self, field.name) != field.default]
    return self.name + (':' + ','.join(shown) if shown else '')


@dataclasses.dataclass(frozen=True)
class OfCodec(Method):
  """A codec, a preset or a schedule of them as a method: with error feedback where a preset is meant for it.

  Attributes:
    text: as it was written.
  """
  text: str

  @property
  def uplink(self):
    return self.text

  @property
  def error_feedback(self):
    return ErrorFeedback.of(None, *steps.parts(self.text))

  @property
  def codec_suffices(self):
    return len(steps.parts(self.text)) == 1

  def __str__(self):
    return self.text


@dataclasses.dataclass(frozen=True)
class DefaultCodecs(OfCodec):
  """The codecs of both directions where nothing is named, and these cannot be one method's.

  Attributes:
    reason: why not.
  """
  downlink: ClassVar[str] = defaults.DOWNLINK

  text: str = defaults.UPLINK
  reason: str = ''

  @property
  def remark(self):
    return f'auto is {self.text} up and {self.downlink} down here: {self.reason}.'


def method(text: str) -> Method:
  """The method that a text names.

  Args:
    text: `name:parameters` of a method, such as 'dgc:p=1/1000'; or a codec, such as 'stc:p=1/400'. A `Method` is
      returned as it is.

  Raises:
    CodecError, ProcessError: it is neither, or a parameter cannot be used.
  """
  if isinstance(text, Method):
    return text
  if not isinstance(text, str):
    raise ProcessError(f'a codec or method is written as a text, not as {type(text).__name__}.')
  name = grammar.name_of(text)
  if name in registry() and '|' not in text:
    return grammar.configured(registry()[name], text.strip(), 'method')
  try:
    return OfCodec(text)
  except codec_lib.CodecError:
    longer = next((known for known in registry() if name and known.startswith(f'{name}-')), None)
    if longer and '|' not in text:
      raise codec_lib.CodecError(f'{name} alone is no codec; did you mean the method {longer}?') from None
    raise


def registry():
  """{name: method class} of everything in this folder."""
  if not _registry:
    _registry.update(discovery.classes(__name__, Method))
    if sorted(_registry) != list(grammar.method_names()):
      raise ValueError('each file of methods holds one, of the same name with - for _: there are the files '
                       f'{list(grammar.method_names())} and the methods {sorted(_registry)}.')
  return dict(_registry)


def figures() -> tuple[Figure, ...]:
  """What any method may measure in a round beyond what every method does, each once."""
  return _figures(tuple(registry().values()))


@functools.lru_cache(maxsize=1)  # Asked for in every round of a report.
def _figures(kinds):
  return tuple(dict.fromkeys([*(figure for kind in kinds for figure in kind.figures), CLIENT_STATES]))
