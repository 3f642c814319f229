"""EF21: the server's estimate is the mean of the clients', which come to the updates at the rate of the codec."""

import fractions

import numpy as np
import pytest

from tests.processes import test_fed_avg as small
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes.memories.ef21 import Ef21

SPEC = codec_lib.Spec.of({'kernel': np.zeros((20, 10), np.float32), 'bias': np.zeros(10, np.float32)})
ZEROS = [np.zeros(tensor.shape, np.float32) for tensor in SPEC.tensors]


def updates(rng):
  return [rng.standard_normal(tensor.shape).astype(np.float32) for tensor in SPEC.tensors]


def through(codec, arrays, number, client):
  """What a message decodes to."""
  names, keys = [tensor.name for tensor in SPEC.tensors], dict(seed=1, round=number, client=client)
  payload = codec_lib(codec).encode(dict(zip(names, arrays)), **keys)
  decoded = codec_lib(codec).decode(payload, SPEC, **keys)
  return [decoded[name] for name in names]


def rounds(codec, given, fails=frozenset()):
  """Yields (estimates of all clients, G) after each round.

  Args:
    codec: text.
    given: iterable over rounds of the clients' updates.
    fails: pairs (round, client) of which nothing is sent.
  """
  memory, kept, total = Ef21(), None, ZEROS
  for number, update in enumerate(given):
    kept = kept or [{'estimate': ZEROS} for _ in update]
    for client, u in enumerate(update):
      if (number, client) not in fails:
        c = through(codec, memory.signal(numpy_ops, kept[client], u, None), number, client)
        kept[client] = memory.settle(numpy_ops, kept[client], u, c, None)
        total = [g + x / len(update) for g, x in zip(total, c)]
    yield [k['estimate'] for k in kept], total


@pytest.mark.parametrize('codec', ['ef-topk:p=1/20', 'ef-signsgd', 'stc:p=1/10'])
def test_the_servers_estimate_is_the_mean_of_the_clients(codec):
  rng = np.random.default_rng(0)
  given = [[updates(rng) for _ in range(4)] for _ in range(12)]
  for estimates, total in rounds(codec, given, fails={(0, 1), (3, 2), (4, 2), (9, 0)}):
    for parts, g in zip(zip(*estimates), total):
      np.testing.assert_allclose(g, np.mean(parts, axis=0), atol=1e-5)


@pytest.mark.parametrize('share', [fractions.Fraction(1, 4), fractions.Fraction(1, 10)])
def test_estimates_come_to_an_update_that_stays_at_the_rate_of_top_k(share):
  """The energy of what an estimate is off by falls by k / d or more, and is 0 when each value was sent once."""
  u, smallest = updates(np.random.default_rng(1)), min(round(share * t.size) / t.size for t in SPEC.tensors)
  before = energy = sum(np.sum(x**2) for x in u)
  for (estimate,), _ in rounds(f'topk:{share} | float32', [[u]] * int(1 / smallest)):
    after = sum(np.sum((x - g)**2) for x, g in zip(u, estimate))
    assert after <= (1 - smallest) * before + 1e-9
    before = after
  assert before == 0 < energy


def test_without_compression_it_is_the_mean_of_the_updates():
  rng = np.random.default_rng(2)
  given = [[updates(rng) for _ in range(3)] for _ in range(5)]
  for update, (_, total) in zip(given, rounds('topk:1 | float32', given)):
    for parts, g in zip(zip(*update), total):
      np.testing.assert_allclose(g, np.mean(parts, axis=0), atol=1e-6)


@pytest.mark.parametrize('given, says', [
    (dict(server=None), 'give the same one as error_feedback and as server'),
    (dict(error_feedback=True), 'give the same one as error_feedback and as server'),
    (dict(uplink='qsgd:levels=1'), 'needs a codec that never loses all'),
    (dict(uplink='ef-topk @2 signsgd'), 'needs a codec that never loses all'),
    (dict(structured=processes.Structured()), 'leave one of the two out'),
    (dict(client_weighting=None), 'needs clients that all weigh the same')], ids=str)
def test_what_would_be_another_algorithm_is_refused(given, says):
  import tensorflow_federated as tff
  arguments = {**processes.method('ef21').arguments(), **given}
  if given.get('client_weighting', True) is None:
    arguments['client_weighting'] = tff.learning.ClientWeighting.NUM_EXAMPLES
  with pytest.raises(processes.ProcessError, match=says):
    processes.build_fed_avg(small.model_fn, spec=small.SPEC, **arguments)


@pytest.mark.xdist_group('tff')
def test_in_tff_the_model_moves_by_the_mean_of_all_estimates(tff_runtime):
  """Also after a round in which a client's update is not finite; and no round may be without a client."""
  import tensorflow_federated as tff
  process = processes.build_fed_avg(small.model_fn, spec=small.SPEC, seed=3, uplink='ef-topk:p=1/10',
                                    error_feedback=Ef21(), server=Ef21(),
                                    client_weighting=tff.learning.ClientWeighting.UNIFORM)
  runner, weights = processes.Runner(process), small.START
  for number in range(4):
    bad = np.full((3, 12), np.nan, np.float32) if number == 1 else None
    metrics = runner.next([0, 1, 2], [small.dataset(0), small.dataset(1), small.dataset(2, bad)])
    assert metrics['aggregator']['uplink_skipped'] == (number == 1)
    following = runner.state.global_model_weights.trainable
    estimate = small.vector(runner.state.aggregator['server']['estimate'])
    kept = [runner.client_state(client)['estimate'][0] for client in range(3)]
    np.testing.assert_allclose(estimate, np.mean(kept, axis=0), atol=1e-6)
    np.testing.assert_allclose(small.vector(weights) - small.vector(following), estimate, atol=1e-6)
    assert np.any(estimate)
    weights = following
  with pytest.raises(processes.ClientError, match='needs all clients to take part'):
    runner.next([0, 1], [small.dataset(0), small.dataset(1)])
