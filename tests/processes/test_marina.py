"""MARINA: unbiased given what was before, with the variance and the bytes that the paper says."""

import numpy as np
import pytest

from tests.processes import test_fed_avg as small
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes import coins
from tff_compress.processes.memories.marina import Marina
from tff_compress.processes.protocols import ClientRound

SEED, P = 5, 0.25
SPEC = codec_lib.Spec.of({'kernel': np.zeros((30, 20), np.float32)})


def turn(number, seed=SEED):
  """A round, and whether updates are sent whole in it."""
  tossed = lambda p: coins.coin(numpy_ops, keys_lib.MessageKeys(seed, number, 0), p)
  return ClientRound(np.int32(0), np.int32(number), None, tossed), number == 0 or bool(tossed(P))


def sent(codec, signal, number, client, spec=SPEC, seed=SEED):
  """(length of a frame, what it decodes to) of a list of arrays."""
  names = [tensor.name for tensor in spec.tensors]
  frame = wire.pack(codec, dict(zip(names, signal)), seed=seed, round=number, client=client)
  decoded, _ = wire.unpack(codec, frame, spec, seed=seed)
  return len(frame), [decoded[name] for name in names]


@pytest.mark.parametrize('codec', ['qsgd', 'uniform:bits=2 | pack', 'subsample:1/8,key=client | float32'])
def test_rounds_of_differences_are_unbiased_given_what_was_before_with_the_variance_of_the_paper(codec):
  """Over 300 fixed keys: no coordinate's mean is further off than chance has it, and the mean square is within the
  codec's bound, sum of all ||u - v||^2 times w / n^2."""
  memory, clients, rng = Marina(P), 3, np.random.default_rng(0)
  last = [rng.standard_normal((30, 20)).astype(np.float32) for _ in range(clients)]
  update = [v + rng.standard_normal(v.shape).astype(np.float32) / 10 for v in last]
  numbers = [number for number in range(1, 600) if not turn(number)[1]][:300]
  errors = []
  for number in numbers:
    signals = [memory.signal(numpy_ops, {'last': [v]}, [u], turn(number)[0]) for u, v in zip(update, last)]
    added = np.mean([sent(codec, signal, number, client)[1][0] for client, signal in enumerate(signals)], axis=0)
    errors.append(added - np.mean([u - v for u, v in zip(update, last)], axis=0))
  errors = np.array(errors, np.float64)
  z = errors.mean(0) / (errors.std(0) / np.sqrt(len(numbers)) + 1e-12)
  assert np.abs(z).max() < 5 and abs(np.mean(z**2) - 1) < 0.3
  bound = codec_lib(codec).plan(SPEC).segments[0].pipeline.nmse_bound(600) / clients**2
  assert 0 < np.mean(np.sum(errors**2, axis=(1, 2))) <= bound * sum(np.sum((u - v)**2) for u, v in zip(update, last))


def test_whole_rounds_send_the_update_and_every_round_keeps_it():
  memory, rng = Marina(P), np.random.default_rng(1)
  u, v = (rng.standard_normal((30, 20)).astype(np.float32) for _ in range(2))
  found = set()
  for number in range(20):
    now, whole = turn(number)
    found.add(whole)
    signal, = memory.signal(numpy_ops, {'last': [v]}, [u], now)
    np.testing.assert_array_equal(signal, u if whole else u - v)
    assert memory.settle(numpy_ops, {'last': [v]}, [u], [signal], now) == {'last': [u]}
  assert found == {True, False} and turn(0)[1]


def test_bytes_are_those_of_float32_in_a_share_p_of_the_rounds():
  codec, count, d = codec_lib('uniform:bits=2 | pack'), 2000, SPEC.parameters
  small_size, large = (wire.FRAME_OVERHEAD + size for size in (codec.plan(SPEC).payload_size, 4 * d))
  mean = np.mean([large if turn(number)[1] else small_size for number in range(1, count + 1)])
  deviation = np.sqrt(P * (1 - P) / count) * (large - small_size)
  assert abs(mean - (P * large + (1 - P) * small_size)) < 4 * deviation


@pytest.mark.parametrize('text, says', [
    ('marina:p=0', 'p must be a number above 0'), ('marina:p=3/2', 'p must be a number above 0'),
    ('marina:codec=ef-topk', 'unbiased codec'), ('marina:codec=rpn', 'unbiased codec'),
    ('marina:codec=ef-signsgd', 'unbiased codec'), ('marina:codec=qsgd @3 int8', 'not a schedule')])
def test_a_biased_codec_is_refused(text, says):
  with pytest.raises(processes.ProcessError, match=says) as error:
    processes.method(text)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('given, says', [
    (dict(uplink='ef-topk'), 'unbiased codec'), (dict(server=Marina(1 / 2)), 'give the same one'),
    (dict(relevance=processes.Relevance()), 'leave relevance out')], ids=str)
def test_what_would_be_another_algorithm_is_refused(given, says):
  with pytest.raises(processes.ProcessError, match=says):
    processes.build_fed_avg(small.model_fn, spec=small.SPEC, **{**processes.method('marina').arguments(), **given})


@pytest.mark.xdist_group('tff')
def test_in_tff_the_model_moves_by_what_the_messages_say(tff_runtime):
  """Frames of the updates that clients remember, made in NumPy, have the bytes and decode to the steps of the server;
  a client whose update is not finite in a round of differences adds nothing and goes on from what it sent before."""
  method = processes.method('marina:codec=int8,p=1/4')
  runner = processes.Runner(method.build(small.model_fn, spec=small.SPEC, seed=SEED, **method.arguments()))
  last, mean, seen = [small.START] * 3, small.START, []
  failing = next(number for number in range(2, 20) if not turn(number)[1])
  for number in range(failing + 2):
    bad = np.full((3, 12), np.nan, np.float32) if number == failing else None
    metrics = runner.next([0, 1, 2], [small.dataset(0), small.dataset(1), small.dataset(2, bad)])
    now, whole = turn(number)
    seen.append(whole)
    total, size = [np.zeros_like(w) for w in small.START], 0
    for client in range(3 if bad is None else 2):
      state = runner.client_state(client)
      u = [part.reshape(w.shape) for part, w in zip(np.split(state['last'][0], [60]), small.START)]
      signal = method.error_feedback.signal(numpy_ops, {'last': last[client]}, u, now)
      length, decoded = sent('float32' if whole else 'int8', signal, number, int(state['client']), small.SPEC)
      size, total, last[client] = size + length, [t + x / 3 for t, x in zip(total, decoded)], u
    mean = total if whole else [g + x for g, x in zip(mean, total)]
    for ours, theirs in zip(mean, runner.state.aggregator['server']['mean']):
      np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert communication(metrics)['uplink_bytes'] == size
  assert set(seen) == {True, False}
  moved = small.vector(runner.state.global_model_weights.trainable)
  assert np.all(np.isfinite(moved)) and np.any(moved)
