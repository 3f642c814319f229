"""Updates, changes and bases of the shared subspace: right on average, as long as said, and nothing else is read."""

import collections
import tracemalloc

import numpy as np
import pytest

from tests.subspace.runs import same
from tests.subspace.runs import session_of
from tests.subspace.runs import vector
from tff_compress.codec import counts
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import levels
from tff_compress.subspace import session as session_lib
from tff_compress.subspace.session import FIRST
from tff_compress.subspace.session import KEY_FRAME
from tff_compress.subspace.session import START
from tff_compress.timeline.start import Start

BITS = list(levels.LEVELS)
SQUARE = ((64, 64),)  # No filling: P = d.


def _loss(bits):
  """D / (1 - D)."""
  return levels.DISTORTION[bits] / (1 - levels.DISTORTION[bits])


def _copy(session, bits=1, number=0):
  return session.begin(xp, vector(session), bits, number)


def _change(session, copy, mean, bits=1, next_bits=1, key_frame=False, learning_rate=1.0):
  return session.change(xp, copy, mean, learning_rate=np.float32(learning_rate), bits=bits, next_bits=next_bits,
                        key_frame=key_frame)


def _mean(session, copy, seed=5):
  return np.random.default_rng(seed).normal(size=session.kept(xp, copy)).astype(np.float32)


def _read(session, copy, message, client):
  return session.read(xp, copy['round'], client, session.kept(xp, copy), message)


# -- the maths


