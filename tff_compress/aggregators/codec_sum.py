"""A sum of updates that travel as frames."""

import collections
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import tree

from tff_compress import codec as codec_lib
from tff_compress.aggregators import accounting
from tff_compress.aggregators import frame_sum
from tff_compress.codec import checks
from tff_compress.codec import defaults
from tff_compress.codec import meaning
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import SpecSource
from tff_compress.runtime import compat
from tff_compress.tensorflow import messages as messages_lib
from tff_compress.tensorflow.ops import TensorFlowOps

_STATEFUL = 'use tff_compress.build_fed_avg(model_fn, uplink=…)'


def uplink(codec: Codec | str = defaults.UPLINK, *, weighted: bool = True, seed: int | None = None,
           spec: SpecSource | None = None, error_feedback: bool = False
           ) -> tff.aggregators.WeightedAggregationFactory | tff.aggregators.UnweightedAggregationFactory:
  """An aggregation factory for `model_aggregator=` of TFF's learning algorithms: a mean of encoded updates.

  Args:
    codec: `Codec` or its text. It must be unbiased, or you must accept the bias: nothing corrects it. A preset that is
      meant for error feedback is refused. By default two rotations and a mask that the clients of a
      round share, and one bit for each of the values that are kept: 1 of 64, at least 512.
    weighted: True for algorithms that weight clients (`build_weighted_fed_avg`), False for the others.
    seed: whole number for reproducible runs; None draws one, and each client draws its own numbers afresh each round.
      With a seed, a client's random numbers are a function of the seed, the round and its own update, so two clients
      with equal updates round alike.
    spec: what to take the variables' names from, for codecs with rules on names: a `Spec`, a Keras model, or a mapping
      of name to array, in the order of the update. By default a variable's name is its path in the update.
    error_feedback: must be False: an aggregation factory has nowhere to keep what clients remember between rounds.
      `tff_compress.build_fed_avg` has.

  Returns:
    `tff.aggregators.MeanFactory` (weighted) or `tff.aggregators.UnweightedMeanFactory` around a `CodecSumFactory`.

  Raises:
    CodecError: the codec is not valid, or needs clients that remember.
  """
  if error_feedback:
    raise codec_lib.CodecError(f'an aggregation factory has nowhere to keep what clients remember: {_STATEFUL} with '
                               'error_feedback=True.')
  total = CodecSumFactory(codec, seed=seed, spec=spec)
  if weighted:
    return tff.aggregators.MeanFactory(value_sum_factory=total, no_nan_division=True)
  return tff.aggregators.UnweightedMeanFactory(value_sum_factory=total)


