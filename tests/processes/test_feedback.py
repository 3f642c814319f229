"""Error feedback and relevance as algebra, in NumPy: nothing is lost, momentum is masked, stale memories fade."""

import numpy as np
import pytest

import tff_compress
from tff_compress import processes
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.processes import ErrorFeedback
from tff_compress.processes.protocols import ClientRound


def sign(x):
  """The codec of EF-signSGD: mean magnitude times sign, where the sign of 0 is 1."""
  return np.float32(np.abs(x).mean()) * np.where(x >= 0, np.float32(1), np.float32(-1))


def top(share):
  """A codec that sends the largest values, as a function."""
  codec = tff_compress.codec(f'topk:{share} | float32')

  def send(x):
    payload = codec.encode({'x': x}, seed=1, round=0, client=0)
    return codec.decode(payload, {'x': x}, seed=1, round=0, client=0)['x']
  return send


def after(missed):
  """A round of a client that missed so many."""
  return ClientRound(np.int32(missed))


def rounds(feedback, codec, updates, missed=0):
  """Yields (memory, sent) of one client over rounds."""
  memory = {slot: [np.zeros_like(updates[0])] for slot in feedback.slots}
  for update in updates:
    memory = feedback.accumulate(xp, memory, [update], after(missed))
    sent = codec(memory['residual'][0])
    memory = feedback.settle(xp, memory, [update], [sent], after(missed))
    yield memory, sent


@pytest.mark.parametrize('codec', [top('1/10'), sign, lambda x: 0.5 * x])
def test_the_residual_is_what_came_in_less_what_was_sent(codec):
  updates = [np.random.default_rng(i).standard_normal(200).astype(np.float32) for i in range(30)]
  total_in, total_sent = np.zeros(200), np.zeros(200)
  for (memory, sent), update in zip(rounds(ErrorFeedback(), codec, updates), updates):
    total_in, total_sent = total_in + update, total_sent + sent
    np.testing.assert_allclose(memory['residual'][0], total_in - total_sent, atol=1e-5)


def test_what_is_sent_in_full_leaves_nothing():
  for memory, sent in rounds(ErrorFeedback(), top('1'), [np.arange(9, dtype=np.float32)] * 3):
    np.testing.assert_array_equal(sent, np.arange(9))
    np.testing.assert_array_equal(memory['residual'][0], 0)


def test_sign_descent_reaches_the_minimum_only_with_feedback():
  """f(x) = |x1 + x2| / 2 + |x1 - x2| from (1, 1.5), Karimireddy et al. 2019: signs of its gradients are all (1, -1) or
  so."""
  def f(x):
    return 0.5 * abs(x[0] + x[1]) + abs(x[0] - x[1])

  def gradient(x):
    plus, minus = (1 if x[0] + x[1] >= 0 else -1), (1 if x[0] - x[1] >= 0 else -1)
    return np.float32([0.5 * plus + minus, 0.5 * plus - minus])

  step, start = np.float32(1e-3), np.float32([1, 1.5])
  x = start.copy()
  for _ in range(5000):
    x = x - sign(step * gradient(x))
  assert f(x) >= 1.25 - 1e-2
  x, feedback, memory = start.copy(), ErrorFeedback(), {'residual': [np.zeros(2, np.float32)]}
  for _ in range(5000):
    memory = feedback.accumulate(xp, memory, [step * gradient(x)], after(0))
    sent = sign(memory['residual'][0])
    memory, x = feedback.settle(xp, memory, [step * gradient(x)], [sent], after(0)), x - sent
  assert f(x) < 5e-3


def test_momentum_is_corrected_and_masked():
  """Two values, one of which is sent in each round: by hand."""
  feedback = ErrorFeedback(momentum=0.5)
  first, second, third = rounds(feedback, top('1/2'), [np.float32([4, 3]), np.float32([1, 1]), np.float32([0, 0])])
  np.testing.assert_array_equal(first[1], [4, 0])
  np.testing.assert_array_equal([first[0]['residual'][0], first[0]['velocity'][0]], [[0, 3], [0, 3]])
  # u = (0, 1.5) + (1, 1), e = (0, 3) + u = (1, 5.5): the second is sent and forgotten.
  np.testing.assert_array_equal(second[1], [0, 5.5])
  np.testing.assert_array_equal([second[0]['residual'][0], second[0]['velocity'][0]], [[1, 0], [1, 0]])
  np.testing.assert_array_equal(third[1], [1.5, 0])
  unmasked = list(rounds(ErrorFeedback(momentum=0.5, masking=False), top('1/2'), [np.float32([4, 3])]))
  np.testing.assert_array_equal([unmasked[0][0]['residual'][0], unmasked[0][0]['velocity'][0]], [[0, 3], [4, 3]])


