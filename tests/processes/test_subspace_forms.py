"""The fixed form and integer sums in TFF: clients that follow the real messages in NumPy hold the server's model."""

import functools

import numpy as np
import pytest

from tests.processes import test_fed_avg as small
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.processes import ProcessError
from tff_compress.processes.subspace.build import build_subspace_fed_avg
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.session import Session
from tff_compress.subspace.sums import SUMS
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED, RATE = 11, Rate(noise=None, first=0.5, floor=16)


@functools.cache
def build(server=(1.0, 0.0), **options):
  import tensorflow_federated as tff
  return build_subspace_fed_avg(
      small.model_fn, rate=RATE, seed=SEED, spec=small.SPEC, key_frames=None,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(*server), **options)


class Client:
  """Follows the messages of a TFF process in NumPy."""

  def __init__(self, sums='private'):
    float32 = codec_lib('float32')
    runtime = NumpyRuntime(small.SPEC, SEED, float32, float32)
    self.copy = Copy(Session(small.SPEC.parameters, SEED, RATE, 0.0, runtime, SUMS[sums]))

  def follow(self, state):
    """(bytes of the message, the present)."""
    message = bytes(history.way(xp, state.distributor['history'], self.copy.version))
    self.copy = self.copy.follow(message)
    model = self.copy.present['model']
    np.testing.assert_array_equal(model, small.vector(state.global_model_weights.trainable))
    return len(message), self.copy.present


@pytest.mark.parametrize('form, bits', [('fixed', 6), ('block', 1)])
def test_clients_hold_the_servers_model_after_any_gap(form, bits):
  runner = processes.Runner(build((0.5, 0.0), form=form, hold=4, placement_bits=bits))
  often, rarely = Client(), Client()
  sizes, models = [], []
  for number in range(8):
    size, present = often.follow(runner.state)
    if number in (0, 7):
      newest, _ = rarely.follow(runner.state)
    assert int(present['round']) == number
    sizes.append(size)
    models.append(present['model'])
    # Two of the four take turns: each misses more rounds than the one before.
    ids = [number % 4, (number + 1) % 4]
    metrics = runner.next(ids, [small.dataset(client).take(int(number < 6)) for client in ids])
  kept = int(metrics['aggregator']['kept'])
  placement = history.HEADER_BYTES + 1 + 4 + -(-kept * bits // 8)
  assert sizes[-1] == placement
  # Blocks are of 1, 1, 2 and then 4 rounds.
  assert often.copy.version == rarely.copy.version == (0 if form == 'fixed' else 4)
  assert newest == (placement if form == 'fixed' else newest)
  # Rounds in which nothing is sent leave the model as it is, but for what coding it anew changes.
  if form == 'fixed':
    np.testing.assert_array_equal(models[-1], models[-2])


def test_a_new_model_ends_a_fixed_subspace():
  process = build((0.5, 0.0), form='fixed', placement_bits=6)
  runner, client = processes.Runner(process), Client()
  for _ in range(2):
    runner.next([0, 1], [small.dataset(0), small.dataset(1)])
  client.follow(runner.state)
  weights = process.get_model_weights(runner.state)
  runner.state = process.set_model_weights(runner.state, weights)
  _, present = client.follow(runner.state)
  assert client.copy.version == int(present['round']) == 3
  runner.next([0], [small.dataset(0)])
  client.follow(runner.state)
  assert client.copy.version == 3


def test_integer_sums_in_a_fixed_subspace():
  import tensorflow_federated as tff
  uniform = tff.learning.ClientWeighting.UNIFORM
  runner = processes.Runner(build(form='fixed', sums='integers', uplink_bits=4, client_weighting=uniform))
  client, scales, losses = Client(sums='integers'), [], []
  for _ in range(6):
    _, present = client.follow(runner.state)
    assert present['scale'] == runner.state.distributor['copy']['scale']
    scales.append(float(present['scale']))
    metrics = runner.next([0, 1, 2], [small.dataset(client) for client in range(3)])
    losses.append(float(metrics['client_work']['train']['loss']))
  # The first weights are zero, so the first scale was a guess; afterwards it follows the updates, which get smaller.
  assert 2 * scales[0] < max(scales) and scales[-1] < max(scales)
  assert losses[0] == pytest.approx(np.log(5), rel=1e-3) and losses[-1] < 0.9 * losses[0]
  k = int(metrics['aggregator']['kept'])
  assert metrics['aggregator']['uplink_bytes'] == 3 * (7 + k // 2)


@pytest.mark.parametrize('refused, options', [
    ('form must be', dict(form='other')), ('placement_bits', dict(form='fixed', placement_bits=9)),
    ('sums must be', dict(sums='other')), ('uplink_bits of integers sums', dict(sums='integers')),
    ('client_weighting', dict(sums='integers', uplink_bits=2))])
def test_what_cannot_be_is_refused_by_name(refused, options):
  with pytest.raises(ProcessError, match=refused):
    build(**options)