@pytest.mark.parametrize('bits', BITS)
def test_error_of_a_message_is_that_of_sampling_and_of_the_quantizer(bits):
  """E ||x^ - x||^2 = ((P / k)(1 + D / (1 - D)) - 1) ||x||^2 over 60 rounds."""
  session = session_of(SQUARE, first=0.125)
  x = vector(session, 1)
  found = []
  for number in range(60):
    copy = _copy(session, bits, number)
    kept = session.kept(xp, copy)
    coordinates = _read(session, copy, session.upload(xp, copy, x, 3), 3)
    lifted = session.space.lift(xp, session.runtime.keys(number, 0), coordinates).astype(np.float64)
    found.append(np.sum((lifted * session.size / kept - x)**2) / np.sum(x.astype(np.float64)**2))
  assert kept == 512 and session.space.padded == session.size
  assert np.mean(found) == pytest.approx(8 * (1 + _loss(bits)) - 1, rel=0.03)


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('update', ['normal', 'constant', 'one-value'])
def test_equal_updates_of_all_clients_lose_an_nth_in_the_mean_of_n(bits, update):
  """What the quantizer loses is independent from client to client, so that the error of the mean falls as 1 / n."""
  session, clients = session_of(first=0.5), 64
  x = {'normal': vector(session), 'constant': np.ones(session.size, np.float32),
       'one-value': np.eye(1, session.size, 3, dtype=np.float32)[0]}[update]
  copy = _copy(session, bits, 7)
  exact = session.space.project(xp, session.runtime.keys(7, 0), x, session.kept(xp, copy)).astype(np.float64)
  read = np.stack([_read(session, copy, session.upload(xp, copy, x, client), client) for client in range(clients)])
  one = np.mean(np.sum((read - exact)**2, 1))
  assert one / np.sum(exact**2) == pytest.approx(_loss(bits), rel=0.15)
  for n in (4, 16, 64):
    means = read.astype(np.float64).reshape(clients // n, n, -1).mean(1)
    assert one / np.mean(np.sum((means - exact)**2, 1)) == pytest.approx(n, rel=0.2)


@pytest.mark.parametrize('bits', BITS)
def test_what_the_server_reads_is_right_on_average(bits):
  """z-test over 300 clients' fixed keys."""
  session, clients = session_of(((16, 16),), first=1.0), 300
  copy, x = _copy(session, bits, 2), vector(session, 3)**3
  exact = session.space.project(xp, session.runtime.keys(2, 0), x, 256)
  errors = np.stack([_read(session, copy, session.upload(xp, copy, x, client), client)
                     for client in range(clients)]).astype(np.float64) - exact
  z = errors.mean(0) / (errors.std(0) / np.sqrt(clients))
  # A scale that is rounded to a bfloat16 may be off by 2^-9 for all.
  assert np.mean(z**2) == pytest.approx(1, abs=5 * np.sqrt(2 / 256))


@pytest.mark.parametrize('bits', BITS)
def test_a_change_moves_the_model_by_the_mean_on_average(bits):
  """z-test over 400 rounds, with a learning rate; the error is that of sampling and of the quantizer, once."""
  session, rounds = session_of(((32, 32),), first=0.25), 400
  x = vector(session, 8)
  moved = []
  for number in range(rounds):
    copy = session.begin(xp, np.zeros(session.size, np.float32), bits, number)
    mean = session.space.project(xp, session.runtime.keys(number, 0), x, session.kept(xp, copy))
    moved.append(-session.move(xp, copy, _change(session, copy, mean, bits, learning_rate=0.5))['model'])
  errors = np.stack(moved).astype(np.float64) - 0.5 * x
  z = errors.mean(0) / (errors.std(0) / np.sqrt(rounds))
  assert np.mean(z**2) == pytest.approx(1, abs=5 * np.sqrt(2 / session.size))
  nmse = np.mean(np.sum(errors**2, 1)) / np.sum(0.25 * x.astype(np.float64)**2)
  assert nmse == pytest.approx(4 * (1 + _loss(bits)) - 1, rel=0.03)


def test_the_energy_of_a_change_is_that_of_what_it_moves_in_all_coordinates():
  found, scale = np.array([3, -10, 3], np.int32), np.float32(0.25)
  assert float(session_lib.energy_of(xp, found, scale)) == (9 + 100 + 9) / 16


def test_momentum_moves_the_model_as_a_sum_of_falling_powers():
  """v = m v + c and W -= v, float32, one operation at a time; and the rule counts the changes as that much longer."""
  session, plain = session_of(momentum=0.75), session_of()
  copy, other = _copy(session), _copy(plain)
  velocity = np.zeros(session.size, np.float32)
  spent = lambda after, before: after['rule']['spent'] - before['rule']['spent']
  for number in range(5):
    record = _change(session, copy, _mean(session, copy, number))
    after = session.move(xp, copy, record)
    alone = plain.move(xp, collections.OrderedDict(other, model=np.zeros_like(velocity)), record)
    velocity = velocity * np.float32(0.75) - alone['model']
    np.testing.assert_array_equal(after['velocity'], velocity)
    np.testing.assert_array_equal(after['model'], copy['model'] - velocity)
    assert spent(after, copy) == pytest.approx(16 * spent(alone, other), rel=1e-9)  # (1 - 0.75)^-2.
    copy, other = after, alone


# -- sizes, and an empty round


@pytest.mark.parametrize('bits', BITS)
def test_messages_are_as_long_as_documented(bits):
  session = session_of()
  copy = _copy(session, bits)
  kept = session.kept(xp, copy)
  assert session.upload(xp, copy, vector(session), 1).size == 7 + kept * bits // 8 == (
      session_lib.UPLOAD_OVERHEAD + levels.size(kept, bits))
  assert _change(session, copy, _mean(session, copy), bits).size == 3 + kept * bits // 8 == (
      session_lib.CHANGE_OVERHEAD + levels.size(kept, bits))


def test_a_record_of_no_bytes_is_a_round_in_which_the_model_stays():
  session = session_of(momentum=0.5)
  copy = session.move(xp, _copy(session), _change(session, _copy(session), _mean(session, _copy(session))))
  after = session.move(xp, copy, np.zeros(0, np.uint8))
  assert after['round'] == copy['round'] + 1
  assert same(session, after, collections.OrderedDict(copy, round=copy['round'] + 1))


@pytest.mark.parametrize('next_bits', BITS)
def test_a_change_says_the_bits_of_the_next_messages(next_bits):
  session = session_of()
  copy = _copy(session)
  after = session.move(xp, copy, _change(session, copy, _mean(session, copy), next_bits=next_bits))
  assert after['bits'] == next_bits
  assert session.upload(xp, after, vector(session), 1)[0] == next_bits


def test_a_change_may_say_that_the_model_is_coded_as_a_key_frame_gives_it():
  for momentum in (0.0, 0.5):
    session = session_of(momentum=momentum)
    copy = _copy(session)
    plain, coded = (_change(session, copy, _mean(session, copy), key_frame=flag) for flag in (False, True))
    assert coded[0] == plain[0] + 128
    after = session.move(xp, copy, coded)
    assert same(session, session.from_base(xp, session.advance(xp, copy, coded)[1]), after)
    assert not same(session, session.move(xp, copy, plain), after)
    assert session.advance(xp, copy, plain)[1].size == 0
    np.testing.assert_allclose(after['model'], session.move(xp, copy, plain)['model'], atol=0.1)


