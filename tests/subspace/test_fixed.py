"""A model in fixed coordinates: one record for any gap, exact rotations, and everybody's model the same bit for bit."""

import collections

import numpy as np
import pytest

from tff_compress import codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace import fixed
from tff_compress.subspace import whole_numbers
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.session import FIRST
from tff_compress.subspace.session import Session
from tff_compress.timeline import history

SIZE, SEED = 3072, 11


def _session(momentum=0.0, **rate):
  spec = Spec.of({'w': np.zeros([48, 64], np.float32)})
  float32 = codec('float32')
  rule = Rate(**{'noise': None, 'first': 0.2, 'floor': 256, **rate})
  return Session(SIZE, SEED, rule, momentum, NumpyRuntime(spec, SEED, float32, float32))


def _model(seed=0):
  return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


class _Server:
  """A run in NumPy whose subspace is fixed from round `switch` on."""

  def __init__(self, session, switch=0, momentum=0.0):
    self.session, self.switch, self.momentum = session, switch, momentum
    self.copy = session.begin(xp, _model(), 1)
    self.past = history.begin(xp, session.base(xp, self.copy, FIRST), session.digest(xp, self.copy))
    self.fixed = fixed.begin(xp, momentum)

  def held(self):
    return collections.OrderedDict(self.copy, model=self.fixed['anchor'], round=self.copy['anchor'])

  def round(self, updates):
    session, copy = self.session, self.copy
    kept = session.kept(xp, copy)
    messages = {client: session.upload(xp, copy, update, np.int32(client)) for client, update in updates.items()}
    mean = np.mean([session.read(xp, copy['round'], np.int32(client), kept, message)
                    for client, message in messages.items()], 0, np.float32)
    if copy['round'] < self.switch:
      record = session.change(xp, copy, mean, learning_rate=np.float32(1), bits=1, next_bits=1, key_frame=False)
      self.copy = session.move(xp, copy, record)
      self.past = history.with_change(xp, self.past, record, session.digest(xp, self.copy))
      return
    change = mean * np.float32(session.space.padded / kept)
    self.fixed = fixed.moved(xp, self.fixed, copy['model'], change, self.momentum)
    self.copy = collections.OrderedDict(copy, anchor=copy.get('anchor', copy['round']))
    record = session.placement(xp, self.held(), self.copy['round'] + 1, self.fixed['target'], bits=8, next_bits=1)
    self.copy = session.place(xp, self.held(), record)
    self.past = history.with_placement(xp, self.past, record, session.digest(xp, self.copy))


class _Client:

  def __init__(self, session):
    self.session, self.held, self.version, self.received = session, None, history.UNKNOWN, []

  def follow(self, server):
    message = history.way(xp, server.past, self.version)
    self.received.append(message.size)
    self.held, present = history.follow(
        xp, message, self.held, on_base=lambda record: self.session.from_base(xp, record),
        on_change=lambda copy, record: self.session.move(xp, copy, record),
        on_placement=lambda copy, record: self.session.place(xp, copy, record))
    self.version = int(self.held['round'])
    np.testing.assert_array_equal(self.session.digest(xp, present), history.digest_in(message))
    return present


def _updates(server, clients, goal, seed):
  noise = np.random.default_rng(seed)
  return {client: (0.05 * (server.copy['model'] - goal)
                   + 0.01 * noise.normal(size=SIZE)).astype(np.float32) for client in clients}


@pytest.mark.parametrize('momentum', [0.0, 0.5])
@pytest.mark.parametrize('switch', [0, 3])
def test_after_any_gap_one_record_gives_the_servers_model_bit_for_bit(switch, momentum):
  session = _session(momentum=momentum if switch else 0.0)
  server, goal = _Server(session, switch, momentum), _model(1)
  often, never, rarely = _Client(session), _Client(session), _Client(session)
  for number in range(12):
    present = often.follow(server)
    np.testing.assert_array_equal(present['model'], server.copy['model'])
    assert (int(present['round']), int(present['bits'])) == (number, 1)
    if number in (switch, 11):
      np.testing.assert_array_equal(rarely.follow(server)['model'], server.copy['model'])
    server.round(_updates(server, [1, 2, 3], goal, number))
  np.testing.assert_array_equal(never.follow(server)['model'], server.copy['model'])
  kept = session.kept(xp, server.copy)
  placement = history.HEADER_BYTES + 2 + 4 + kept
  assert rarely.received[1] == often.received[-1] == placement
  assert rarely.version == often.version == never.version == switch