class CodecSumFactory(tff.aggregators.UnweightedAggregationFactory):
  """Sums client values that are encoded on the clients and decoded on the server.

  One round:
    1. The round number is broadcast.
    2. Each client encodes its value and frames it (`tff_compress.wire`): a `uint8[None]`.
    3. The server decodes each frame up to the codec's linear prefix and adds it to one accumulator.
    4. The prefix (a rotation or a mask that the clients share) is undone once, on the sum.

  The state holds the round number, and what the last round measured. The measurements are those of
  `accounting.measurements('uplink', …)`.

  Args:
    codec: `Codec` or its text.
    seed, spec: as for `uplink`.
  """

  def __init__(self, codec: Codec | str, *, seed: int | None = None, spec: SpecSource | None = None) -> None:
    if isinstance(codec, collections.abc.Mapping):
      raise codec_lib.CodecError(f'an uplink here has one codec for all rounds; for a schedule, {_STATEFUL}.')
    self._codec = meaning.without_feedback(codec, f'{_STATEFUL}, whose clients do')
    self._reproducible = seed is not None
    self._seed = checked_seed(seed)
    self._spec = None if spec is None else codec_lib.Spec.of(spec)

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Makes the `tff.templates.AggregationProcess` for values of this type; see the base class.

    Raises:
      SpecError: a variable's shape is not fully known, or its dtype cannot be sent or summed.
      CodecError: no rule of the codec matches a variable.
    """
    structure = compat.tensor_specs(value_type)
    spec = spec_of_structure(structure, self._spec)
    for tensor in spec.tensors:
      if tensor.dtype == 'bool':
        raise codec_lib.SpecError(
            f'variable {tensor.name!r} is boolean, which has no sum: cast it to an integer first.')
    messages = messages_lib.MessageFunctions(self._codec, spec, self._seed)
    total = frame_sum.FrameSum(messages)
    nonce = self._nonce
    frame_type = tff.TensorType(np.uint8, [None])

    @tff.tensorflow.computation(value_type, np.int32)
    def encode(value, round_number):
      tensors = tf.nest.flatten(value)
      return messages.encode(tensors, round_number, nonce(tensors, round_number))

    @tff.tensorflow.computation
    def zero():
      return total.zero()

    accumulator_type = zero.type_signature.result

    @tff.tensorflow.computation(accumulator_type, frame_type)
    def accumulate(accumulator, frame):
      return total.accumulate(accumulator, frame)

    @tff.tensorflow.computation(accumulator_type, accumulator_type)
    def merge(a, b):
      return total.merge(a, b)

    @tff.tensorflow.computation(accumulator_type)
    def report(accumulator):
      return accumulator

    @tff.tensorflow.computation(np.int32, accumulator_type)
    def finish(round_number, accumulator):
      result = tf.nest.pack_sequence_as(structure, total.arrays(accumulator, round_number))
      measured = accounting.measurements('uplink', accumulator['bytes'], accumulator['clients'], spec)
      return result, measured, collections.OrderedDict(round=round_number + 1, measured=measured)

    @tff.tensorflow.computation
    def initial():
      nothing = tf.zeros([], tf.int64)
      measured = accounting.measurements('uplink', nothing, nothing, spec)
      return collections.OrderedDict(round=tf.constant(0, tf.int32), measured=measured)

    @tff.tensorflow.computation(initial.type_signature.result)
    def round_of(state):
      return state['round']

    @tff.federated_computation
    def init():
      return tff.federated_eval(initial, tff.SERVER)

    @tff.federated_computation(init.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS))
    def next_fn(state, value):
      round_number = tff.federated_map(round_of, state)
      frames = tff.federated_map(encode, (value, tff.federated_broadcast(round_number)))
      added = tff.federated_aggregate(frames, zero(), accumulate, merge, report)
      result, measured, following = tff.federated_map(finish, (round_number, added))
      return tff.templates.MeasuredProcessOutput(following, result, measured)

    self.parts = collections.OrderedDict(encode=encode, zero=zero, accumulate=accumulate, merge=merge, finish=finish)
    return tff.templates.AggregationProcess(init, next_fn)

  def _nonce(self, tensors: list[tf.Tensor], round_number: tf.Tensor) -> tf.Tensor:
    """int32 scalar: the client's number for this round, any but that of the server."""
    if self._reproducible:
      total = round_number
      for tensor in tensors:
        bits = tf.reshape(tf.bitcast(tf.cast(tensor, tf.float32), tf.int32), [-1])
        total = total * 31 + tf.reduce_sum(bits * (tf.range(tf.size(bits)) * 2 + 1))
      low, high = random.signed(self._seed & 0xFFFFFFFF), random.signed(self._seed >> 32)
      number = random.x5(TensorFlowOps(), total, tf.constant(low), tf.constant(high))
    else:
      number = tf.random.uniform([], -2**31, 2**31 - 1, tf.int32)
    return tf.where(tf.equal(number, -1), tf.zeros([], tf.int32), number)


def checked_seed(seed: int | None) -> int:
  """The seed, or a fresh one for None. Raises SpecError if it is not a whole number of at most 64 bits."""
  if seed is None:
    return int.from_bytes(os.urandom(8), 'little')
  return checks.whole_number('seed', seed, codec_lib.SpecError, least=0, most=2**64 - 1)


def spec_of_structure(structure: Any, names: Spec | None = None) -> Spec:
  """The `Spec` of a structure of `tf.TensorSpec`s, in the order of `tf.nest.flatten`.

  Args:
    structure: nested structure.
    names: `Spec` with as many variables of the same shapes, whose names are taken; None for the paths.

  Raises:
    SpecError: the two do not fit, or a shape is not fully known.
  """
  paths = tree.flatten_with_path(structure)
  tensors = []
  for path, leaf in paths:
    shape = leaf.shape.as_list() if leaf.shape.rank is not None else [None]
    name = '/'.join(map(str, path)) or 'value'
    if None in shape:
      raise codec_lib.SpecError(f'variable {name!r} needs a fully known shape, not {leaf.shape}.')
    tensors.append(codec_lib.TensorSpec(name, tuple(shape), leaf.dtype.name))
  if names is not None:
    if [t.shape for t in names.tensors] != [t.shape for t in tensors]:
      raise codec_lib.SpecError('the spec given for the names has other shapes than the update: '
                                f'{[t.shape for t in names.tensors][:5]} and {[t.shape for t in tensors][:5]}.')
    tensors = [codec_lib.TensorSpec(n.name, t.shape, t.dtype) for n, t in zip(names.tensors, tensors)]
  return codec_lib.Spec(tuple(tensors))
