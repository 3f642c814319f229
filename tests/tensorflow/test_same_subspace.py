"""A session in the shared subspace computes the same bits in TensorFlow graphs as in NumPy: messages, models, rules."""


import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import random
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops
from tff_compress.subspace import endings
from tff_compress.subspace.integer_sums import IntegerSums
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.session import FIRST
from tff_compress.subspace.session import Session
from tff_compress.timeline import history

pytestmark = pytest.mark.tf

SEED = 2**63 + 12345
CLIENTS = (0, 7, 2**32 - 2)


class Pair:
  """One agreement in both, and each of its functions as a graph.

  Args:
    size: d.
    first, key_frames: codecs.
    settings: of `Session`, `rate` and `momentum`.
  """

  def __init__(self, size, first='float32', key_frames='int8', start=None, **settings):
    import tensorflow as tf

    from tff_compress.tensorflow.ops import TensorFlowOps
    from tff_compress.tensorflow.subspace import GraphRuntime
    self._tf, self._ops, self.start = tf, TensorFlowOps, start
    parts = {'kernel': np.zeros((size - size // 3,), np.float32), 'bias': np.zeros((size // 3,), np.float32)}
    self.spec = codec_lib.Spec.of({name: array for name, array in parts.items() if array.size})
    codecs = codec_lib(key_frames), codec_lib(first)
    settings = {'momentum': 0.0, 'rate': Rate(noise=None, floor=16), **settings}
    self.numpy = Session(size=size, seed=SEED, runtime=NumpyRuntime(self.spec, SEED, *codecs), **settings)
    self.graph = Session(size=size, seed=SEED, runtime=GraphRuntime(self.spec, SEED, *codecs, start), **settings)
    self._functions = {}

  def both(self, function, *arguments):
    """What function(xp, session, *arguments) gives, the same bits from NumPy and from a graph.

    Args:
      function: called in both; arrays of any size are vectors of bytes, and of float32 where d is not their size.
      arguments: structures of NumPy arrays.
    """
    tf = self._tf
    expected = function(numpy_ops, self.numpy, *arguments)
    given = [tf.nest.map_structure(_array, argument) for argument in arguments]

    def in_graph(*tensors):
      xp = self._ops()
      return xp.checked(tf.nest.map_structure(tf.convert_to_tensor, function(xp, self.graph, *tensors)))

    if function not in self._functions:
      signature = tf.nest.map_structure(self._type, given)
      self._functions[function] = tf.function(in_graph, autograph=False).get_concrete_function(*signature)
    flat = [tf.constant(x) for x in tf.nest.flatten(given)]
    found = self._functions[function](*tf.nest.pack_sequence_as(given, flat))
    for ours, theirs in zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True):
      ours, theirs = _array(ours), theirs.numpy()
      assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (ours, theirs)
      assert ours.tobytes() == theirs.tobytes()
    return expected

  def _type(self, x):
    any_size = x.ndim and (x.dtype == np.uint8 or x.shape[0] != self.numpy.size)
    return self._tf.TensorSpec([None] if any_size else x.shape, x.dtype)


def _array(x):
  """NumPy has whole numbers of several widths where graphs have int32."""
  x = np.asarray(x)
  return x.astype(np.int32) if x.ndim == 0 and x.dtype.kind == 'i' else x


def base(xp, session, copy):
  return session.base(xp, copy, FIRST)


def from_base(xp, session, record):
  return session.from_base(xp, record)


def upload(xp, session, copy, update, client):
  return session.upload(xp, copy, update, client)


def read(xp, session, number, client, kept, message):
  return session.read(xp, number, client, kept, message)


def change(xp, session, copy, mean, bits, next_bits, key_frame):
  rate = xp.constant(0.7, np.float32)
  return session.change(xp, copy, mean, learning_rate=rate, bits=bits, next_bits=next_bits, key_frame=key_frame)


def advance(xp, session, copy, record):
  return session.advance(xp, copy, record)


def kept(xp, session, copy):
  return xp.integer(session.kept(xp, copy))


def one_round(pair, copy, rng, number, bits, key_frame):
  """The copy after a round of two clients, and (uploads, change, base) of it."""
  k = pair.both(kept, copy)
  uploads, total = [], np.zeros(k, np.float32)
  for client in CLIENTS[:2]:
    update = (rng.standard_normal(pair.numpy.size) * 10.0**rng.integers(-6, 2)).astype(np.float32)
    uploads.append(pair.both(upload, copy, update, np.int32(random.signed(client))))
    total += pair.both(read, np.int32(number), np.int32(random.signed(client)), k, uploads[-1])
  record = pair.both(change, copy, total / 2, np.int32(bits), np.int32(1 + (number + 1) % 4), np.bool_(key_frame))
  copy, frame = pair.both(advance, copy, record)
  return copy, (uploads, record, frame)


@pytest.mark.parametrize('size, momentum', [(1, 0.9), (15, 0.0), (300, 0.9), (1000, 0.0), (100_003, 0.9)])
def test_every_message_and_model_of_a_session_is_the_same(size, momentum):
  rng = np.random.default_rng(size)
  pair = Pair(size, momentum=momentum, rate=Rate(noise=None, first=float(rng.uniform(0.01, 0.5)), floor=1))
  # The first energy is a sum in double precision: the server takes it, and everybody else from the base.
  copy = pair.numpy.begin(numpy_ops, (rng.standard_normal(size) / 20).astype(np.float32), 1)
  known = pair.both(from_base, pair.both(base, copy))
  assert known['model'].tobytes() == copy['model'].tobytes()
  for number in range(5):
    copy, (_, _, frame) = one_round(pair, copy, rng, number, bits=1 + number % 4, key_frame=number == 3)
    assert bool(len(frame)) == (number == 3)
    if len(frame):
      known = pair.both(from_base, frame)
      for name in ('model', 'velocity') if momentum else ('model',):
        assert known[name].tobytes() == copy[name].tobytes()


def next_scale(xp, session, copy, total, clients, bits):
  return session.sums.mean(xp, copy, total, clients), session.next_scale(xp, copy, total, clients, bits)


def scaled_change(xp, session, copy, mean, scale, bits):
  return session.change(xp, copy, mean, learning_rate=xp.constant(1, np.float32), bits=bits, next_bits=bits,
                        key_frame=xp.cast(xp.constant(0, np.int32), np.bool_), next_scale=scale)


def placement(xp, session, held, number, target, bits):
  return session.placement(xp, held, number, target, bits=bits, next_bits=xp.constant(3, np.int32))


def place(xp, session, held, record):
  return session.place(xp, held, record)


@pytest.mark.parametrize('size', [1, 300, 5000])
def test_integer_sums_are_the_same(size):
  rng = np.random.default_rng(size)
  pair = Pair(size, sums=IntegerSums(), rate=Rate(noise=None, first=0.3, floor=1))
  copy = pair.numpy.begin(numpy_ops, (rng.standard_normal(size) / 20).astype(np.float32), 2)
  assert pair.both(from_base, pair.both(base, copy))['scale'] == copy['scale']
  for number in range(4):
    k, total = pair.both(kept, copy), 0
    for client in CLIENTS:
      update = (rng.standard_normal(size) * 10.0**rng.integers(-6, 2)).astype(np.float32)
      message = pair.both(upload, copy, update, np.int32(random.signed(client)))
      total = total + pair.both(read, np.int32(number), np.int32(random.signed(client)), k, message)
    mean, scale = pair.both(next_scale, copy, total, np.float32(3), np.int32(4))
    copy, _ = pair.both(advance, copy, pair.both(scaled_change, copy, mean, scale, np.int32(4)))


@pytest.mark.parametrize('sums', [{}, {'sums': IntegerSums()}])
@pytest.mark.parametrize('size', [1, 300, 5000])
def test_placements_are_the_same(size, sums):
  rng = np.random.default_rng(size)
  pair = Pair(size, momentum=0.9, rate=Rate(noise=None, first=0.3, floor=1), **sums)
  held = pair.numpy.begin(numpy_ops, (rng.standard_normal(size) / 20).astype(np.float32), 3)
  for bits in range(4, 9):
    target = rng.standard_normal(int(pair.numpy.kept(numpy_ops, held))).astype(np.float32)
    present = pair.both(place, held, pair.both(placement, held, np.int32(40 * bits), target, np.int32(bits)))
    assert present['round'] == 40 * bits
    message = pair.both(upload, present, (held['model'] * np.float32(0.1)), np.int32(5))
    pair.both(read, np.int32(40 * bits), np.int32(5), np.int32(target.size), message)


def rule(xp, session, state, number, share):
  """(k, the rule after a round whose change has a share of the first energy)."""
  k = xp.integer(session.rate.kept(xp, session.space, state, number))
  return k, session.rate.after(xp, session.space, state, k, xp.opaque(state['energy']) * share, number)


@pytest.mark.parametrize('size, noise, factor', [
    (5000, 0.3, None), (38_282, 0.3, None), (1_199_882, 1.5, None), (38_282, 0.3, 0.4)])
def test_the_rule_gives_the_same_k_for_200_rounds(size, noise, factor):
  rule_of_k = Rate(noise=None if factor else noise, signal=factor, rounds=180, most=0.5)
  rng, pair = np.random.default_rng(size), Pair(size, rate=rule_of_k)
  state = pair.numpy.rate.begin(numpy_ops, np.float64(rng.uniform(0.1, 100)))
  found = set()
  for number in range(200):
    # Changes of falling energy, and some that are much larger than the others.
    kept = pair.numpy.rate.kept(numpy_ops, pair.numpy.space, state, number)
    signal = rng.exponential(noise / 2000) * 0.99**number * (30 if number % 40 == 7 else 1)
    share = np.float64(signal * pair.numpy.space.padded / kept)
    k, state = pair.both(rule, state, np.int32(number), share)
    assert k % pair.numpy.space.unit == 0 and 0 < k <= pair.numpy.space.padded
    found.add(int(k))
  assert len(found) > 3


def grown(xp, session, state, record, base, key_frame):
  """A history after a change, and after a key frame that may follow it."""
  del session
  digest = xp.constant([1, 2, 3, 4], np.uint8)
  state = history.with_change(xp, state, record, digest)
  return xp.cond(key_frame, lambda: history.with_base(xp, state, base, digest), lambda: state)


def ways(xp, session, state, placed, versions):
  """For each of three versions, the way and what it costs, without and with a placement."""
  del session
  placed = history.with_placement(xp, state, placed, xp.constant([5, 6, 7, 8], np.uint8))
  return [(history.way(xp, of, versions[i]), xp.integer(history.cost(xp, of, versions[i])))
          for of in (state, placed) for i in range(3)]


def test_histories_and_ways_are_the_same():
  rng, pair = np.random.default_rng(0), Pair(2)
  record = lambda longest: rng.integers(0, 256, rng.integers(0, longest), dtype=np.uint8)
  state = history.begin(numpy_ops, record(300), np.zeros(4, np.uint8))
  for number in range(60):
    state = pair.both(grown, state, record(150), record(400), np.bool_(number % 9 == 8))
    versions = np.asarray([-1, number + 1, rng.integers(0, number + 2)], np.int32)
    for message, cost in pair.both(ways, state, record(90), versions):
      assert len(message) == cost


def ended(xp, session, state, record):
  """A history after a change, where there are no key frames."""
  del session
  digest = xp.constant([1, 2, 3, 4], np.uint8)
  return endings.with_change(xp, state, record, xp.zeros([0], np.uint8), digest, None)


def test_histories_without_key_frames_end_at_the_same_limit(monkeypatch):
  import tensorflow as tf
  monkeypatch.setattr(history, 'MOST_BYTES', 40)
  pair = Pair(2)
  state = history.begin(numpy_ops, np.zeros(9, np.uint8), np.zeros(4, np.uint8))
  for _ in range(4):
    state = pair.both(ended, state, np.zeros(9, np.uint8))
  with pytest.raises(PayloadError, match='more than 40 bytes'):
    ended(numpy_ops, pair.numpy, state, np.zeros(9, np.uint8))
  with pytest.raises(tf.errors.InvalidArgumentError, match='more than 40 bytes'):
    pair._functions[ended](*map(tf.constant, tf.nest.flatten([state, np.zeros(9, np.uint8)])))
