"""Memories that are nobody's in the product: what the protocols promise is enough for a new method, and what runs must
fulfil is asked for wherever they are set up."""

import collections
import dataclasses

import numpy as np
import pytest

from tests.processes import test_fed_avg as small
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes import coins
from tff_compress.processes import needs
from tff_compress.processes.protocols import ClientMemory
from tff_compress.processes.protocols import Confinement
from tff_compress.processes.protocols import ServerFunctions
from tff_compress.processes.protocols import ServerMemory
from tff_compress.processes.protocols import UploadRule
from tff_compress.simulation.config import ConfigError
from tff_compress.simulation.config import RunConfig

SEED, HEADS = 5, 0.4


@dataclasses.dataclass(frozen=True)
class LastUpdate(ClientMemory):
  """Clients send how their update differs from the last one; all of it where a round's coin shows heads."""
  slots = ('last',)

  def signal(self, xp, memory, update, turn):
    whole = xp.cast(turn.coin(HEADS), np.float32)
    return [u - (np.float32(1) - whole) * last for u, last in zip(update, memory['last'])]

  def settle(self, xp, memory, update, decoded, turn):
    return {'last': update}


@dataclasses.dataclass(frozen=True)
class SumOfDifferences(ServerMemory):
  """The server has the mean of the updates: it adds the differences, and starts anew in rounds of heads."""

  def build(self, steps, spec, seed):
    return SumFunctions(steps[0][1], spec, seed)


class SumFunctions(ServerFunctions):

  def __init__(self, codec, spec, seed):
    import tensorflow as tf

    from tff_compress.processes.up.messages import ChosenMessages
    self._heads = lambda number: coins.coin_in_graph(seed, number, HEADS)
    self.messages = ChosenMessages([codec, 'float32'], spec, seed,
                                   lambda number: tf.cast(self._heads(number), tf.int32))

  def initial(self):
    import tensorflow as tf
    return collections.OrderedDict(mean=[tf.zeros(tensor.shape) for tensor in self.messages.spec.tensors])

  def step(self, state, mean, round_number):
    import tensorflow as tf
    mean = [tf.where(self._heads(round_number), new, old + new) for old, new in zip(state['mean'], mean)]
    return collections.OrderedDict(mean=mean), mean


def heads(number):
  return bool(coins.coin(numpy_ops, keys_lib.MessageKeys(SEED, number, 0), HEADS))


def test_coins_are_fair_and_those_of_a_graph():
  import tensorflow as tf
  tossed = [heads(number) for number in range(400)]
  assert abs(np.mean(tossed) - HEADS) < 4 * np.sqrt(HEADS * (1 - HEADS) / 400)
  in_graph = tf.function(lambda number: coins.coin_in_graph(SEED, number, HEADS))
  assert [bool(in_graph(tf.constant(number))) for number in range(30)] == tossed[:30]
  for probability, always in ((0, False), (1, True)):
    assert {bool(coins.coin(numpy_ops, keys_lib.MessageKeys(SEED, n, 0), probability)) for n in range(50)} == {always}


@pytest.mark.xdist_group('tff')
def test_a_method_may_bring_memories_of_its_own(tff_runtime):
  """With a codec that loses nothing, the model moves as without a memory, and a round's coin decides on its codec."""
  del tff_runtime
  codec = 'topk:1 | float32'
  common = dict(seed=SEED, spec=small.SPEC, needs=(needs.ALL_CLIENTS,))
  runner = processes.Runner(processes.build_fed_avg(small.model_fn, uplink=codec, error_feedback=LastUpdate(),
                                                    server=SumOfDifferences(), **common))
  usual = processes.Runner(processes.build_fed_avg(small.model_fn, **common))
  clients, lengths = [0, 1], {True: set(), False: set()}
  for number in range(6):
    data = [small.dataset(c) for c in clients]
    metrics = runner.next(clients, data)
    usual.next(clients, data)
    lengths[heads(number)].add(communication(metrics)['uplink_bytes'])
    for ours, theirs in zip(runner.state.global_model_weights.trainable, usual.state.global_model_weights.trainable):
      np.testing.assert_allclose(ours, theirs, atol=1e-6)
  assert lengths[True] == {2 * (wire.FRAME_OVERHEAD + 4 * small.SPEC.parameters)}
  assert lengths[False] and min(lengths[False]) > max(lengths[True])
  for ids in ([0], [0, 1, 2], [0, 2]):
    with pytest.raises(processes.ClientError, match='needs all clients to take part in every round'):
      runner.next(ids, [small.dataset(c) for c in ids])
  assert runner.round == 6


