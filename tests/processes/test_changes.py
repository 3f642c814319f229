"""Downlinks of changes as graph functions: every client's copy is the server's model, bit for bit, whoever took
part."""

import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import counts
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes import Changes
from tff_compress.processes import ProcessError
from tff_compress.processes.down.changes import change_messages
from tff_compress.timeline.history import HEADER_BYTES
from tff_compress.timeline.history import UNKNOWN

pytestmark = pytest.mark.xdist_group('tff')

ROUNDS, CLIENTS = 12, 4
SPEC = codec_lib.Spec.of(
    {'w': np.zeros((10, 20), np.float32), 'b': np.zeros(7, np.float32), 'n': np.zeros(2, np.int32)})
START = [np.linspace(-1, 1, 200, dtype=np.float32).reshape(10, 20), np.zeros(7, np.float32), np.int32([1, 2])]


class Downlink:
  """The functions of `change_messages`, each traced once."""

  def __init__(self, changes, spec=SPEC):
    self.messages = change_messages(changes, spec, seed=5)
    for name in ('initial', 'restart', 'advance', 'send', 'receive'):
      setattr(self, name, tf.function(getattr(self.messages, name), reduce_retracing=True))


@pytest.fixture(scope='module', params=['concat | topk:1/20 | float32', 'hadamard | uniform:bits=2 | pack'])
def downlink(request):
  return Downlink(Changes(request.param))


def equal(a, b):
  return all(np.array_equal(x, y) for x, y in zip(a, b))


patterns = st.lists(st.lists(st.booleans(), min_size=CLIENTS, max_size=CLIENTS), min_size=1, max_size=ROUNDS)


@hypothesis.settings(max_examples=8)
@hypothesis.given(patterns, st.integers(0, ROUNDS))
def test_copies_are_identical_whatever_the_participation(downlink, pattern, replaced_at):
  """Also when the server's model is replaced between two rounds."""
  rng = np.random.default_rng(len(pattern))
  model = [tf.constant(w) for w in START]
  state = downlink.initial(model)
  clients = [(UNKNOWN, [tf.zeros_like(w) for w in START]) for _ in range(CLIENTS)]
  frames = {}
  target = model
  for round_number, present in enumerate(pattern):
    if round_number == replaced_at:
      model = target = [w * 2 for w in model]
      state = downlink.restart(state, model)
      frames = {}
    past = state['history']
    now = int(past['version'])
    for client in range(CLIENTS):
      if not present[client]:
        continue
      version, copy = clients[client]
      message = downlink.send(past, np.int32(version))
      missed = [frames.get(v) for v in range(version, now)] if version != UNKNOWN else [None]
      listed = None if None in missed else HEADER_BYTES + sum(map(counted, missed))
      # The cheaper of the missed messages and the whole model.
      most = downlink.messages.model_bytes
      assert len(message) == (most if listed is None else min(listed, most))
      copy, _ = downlink.receive(message, copy)
      assert equal(copy, model)
      clients[client] = now, copy
    target = [w + rng.normal(0, 0.1, w.shape).astype(np.float32) if w.dtype.is_floating else w + 1 for w in model]
    state, following = downlink.advance(state, model, target, np.int32(round_number))
    model = list(following)
    past = state['history']
    frames[now] = list(records(past['log']))[-1]
    assert HEADER_BYTES + len(past['log']) <= downlink.messages.model_bytes
    np.testing.assert_array_equal(model[2], target[2])  # Whole numbers lose nothing.


def records(log):
  """The frames in a log or behind the head of a message."""
  rest = np.asarray(log)
  while rest.size:
    record, rest = counts.take(numpy_ops, rest)
    yield record.tobytes()


def counted(record):
  """Bytes of a record and its count."""
  return len(record) + (1 if len(record) < 128 else 2)


def test_what_a_message_loses_is_sent_later(downlink):
  """The server's E += x; C = codec(E); E -= C: the model less the residual is the sum of all that came in."""
  model = [tf.constant(w) for w in START]
  state = downlink.initial(model)
  moves = [np.random.default_rng(i).normal(0, 1, (10, 20)).astype(np.float32) for i in range(8)]
  for number, move in enumerate(moves):
    target = [state['target'][0] + move, *state['target'][1:]]
    state, model = downlink.advance(state, model, target, np.int32(number))
    residual = state['target'][0] - model[0]
    np.testing.assert_allclose(model[0] + residual, START[0] + sum(moves[:number + 1]), atol=1e-4)
  assert np.abs(residual).max() > 0.01
  forgetful = Downlink(Changes('concat | topk:1/20 | float32', residual=False))
  state, model = forgetful.advance(forgetful.initial(START), START, target, np.int32(0))
  assert equal(state['target'], model) and not equal(model, START)