def test_the_fixed_form_learns_what_lies_in_its_coordinates():
  session = _session()
  server, goal = _Server(session), _model(1)
  first = server.copy['model'] - goal
  for number in range(30):
    server.round(_updates(server, range(5), goal, number))
  keys, kept = MessageKeys(SEED, 0, 0), session.kept(xp, server.copy)
  before = session.space.project(xp, keys, first, kept)
  after = session.space.project(xp, keys, server.copy['model'] - goal, kept)
  assert np.linalg.norm(after) < 0.1 * np.linalg.norm(before)
  # What lies outside stays as it was.
  outside = lambda x, inside: np.sum(np.square(x, dtype=np.float64)) - np.sum(np.square(inside, dtype=np.float64))
  assert outside(server.copy['model'] - goal, after) == pytest.approx(outside(first, before), rel=1e-3)


def test_momentum_moves_as_a_sum_of_falling_powers():
  state, total = fixed.begin(xp, 0.5), 0.0
  changes = np.random.default_rng(0).normal(size=[6, 256]).astype(np.float32)
  for change in changes:
    state = fixed.moved(xp, state, _model(), change, 0.5)
  for i, change in enumerate(changes):
    total = total + change * (1 - 0.5**(6 - i)) / 0.5
  np.testing.assert_allclose(state['target'], total, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(state['anchor'], _model())


@pytest.mark.parametrize('bits', range(fixed.LEAST_BITS, 9))
def test_error_of_a_placement_is_that_of_the_least_error_scale(bits):
  y = np.random.default_rng(bits).normal(size=1 << 16).astype(np.float32) * np.float32(3e-5)
  record = fixed.encode(xp, y, np.int32(300), bits, 2)
  numbers, scale, rounds, following = fixed.decode(xp, record, y.size)
  assert (int(rounds), int(following)) == (300, 2)
  assert record.size == 5 + y.size * bits // 8
  error = np.sum(np.square(numbers * scale - y, dtype=np.float64)) / np.sum(np.square(y, dtype=np.float64))
  assert error == pytest.approx(whole_numbers.DISTORTION[bits], rel=0.05)


def test_placements_of_any_size_are_exact():
  """The scale of many coordinates is coarser: ||q|| is never above 2^14."""
  y = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
  numbers, scale, _, _ = fixed.decode(xp, fixed.encode(xp, y, 1, 8, 1), y.size)
  assert 0.5 * 2**28 < np.sum(np.square(numbers, dtype=np.int64)) <= 2**28
  np.testing.assert_allclose(numbers * scale, y, atol=float(scale))


@pytest.mark.parametrize('numbers', ['normal', 'largest', 'meeting'])
def test_the_lift_of_whole_numbers_is_exact_as_long_as_squares_allow(numbers):
  size, kept = 40 * 1024, 16 * 1024
  space, keys, rng = Coordinates(size), MessageKeys(SEED, 5, 0), np.random.default_rng(3)
  q = np.rint(np.clip(rng.normal(size=kept) * 32, -127, 127)).astype(np.int32)
  if numbers == 'largest':
    q = np.where(q >= 0, 127, -127).astype(np.int32)
  elif numbers == 'meeting':
    q = _worst(space, keys, kept)
  assert np.sum(np.square(q, dtype=np.int64)) <= fixed.MOST_SQUARES
  lifted = space.lift(xp, keys, q.astype(np.float32))
  np.testing.assert_array_equal(lifted, _lifted_in_integers(space, keys, q) / 1024)


def _worst(space, keys, kept):
  """Numbers of which as much as possible meets in one value."""
  unit = np.zeros(space.size, np.float32)
  unit[12345] = 1
  return np.where(space.project(xp, keys, unit, kept) >= 0, 127, -127).astype(np.int32)


def _lifted_in_integers(space, keys, q):
  """1024 times the lift, in whole numbers, from lifts of digits so small that float32 is exact without doubt."""
  lifted = lambda digits: np.rint(space.lift(xp, keys, digits.astype(np.float32)).astype(np.float64) * 1024)
  of_digits = sum(4**place * lifted((q + 127) >> 2 * place & 3) for place in range(4))
  return of_digits - 127 * lifted(np.ones_like(q))


@pytest.mark.parametrize('harm', ['short', 'bits', 'round', 'longer', 'number'])
def test_what_is_no_placement_is_refused(harm):
  y = np.random.default_rng(0).normal(size=1024).astype(np.float32)
  record = np.array(fixed.encode(xp, y, 1, 8, 1))
  if harm == 'short':
    record = record[:3]
  elif harm == 'bits':
    record[0] = 9 + 16
  elif harm == 'round':
    record[3] = 0
  elif harm == 'longer':
    record = np.concatenate([record, [np.uint8(0)]])
  else:
    record[4] = 255
  with pytest.raises(PayloadError):
    fixed.decode(xp, record, y.size)


def test_a_placement_whose_rotation_would_not_be_exact_is_refused():
  kept = 1 << 15
  largest = np.concatenate([np.array([8 + 16, 0, 0x3F, 1], np.uint8), np.full(kept, 254, np.uint8)])
  with pytest.raises(PayloadError, match='exact'):
    fixed.decode(xp, largest, kept)