@pytest.mark.parametrize('given, wanted', [
    (dict(needs=(needs.WHOLE_MODELS,), downlink='stc'), 'needs a downlink of the whole model'),
    (dict(needs=(needs.EQUAL_WEIGHTS,)), 'needs clients that all weigh the same'),
    (dict(server=LastUpdate()), 'server must be a ServerMemory'),
    (dict(relevance=processes.ErrorFeedback()), 'relevance must be a UploadRule'),
    (dict(structured=processes.method('dgc')), 'structured must be a Confinement'),
    (dict(error_feedback=SumOfDifferences()), 'error_feedback must be'),
    (dict(server=SumOfDifferences(), structured=processes.Structured()), 'leave structured or server out')])
def test_a_process_refuses_what_is_not_met(given, wanted):
  with pytest.raises(processes.ProcessError, match=wanted):
    processes.build_fed_avg(small.model_fn, **given)


def test_what_does_not_go_together_is_refused_with_the_sentence_that_says_why():
  """The tables of the options: each entry is an option, and both at once are refused."""
  from tests.processes.test_methods import keras_model
  given = {'error_feedback': processes.ErrorFeedback(), 'relevance': processes.Relevance(),
           'server': processes.PowerSgd(1), 'structured': processes.Structured(), 'downlink': processes.Changes('stc')}
  confined = [processes.Structured(), processes.FederatedDropout(keras_model((8,)))]
  pairs = [(name, option, 'downlink' if other == 'changes' else other, sentence)
           for name, option in [*given.items(), *(('structured', option) for option in confined)]
           for other, sentence in getattr(option, 'conflicts', {}).items()]
  assert len(pairs) > 5
  for name, option, other, sentence in pairs:
    with pytest.raises(processes.ProcessError) as error:
      processes.build_fed_avg(small.model_fn, **{other: given[other], name: option})
    assert str(error.value) == sentence


def test_options_have_the_protocols_that_they_are_listed_with():
  assert isinstance(processes.ErrorFeedback(), ClientMemory) and isinstance(processes.Relevance(), UploadRule)
  assert isinstance(processes.FetchSgd('float32'), ServerMemory) and isinstance(processes.PowerSgd(), ServerMemory)
  assert isinstance(processes.Structured(), Confinement)


def test_runs_are_asked_for_what_their_method_needs(monkeypatch):
  import tensorflow as tf

  from tff_compress import keras
  monkeypatch.setattr(type(processes.method('fedpaq')), 'needs', (needs.ALL_CLIENTS, needs.EQUAL_WEIGHTS))
  for wrong, says in ((dict(clients=9, clients_per_round=8, weighting='uniform'), 'all clients'),
                      (dict(clients=8, clients_per_round=8), 'weigh the same')):
    with pytest.raises(ConfigError, match=f"^the uplink 'fedpaq' needs .*{says}"):
      RunConfig(uplink='fedpaq', **wrong)
  natural = RunConfig(uplink='fedpaq', clients=None, clients_per_round=8, split='natural', weighting='uniform')
  with pytest.raises(ConfigError, match='all clients'):
    natural.check_needs(9)
  model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(1)])
  model.compile('sgd', 'mse')
  data = [(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.float32))] * 3
  for wrong, says in ((dict(clients_per_round=2, weighting='uniform'), 'all clients'), ({}, 'weigh the same')):
    with pytest.raises(ValueError, match=f"^the uplink 'fedpaq' needs .*{says}"):
      keras.federate(model, data, rounds=1, uplink='fedpaq', progress=False, **wrong)


def test_a_run_sets_of_a_memory_what_it_has(monkeypatch):
  kind = type(processes.method('dgc'))
  config = RunConfig(uplink='dgc', feedback_decay=0.5)
  assert config.feedback == dataclasses.replace(config.method.error_feedback, decay=0.5)
  monkeypatch.setattr(kind, 'error_feedback', property(lambda self: LastUpdate()))
  assert RunConfig(uplink='dgc').feedback == LastUpdate()
  with pytest.raises(ConfigError, match='feedback_decay is not for the uplink'):
    RunConfig(uplink='dgc', feedback_decay=0.5)