def test_a_message_is_the_frames_that_numpy_reads(downlink):
  state = downlink.initial(START)
  target = [w + 1 if w.dtype == np.int32 else w + np.sin(np.arange(w.size, dtype=np.float32)).reshape(w.shape)
            for w in START]
  model = START
  for number in (3, 4):
    state, model = downlink.advance(state, model, [t * (number - 2) for t in target], np.int32(number))
  past = state['history']
  message = downlink.send(past, np.int32(0)).numpy().tobytes()
  copy = dict(zip('wbn', START))
  assert message[0] == 0
  found = list(records(np.frombuffer(message, np.uint8)[HEADER_BYTES:]))
  for number, record in zip((3, 4), found, strict=True):
    change, _ = wire.unpack(str(downlink.messages._changes.codec), record, SPEC, seed=5, round=number,
                            client=codec_lib.SHARED_CLIENT)
    copy = {name: copy[name] + change[name] for name in 'wbn'}
  for name, w in zip('wbn', model):
    np.testing.assert_allclose(copy[name], w, atol=1e-5)
  whole = downlink.send(past, np.int32(UNKNOWN)).numpy().tobytes()
  assert whole[0] == 1 and len(whole) == downlink.messages.model_bytes
  base, = records(np.frombuffer(whole, np.uint8)[HEADER_BYTES:])
  read, _ = wire.unpack('float32', base, SPEC, seed=5, client=codec_lib.SHARED_CLIENT)
  assert all(np.array_equal(read[name], w) for name, w in zip('wbn', model))
  # The digest is of the copy that both come to.
  fingerprint = downlink.messages._changes.codec.fingerprint(SPEC)
  digest = zlib.crc32(fingerprint + b''.join(np.asarray(w).tobytes() for w in model))
  assert message[1:5] == whole[1:5] == digest.to_bytes(4, 'little')


def test_a_version_from_the_future_gets_the_whole_model(downlink):
  state = downlink.initial(START)
  assert len(downlink.send(state['history'], np.int32(9))) == downlink.messages.model_bytes


def test_a_copy_that_is_not_the_servers_is_found_out(downlink):
  state, model = downlink.advance(downlink.initial(START), START, [w + 1 for w in START], np.int32(0))
  kept = [np.array(w) for w in START]
  message = downlink.send(state['history'], np.int32(0))
  downlink.receive(message, kept)
  kept[0][3, 3] += np.float32(2.0**-20)
  with pytest.raises(tf.errors.InvalidArgumentError, match='another model than the server has'):
    downlink.receive(message, kept)
  with pytest.raises(tf.errors.InvalidArgumentError):
    downlink.receive(tf.concat([message[:9], [message[9] ^ 1], message[10:]], 0), START)
  for wrong in (message[:4], tf.concat([[np.uint8(2)], message[1:]], 0), tf.concat([message, [np.uint8(5)]], 0)):
    with pytest.raises(tf.errors.InvalidArgumentError):
      downlink.receive(wrong, START)


@pytest.mark.parametrize('since', ['last', 'start'])
def test_what_a_frame_of_float32_cannot_hold_is_nobodys(since):
  """Denormals, -0 and the lower digits of float64: whoever starts with the whole model goes on with the same bits."""
  spec = codec_lib.Spec.of({'w': np.zeros(5, np.float32), 'd': np.zeros(3, np.float64), 'u': np.zeros(4, np.uint8)})
  model = [np.float32([-0.0, 1e-40, 1.5, -1e-39, 2]), np.array([1 / 3, 1e-300, 7]), np.uint8([1, 2, 3, 4])]
  downlink = Downlink(Changes('float32', since=since), spec)
  state = downlink.initial(model)
  now = model
  kept = [np.zeros_like(w) for w in model]
  for number in range(3):
    version = UNKNOWN if number != 1 else int(state['history']['version']) - (since == 'last')
    copy, kept = downlink.receive(downlink.send(state['history'], np.int32(version)), kept)
    if number:
      assert equal(copy, now)
    target = [w + np.asarray(w.dtype.type(1 / 3 + number), w.dtype) for w in model]
    state, now = downlink.advance(state, now, target, np.int32(number))


KERNELS = codec_lib.Spec.of(
    {'k': np.zeros((3, 3, 2, 4), np.float32), 'b': np.zeros(7, np.float32), 'n': np.zeros(2, np.int32)})


