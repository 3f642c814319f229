"""PowerSGD: clients send their matrices' coordinates on a basis that the server refines from round to round."""

import collections
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import Spec
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ServerFunctions
from tff_compress.processes.protocols import ServerMemory
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps

_LEAST_SAVING = 2
"""Variables of which r (n + m) values are not at least so many times fewer are sent as they are."""

_SHARED = random.signed(random.SHARED_CLIENT)


@dataclasses.dataclass(frozen=True)
class PowerSgd(ServerMemory):
  """Power iteration on the clients' updates, one half of a step in each round.

  A variable with at least two dimensions is a matrix M of n x m values, m those of its last dimension. P is an n x r
  matrix and Q an m x r matrix, both with orthonormal columns. In even rounds clients send M Q, and in odd rounds M^T
  P:

      even:  S = mean of M Q;    the model moves by S Q^T;  P = orthonormal columns that span those of S
      odd:   S = mean of M^T P;  the model moves by P S^T;  Q = orthonormal columns that span those of S

  The server keeps P and Q, and sends the one that a round needs with the model. What is sent is linear in M, so that
  it may be summed before anyone sees it. What the subspace leaves out is lost: clients should keep it (error
  feedback). As the server sends the basis of the round, a client may miss any number of rounds; its residual is an
  update like others.

  Variables of fewer dimensions are sent as they are, and so are those of which r (n + m) is more than half the values.

  The published form has both halves in one step, which takes two trips between clients and server that depend on each
  other; this form has one, and twice as many rounds for as many iterations.

  Source: Vogels et al. 2019, "PowerSGD: practical low-rank gradient compression for distributed optimization",
  algorithm 1.

  Attributes:
    rank: r.
  """
  rank: int = 2

  def __post_init__(self):
    checks.whole_number('PowerSGD: rank', self.rank, ProcessError, least=1, most=1024)

  def sides(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(n, m) of a variable of which the coordinates are sent, and None of one that is sent as it is."""
    size = math.prod(shape)
    if len(shape) < 2 or not size:
      return None
    rows, columns = size // shape[-1], shape[-1]
    saves = size >= _LEAST_SAVING * self.rank * (rows + columns)
    return (rows, columns) if saves else None

  def build(self, steps: Sequence[tuple[int, Any]], spec: Spec, seed: int) -> ServerFunctions:
    """`PowerServer` for a schedule of codecs, of the coordinates and of the other variables. Raises ProcessError."""
    return PowerServer(self, steps, spec, seed)


class PowerServer(ServerFunctions):
  """What server and clients compute, in functions to be called while a graph is built.

  Also what `FrameSum` takes as messages: the sums are those of the coordinates and the other variables, as one vector.

  Args:
    power: `PowerSgd`.
    steps: ((0, `Codec`),).
    spec: `Spec` of the update.
    seed: session seed.

  Raises:
    ProcessError: there are several codecs, or no variable to send coordinates of.
  """

  def __init__(self, power, steps, spec, seed):
    if len(steps) > 1:
      raise ProcessError('PowerSGD sends coordinates, for which it needs one codec in all rounds, not a schedule.')
    self.spec, self._rank = spec, power.rank
    self._sides = [power.sides(tensor.shape) for tensor in spec.tensors]
    if not any(self._sides):
      raise ProcessError(f'PowerSGD with rank {power.rank} would send no variable of this model in less than half its '
                         'size: use a smaller rank, or leave it out.')
    # Half 0 sends what has n rows on a basis with m, and half 1 the other way round.
    self._coordinates = [MessageFunctions(steps[0][1], self._of_half(half, False), seed) for half in (0, 1)]
    self._bases = [MessageFunctions('float32', self._of_half(1 - half, True), seed) for half in (0, 1)]
    self._initial = [[_random(tensor, half, seed) for tensor in self._of_half(half, True).tensors] for half in (0, 1)]

  def _of_half(self, half, matrices_alone):
    """The spec with n x r (half 0) or m x r (half 1) in place of each matrix."""
    found = [dataclasses.replace(tensor, shape=(sides[half], self._rank)) if sides else tensor
             for tensor, sides in zip(self.spec.tensors, self._sides) if sides or not matrices_alone]
    return codec_lib.Spec(tuple(found))

  @property
  def messages(self):
    return self

  @property
  def prefix_types(self):
    return [(max(messages.spec.parameters for messages in self._coordinates), 'float32')]

  def decode_to_prefixes(self, frame):
    size, _ = self.prefix_types[0]

    def of_half(half):
      arrays = self._coordinates[half].decode(frame)
      return tf.ensure_shape(_padded(tf.concat([tf.reshape(x, [-1]) for x in arrays], 0), size), [size])

    return [_either(_round_of(frame), of_half)]

  def initial(self):
    """OrderedDict of lists of matrices: left (P of each) and right (Q of each)."""
    return collections.OrderedDict(left=list(map(tf.constant, self._initial[0])),
                                   right=list(map(tf.constant, self._initial[1])))

  def mean(self, total, accumulator, round_number):
    return total.prefixes_mean(accumulator, round_number)

  def publish(self, state, round_number):
    """uint8[n], a frame with the basis that clients need in a round."""
    return _either(round_number, lambda half: self._bases[half].encode(
        state['left' if half else 'right'], round_number, tf.constant(_SHARED, tf.int32)))

  def encode(self, arrays, published, round_number, client):
    """uint8[n], a client's frame.

    Args:
      arrays: its update, list of tensors in the order of the spec.
      published: what `publish` gave in this round.
      round_number, client: int32 scalars.
    """

    def of_half(half):
      bases = iter(self._bases[half].decode(published, round_number, tf.constant(_SHARED, tf.int32)))
      sent = []
      for x, sides in zip(arrays, self._sides):
        if sides:
          x = tf.matmul(tf.reshape(x, sides), next(bases), transpose_a=bool(half))
        sent.append(x)
      return self._coordinates[half].encode(sent, round_number, client)

    return _either(round_number, of_half)

  def decode(self, frame, published):
    """What a frame moves the model by: list of tensors in the order and shapes of the spec."""
    return _either(_round_of(frame), lambda half: self._expanded(
        half, self._coordinates[half].decode(frame), self._bases[half].decode(published)))

  def step(self, state, mean, round_number):
    """One round.

    Args:
      state: as `initial` gives it.
      mean: list of one vector, the mean of the clients'; 0 where none sent.
      round_number: int32 scalar.

    Returns:
      (state, what the model moves by as a list of tensors in the order and shapes of the spec).
    """

    def of_half(half):
      spec = self._coordinates[half].spec
      values = spec.split(TensorFlowOps(), mean[0][:spec.parameters])
      used, refined = ('left', 'right') if half else ('right', 'left')
      sums = [value for value, sides in zip(values, self._sides) if sides]
      following = collections.OrderedDict(
          (side, [_orthonormal(s, old) for s, old in zip(sums, state[side])] if side == refined
           else [tf.identity(basis) for basis in state[side]]) for side in state)
      return following, self._expanded(half, values, state[used])

    return _either(round_number, of_half)

  def _expanded(self, half, values, bases):
    """Coordinates back to matrices, other variables as they are."""
    bases, expanded = iter(bases), []
    for value, sides, tensor in zip(values, self._sides, self.spec.tensors):
      if sides:
        left, right = (next(bases), value) if half else (value, next(bases))
        value = tf.matmul(left, right, transpose_b=True)
      expanded.append(tf.reshape(value, tensor.shape))
    return expanded


def _random(tensor, half, seed):
  """float32 with random orthonormal columns."""
  # Of a round that there never is, so that no codec draws from the same keys.
  keys = keys_lib.MessageKeys(seed, (1 << 32) - 1, random.SHARED_CLIENT)
  draws = keys_lib.Draws(numpy_ops, keys, tensor.name, half)
  numbers = draws.of('round', random.Purpose.BASIS).dither(tensor.size) - np.float32(0.5)
  return np.linalg.qr(numbers.reshape(tensor.shape))[0].astype(np.float32)


def _either(round_number, make):
  """make(0) in even rounds, make(1) in odd ones: the same structure of tensors."""
  return tf.cond(tf.equal(tf.math.floormod(round_number, 2), 0), lambda: make(0), lambda: make(1))


def _round_of(frame):
  return tf.bitcast(frame[8:12], tf.int32)


def _padded(vector, size):
  return tf.pad(vector, [[0, size - vector.shape[0]]])


def _orthonormal(matrix, before):
  """Orthonormal columns that span those of a matrix.

  What the matrix does not determine, as where it has less than full rank or nobody sent, is taken from the columns
  before.
  """
  largest = tf.reduce_max(tf.abs(matrix), axis=0, keepdims=True)
  return tf.linalg.qr(tf.math.divide_no_nan(matrix, largest) + 1e-6 * before)[0]
