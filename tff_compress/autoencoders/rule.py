"""The rule of a codec whose autoencoder is to be learned: which variables it takes, in which order, what is behind."""

from collections.abc import Sequence
import dataclasses

from tff_compress.codec import artefacts
from tff_compress.codec import network
from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import Condition
from tff_compress.codec.codec import Rule
from tff_compress.codec.errors import CodecError
from tff_compress.codec.grammar import as_codec
from tff_compress.codec.pipeline import Pipeline
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import SpecSource
from tff_compress.codec.spec import TensorSpec
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.transforms.autoencoder import Autoencoder

EXAMPLE = 'concat | autoencoder:32,length=1024 | uniform:bits=8 | huffman'


class LearnedRule:
  """A codec in which one rule begins with `autoencoder:LATENT,…` without weights, for the variables of a model.

  What the rule takes is one vector: its variables one behind the other, each in the order of the stage. Without
  `concat`, it may take one variable alone.

  Args:
    codec: `Codec` or its text.
    spec: `Spec`, or what one can be made of.

  Attributes:
    codec, spec: as above.
    stage: the `Autoencoder`.
    sizes: numbers of values of the variables that the rule takes, in order.
    size: their sum.
    length: number of values that are encoded together.
    others: positions in the spec of the variables that other rules take.

  Raises:
    CodecError: there is no such rule or more than one, or it takes no variable, or several and does not join them.
  """

  def __init__(self, codec: Codec | str, spec: SpecSource) -> None:
    self.codec, self.spec = as_codec(codec), Spec.of(spec)
    rules = [(rule, stage) for rule in self.codec.rules if (stage := _unlearned(rule.pipeline)) is not None]
    if len(rules) != 1:
      raise CodecError(f'{len(rules)} rules of the codec begin with an autoencoder that is to be learned, '
                                 f"without weights: write one, such as '{EXAMPLE}'.")
    (self._rule, self.stage), = rules
    segments = [(segment, segment.pipeline) for segment in self.codec.plan(self.spec).segments
                if segment.pipeline is not None and _unlearned(segment.pipeline) is not None]
    if len(segments) != 1:
      raise CodecError(f'the autoencoder is given {len(segments)} variables one by one: begin its rule with '
                                 '"concat |", and let the rule match at least one variable.')
    (segment, pipeline), = segments
    self._signal, self._latents = (pipeline.real(segment.size, position) for position in (0, 1))
    self._positions = segment.tensors
    self.sizes = tuple(self.spec.tensors[i].size for i in self._positions)
    self.size, self.length = segment.size, self.stage.length or segment.size
    self.others = tuple(i for i in range(len(self.spec.tensors)) if i not in self._positions)

  def take(self, xp: Ops, arrays: Sequence[Array]) -> Array:
    """Arrays in the order of the spec -> float32[size], what the autoencoder encodes."""
    flat = xp.concat([xp.reshape(arrays[i], [self.spec.tensors[i].size]) for i in self._positions])
    return self.stage.turned(xp, flat, self._signal)

  def put(self, xp: Ops, vector: Array, arrays: Sequence[Array]) -> list[Array]:
    """Arrays in the order of the spec: those of a vector as `take` gives it, and for `others` the given ones."""
    flat, found, start = self.stage.turned(xp, vector, self._signal, back=True), {}, 0
    for i, size in zip(self._positions, self.sizes):
      found[i] = xp.reshape(flat[start:start + size], list(self.spec.tensors[i].shape))
      start += size
    found.update(zip(self.others, arrays))
    return [found[i] for i in range(len(found))]

  @property
  def behind(self) -> tuple[Codec, Spec]:
    """(codec, spec) of what is sent: latent values, encoded by the stages behind the autoencoder, then the others."""
    tensors = [self.spec.tensors[i] for i in self.others]
    name = 'latent'
    while any(tensor.name == name for tensor in tensors):
      name += '_'
    rest = Rule((Condition(name),), Pipeline(self._rule.pipeline.stages[1:]))
    latents = TensorSpec(name, (self._latents.size,))
    return (Codec((rest, *(rule for rule in self.codec.rules if rule is not self._rule))),
            Spec((latents, *tensors)))

  def learned(self, autoencoder: network.Autoencoder) -> Codec:
    """The codec with a learned `network.Autoencoder`, named by its digest; it is added to the loaded ones."""
    stage = dataclasses.replace(self.stage, weights=artefacts.add(autoencoder))
    rule = dataclasses.replace(self._rule, pipeline=Pipeline((stage, *self._rule.pipeline.stages[1:]),
                                                             self._rule.pipeline.joined))
    return Codec(tuple(rule if old is self._rule else old for old in self.codec.rules))


def _unlearned(pipeline: Pipeline) -> Autoencoder | None:
  """The autoencoder that a pipeline begins with, where it is to be learned."""
  first = pipeline.stages[0]
  return first if isinstance(first, Autoencoder) and not first.weights else None