class PooledChanges:
  """A server whose model moves in the pooled subspace, as with the uplink `rpn`; it sends what changed since the
  start."""

  def __init__(self, **kwargs):
    self.downlink = Downlink(Changes('rpn', since='start', **kwargs), KERNELS)
    rng = np.random.default_rng(8)
    self.start = [rng.standard_normal((3, 3, 2, 4)).astype(np.float32), np.zeros(7, np.float32), np.int32([1, 2])]
    self.model, self.state, self.round = self.start, self.downlink.initial(self.start), 0
    self.moves = []

  def advance(self, rounds=1):
    for _ in range(rounds):
      rng = np.random.default_rng(self.round)
      means = rng.normal(0, 0.1, (1, 1, 2, 4)).astype(np.float32)
      move = [np.broadcast_to(means, (3, 3, 2, 4)), rng.normal(0, 0.1, 7).astype(np.float32), np.int32([1, -3])]
      target = [w + m for w, m in zip(self.state['target'], move)]
      self.state, self.model = self.downlink.advance(self.state, self.model, target, np.int32(self.round))
      self.round += 1
      self.moves.append(move)

  def send(self, version):
    return self.downlink.send(self.state['history'], np.int32(version))


def test_one_message_of_constant_size_makes_any_number_of_missed_rounds_good():
  """Lemma 2: the start and the sum of all that was missed, but for roundings; copies are the same bit for bit."""
  server = PooledChanges()
  first = server.send(UNKNOWN)
  assert len(first) == server.downlink.messages.model_bytes  # Nothing has changed yet.
  model, start = server.downlink.receive(first, [tf.zeros_like(w) for w in server.start])
  assert equal(model, server.start) and equal(start, server.start)
  sizes = set()
  for missed in (1, 1, 5, 50):
    server.advance(missed)
    message = server.send(0)
    sizes.add(len(message))
    model, start = server.downlink.receive(message, start)
    assert equal(model, server.model) and equal(start, server.start)
    for ours, origin, *moves in zip(model, server.start, *server.moves):
      np.testing.assert_allclose(ours, origin + sum(moves), atol=2e-6)
  assert sizes == {HEADER_BYTES + 1 + wire.FRAME_OVERHEAD + 4 * (8 + 7 + 2)}
  late = server.send(UNKNOWN)
  assert len(late) == server.downlink.messages.model_bytes + sizes.pop() - HEADER_BYTES
  latecomer, origin = server.downlink.receive(late, [tf.zeros_like(w) for w in server.start])
  assert equal(latecomer, server.model) and equal(origin, server.start)


def test_a_start_that_is_not_the_servers_is_sent_anew():
  server = PooledChanges()
  server.advance(3)
  known = len(server.send(0))
  replaced = [w * 2 for w in server.model]
  server.state, server.model = server.downlink.restart(server.state, replaced), replaced
  for version in (0, 9, UNKNOWN):  # That of the old start, one from the future, and none.
    message = server.send(version)
    assert len(message) == server.downlink.messages.model_bytes
    model, start = server.downlink.receive(message, server.start)
    assert equal(model, replaced) and equal(start, replaced)
  server.advance(2)
  assert len(server.send(1)) == known
  assert equal(server.downlink.receive(server.send(1), start)[0], server.model)


@pytest.mark.parametrize('residual', [True, False])
def test_what_lies_outside_the_pooled_subspace_is_lost_but_remembered(residual):
  """M keeps the detail of a kernel that no message shows; without residual it goes on from what clients have."""
  server = PooledChanges(residual=residual)
  detail = np.zeros((3, 3, 2, 4), np.float32)
  detail[0, 0] = 9
  server.state, model = server.downlink.advance(
      server.state, server.model, [server.start[0] + detail, *server.start[1:]], np.int32(0))
  np.testing.assert_allclose(model[0], server.start[0] + 1, atol=1e-5)
  np.testing.assert_allclose(server.state['target'][0], server.start[0] + (detail if residual else 1), atol=1e-5)


def test_the_subspace_of_a_mask_stays_until_the_next_start():
  """With the mask of round 0 in every round, what it keeps is known, scaled by d/k, and the rest does not move."""
  downlink = Downlink(Changes('subsample:1/4 | float32', since='start', step=0.5))
  state, model, moved = downlink.initial(START), START, []
  for number in range(3):
    target = [state['target'][0] + 1, state['target'][1], state['target'][2]]
    state, model = downlink.advance(state, model, target, np.int32(number))
    moved.append(np.asarray(model[0]) - START[0])
    chosen = moved[0] != 0
    assert chosen.sum() == 50
    np.testing.assert_allclose(moved[-1], np.where(chosen, 4 * (number + 1), 0), atol=1e-5)


def test_bad_arguments_are_typed_errors():
  with pytest.raises(codec_lib.CodecError):
    Changes('nonsense')
  with pytest.raises(ProcessError):
    Changes('float32', residual=1)
  with pytest.raises(ProcessError):
    Changes('float32', since='yesterday')
  with pytest.raises(codec_lib.SpecError, match='boolean'):
    change_messages(Changes('float32'), codec_lib.Spec.of({'m': np.zeros(3, bool)}), 1)