def test_velocity_without_residual_is_signum():
  signum = ErrorFeedback(momentum=0.5, residual=False)
  memory = {'velocity': [np.zeros(2, np.float32)]}
  for update, expected in (([4, -1], [4, -1]), ([-1, 1], [1, 0.5]), ([-3, 0], [-2.5, 0.25])):
    memory = signum.accumulate(xp, memory, [np.float32(update)], after(0))
    np.testing.assert_array_equal(signum.signal(xp, memory, [np.float32(update)], after(0))[0], expected)
    memory = signum.settle(xp, memory, [np.float32(update)], [np.sign(expected)], after(0))
  assert signum.slots == ('velocity',)


@pytest.mark.parametrize('feedback, missed, factor', [
    (ErrorFeedback(decay=0.5), 0, 1), (ErrorFeedback(decay=0.5), 3, 0.125), (ErrorFeedback(drop_after=3), 3, 1),
    (ErrorFeedback(drop_after=3), 4, 0), (ErrorFeedback(decay=0.0), 0, 1), (ErrorFeedback(decay=0.0), 1, 0)])
def test_memories_of_clients_that_missed_rounds_fade_or_are_dropped(feedback, missed, factor):
  memory = feedback.accumulate(xp, {'residual': [np.float32([8, -8])]}, [np.float32([1, 2])], after(missed))
  np.testing.assert_array_equal(memory['residual'][0], np.float32([1, 2]) + factor * np.float32([8, -8]))


def test_long_updates_are_shortened_before_they_are_remembered():
  """The norm is that of all variables together; shorter updates stay as they are, bit for bit."""
  clip = ErrorFeedback(momentum=0.5, clip=6.5)
  memory = {slot: [np.float32([1, 0]), np.float32([[8]])] for slot in clip.slots}
  filled = clip.accumulate(xp, memory, [np.float32([3, 4]), np.float32([[12]])], after(0))  # Of norm 13.
  for velocity, expected in zip(filled['velocity'], ([2, 2], [[10]])):
    np.testing.assert_allclose(velocity, expected, rtol=1e-3)
  for residual, velocity, before in zip(filled['residual'], filled['velocity'], memory['residual']):
    np.testing.assert_array_equal(residual, before + velocity)
  for update in ([0.25, -1.5], [0, 0]):
    filled = ErrorFeedback(clip=6.5).accumulate(xp, {'residual': [np.float32([0, 0])]}, [np.float32(update)], after(0))
    np.testing.assert_array_equal(filled['residual'][0], update)


def test_an_update_is_relevant_where_enough_signs_agree():
  before, now = [np.zeros(4, np.float32), np.zeros((1, 2), np.float32)], [np.float32([1, -1, 1, 0]),
                                                                          np.float32([[2, -2]])]
  update = [np.float32([3, -3, -3, 5]), np.float32([[0, 1]])]  # Of five that moved, three agree: 0 counts as positive.
  for threshold, expected in ((0.6, True), (0.61, False)):
    assert processes.Relevance(threshold).holds(xp, update, before, now, np.int32(9)) == expected
  assert processes.Relevance(1.0, decay=0.9).holds(xp, update, before, now, np.int32(5))  # 0.9^5 = 0.59
  assert processes.Relevance(1.0).holds(xp, update, now, now, np.int32(0))  # Nothing moved, nothing disagrees.


@pytest.mark.parametrize('make', [
    lambda: ErrorFeedback(decay=1.5), lambda: ErrorFeedback(momentum=1.0), lambda: ErrorFeedback(drop_after=-1),
    lambda: ErrorFeedback(decay=float('nan')), lambda: ErrorFeedback(masking=1), lambda: ErrorFeedback(residual=False),
    lambda: ErrorFeedback.of('yes'), lambda: ErrorFeedback(clip=0), lambda: ErrorFeedback(clip=float('nan')),
    lambda: processes.Relevance(2), lambda: processes.Relevance(decay='1')])
def test_bad_settings_are_typed_errors(make):
  with pytest.raises(processes.ProcessError):
    make()