# -- bases


def _bases(session):
  """{kind: (base, the copy that it gives)}."""
  start = Start.like(np.split(vector(session, 4), [960]), 3)
  drawn = start.vector(session.runtime.spec)
  first, began = _copy(session, 2, 6), session.begin(xp, drawn, 3)
  record = _change(session, first, _mean(session, first), key_frame=True)
  return {
      START: (session.base(xp, began, START, np.frombuffer(start.to_bytes(), np.uint8)), began),
      KEY_FRAME: session.advance(xp, first, record)[::-1],
      FIRST: (session.base(xp, first, FIRST), first),
  }


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_a_base_gives_the_servers_copy_bit_for_bit(momentum):
  session = session_of(momentum=momentum)
  for kind, (base, copy) in _bases(session).items():
    assert base[0] == kind
    assert same(session, session.from_base(xp, base), copy)
    assert same(session, session.from_content(xp, session.content(xp, copy)), copy)


def test_two_copies_that_differ_in_a_bit_have_different_digests():
  session = session_of(momentum=0.5)
  copy = _copy(session)
  content = session.content(xp, copy)
  digests = {bytes(session.digest(xp, copy))}
  for byte in [*range(29), 29, 30, len(content) // 2, len(content) - 1]:
    changed = content.copy()
    changed[byte] ^= 1
    try:
      digests.add(bytes(session.digest(xp, session.from_content(xp, changed))))
    except PayloadError:
      digests.add(byte)
  assert len(digests) == 34


def test_runs_that_agree_on_something_else_have_other_fingerprints():
  sessions = [session_of(), session_of(seed=12), session_of(momentum=0.5), session_of(first=0.25),
              session_of(noise=1.0), session_of(((30, 40),))]
  assert len({session.fingerprint for session in sessions}) == len(sessions)
  assert len({bytes(s.digest(xp, s.begin(xp, np.zeros(1000, np.float32), 1))) for s in sessions[:-1]}) == 5


# -- hostile bytes


def _harmed(data, rng):
  """Byte strings that were cut off anywhere, have one bit flipped, or bytes behind them."""
  for length in range(len(data)):
    yield data[:length]
  for _ in range(300):
    changed = data.copy()
    changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
    yield changed
  yield np.append(data, np.uint8(0))
  yield np.append(data, data)


@pytest.mark.parametrize('bits', BITS)
def test_a_message_that_was_changed_or_is_anybody_elses_is_refused(bits):
  session = session_of()
  copy = _copy(session, bits, 4)
  message, kept = session.upload(xp, copy, vector(session), 9), session.kept(xp, copy)
  session.read(xp, 4, 9, kept, message)
  for bad in _harmed(message, np.random.default_rng(0)):
    with pytest.raises(PayloadError):
      session.read(xp, 4, 9, kept, bad)
  other = session_of(seed=12)
  for reader, number, client, k in ((session, 5, 9, kept), (session, 4, 8, kept), (other, 4, 9, kept),
                                    (session, 4, 9, 2 * kept), (session, 4, 9, kept - 256),
                                    (session, 4, 9, 2**31 - 256)):
    with pytest.raises(PayloadError):
      reader.read(xp, number, client, k, message)


def _signed(session, body, number, client):
  """A message with the right checksum."""
  return np.concatenate([body, session._check(xp, number, client, body)])


@pytest.mark.parametrize('head', [[0, 0, 0], [5, 0, 0], [255, 0, 0], [1, 0x80, 0x7F], [1, 0xC0, 0x7F], [1, 0x80, 0xBF],
                                  [1, 0, 0x6C]])
def test_absurd_bits_and_scales_are_refused_even_where_the_checksum_is_right(head):
  """Bits 0, 5 and 255; scales that are infinite, no number, -1, and 2^89."""
  session = session_of()
  copy = _copy(session)
  kept = session.kept(xp, copy)
  body = np.concatenate([np.array(head, np.uint8), np.zeros(kept // 8, np.uint8)])
  with pytest.raises(PayloadError):
    session.read(xp, 0, 1, kept, _signed(session, body, 0, 1))
  with pytest.raises(PayloadError):
    session.move(xp, copy, np.concatenate([np.array([head[0] % 8 + 8, *head[1:]], np.uint8), body[3:]]))


def test_a_change_that_was_changed_is_refused_or_leads_to_a_copy_of_another_digest():
  session = session_of(momentum=0.5)
  copy = _copy(session)
  record = _change(session, copy, _mean(session, copy))
  digest = bytes(session.digest(xp, session.move(xp, copy, record)))
  for bad in _harmed(record, np.random.default_rng(1)):
    try:
      assert bytes(session.digest(xp, session.move(xp, copy, bad))) != digest
    except PayloadError:
      continue
  # No bits for the next messages, 5, 7; and a bit without a meaning.
  for flags in (1, 1 + 8 * 5, 1 + 8 * 7, 1 + 8 + 64):
    with pytest.raises(PayloadError):
      session.move(xp, copy, np.concatenate([np.array([flags], np.uint8), record[1:]]))


def test_a_base_that_was_changed_is_refused_or_leads_to_a_copy_of_another_digest():
  session = session_of(momentum=0.5)
  rng = np.random.default_rng(2)
  for base, copy in _bases(session).values():
    digest = bytes(session.digest(xp, copy))
    # All of what a base says before its frames, and some of these.
    heads = [np.concatenate([bad, base[40:]]) for bad in _harmed(base[:40], rng) if len(bad) == 40]
    cut = [base[:n] for n in [*range(60), *rng.integers(0, len(base), 20)] if n < len(base)]
    longer = [np.append(base, np.uint8(0)), np.append(base, base)]
    for bad in (*heads, *cut, *longer):
      try:
        assert bytes(session.digest(xp, session.from_base(xp, bad))) != digest
      except PayloadError:
        continue
    for bad in (*cut, *longer):
      with pytest.raises(PayloadError):
        session.from_base(xp, bad)


@pytest.mark.parametrize('place, value', [
    (1, [0, 0, 0, 128]), (5, [0]), (5, [5]), (6, np.float64([np.nan]).tobytes()), (14, np.float64([-1]).tobytes()),
    (22, np.float64([np.inf]).tobytes()), (6, np.float64([2.0**257]).tobytes())])
def test_a_base_with_facts_that_no_copy_has_is_refused(place, value):
  """Round 2^31, 0 and 5 bits, energies that are no number, negative, infinite, and too large."""
  session = session_of()
  base, _ = _bases(session)[FIRST]
  value = np.frombuffer(bytes(value), np.uint8)
  base[place:place + value.size] = value
  with pytest.raises(PayloadError):
    session.from_base(xp, base)


def test_a_base_of_another_model_or_seed_is_refused():
  session = session_of()
  for other in (session_of(((40, 24), (40,))), session_of(((24, 40), (41,)))):
    with pytest.raises(PayloadError):
      session.from_base(xp, _bases_of_other(other))


def _bases_of_other(other):
  return other.base(xp, other.begin(xp, vector(other), 1), FIRST)


def test_lengths_that_a_message_only_claims_take_no_memory():
  session = session_of()
  copy = _copy(session)
  base, _ = _bases(session)[FIRST]
  huge = np.concatenate([base[:30], counts.encode(xp, np.array([2**31 - 1], np.int32)), base[32:]])
  tracemalloc.start()
  for read in (lambda: session.from_base(xp, huge),
               lambda: session.read(xp, 0, 1, 2**31 - 256, _signed(session, np.ones(50, np.uint8), 0, 1))):
    with pytest.raises(PayloadError):
      read()
  with pytest.raises(PayloadError):
    session.move(xp, copy, np.ones(10, np.uint8))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1 << 20


def test_an_update_that_is_not_finite_is_not_read_as_a_number():
  """Clients keep such back; a message of one would be refused or be finite."""
  session = session_of()
  copy = _copy(session)
  for value in (np.nan, np.inf):
    x = vector(session)
    x[3] = value
    with np.errstate(all='ignore'):
      message = session.upload(xp, copy, x, 1)
    try:
      assert np.all(np.isfinite(_read(session, copy, message, 1)))
    except PayloadError:
      continue
