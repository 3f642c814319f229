"""`auto`: what it is in a run, by what is known of the run."""

import pytest

from tff_compress import processes
from tff_compress.codec import defaults
from tff_compress.codec.errors import CompressionError
from tff_compress.processes.needs import Facts
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.folder import Folder
from tff_compress.simulation.folder import FolderError
from tff_compress.timeline.start import Start


def test_it_is_the_default_of_runs_in_both_directions():
  config = RunConfig()
  assert (config.uplink, config.downlink) == ('auto', 'auto') and config.has_memory


@pytest.mark.parametrize('facts, says', [(Facts(server_sgd=False), 'SGD'), (Facts(moving_statistics=True), 'moving')])
def test_where_the_subspace_cannot_be_codecs_take_its_place_and_it_says_why(facts, says):
  method = processes.method('auto').settled(facts)
  assert (method.uplink, method.downlink) == (defaults.UPLINK, defaults.DOWNLINK)
  assert says in method.remark and defaults.UPLINK in method.remark
  assert not processes.method('auto').settled(Facts(server_sgd=True, moving_statistics=False)).remark


def test_a_run_with_another_server_optimizer_has_these_codecs():
  config = RunConfig(server_optimizer='adam', server_learning_rate=0.01)
  assert (config.method.uplink, config.downlink, config.has_memory) == (defaults.UPLINK, defaults.DOWNLINK, False)


def test_only_a_budget_depends_on_the_run():
  facts = Facts(rounds=7, clients=30, clients_per_round=3)
  settled = lambda text: str(processes.method(text).settled(facts))
  assert settled('auto') == 'auto' and settled('auto:rate=1/20') == 'auto:rate=1/20'
  assert settled('auto:noise=1.5') == 'auto:noise=1.5,rounds=7'
  assert settled('auto:noise=1.5,rounds=9') == 'auto:noise=1.5,rounds=9'
  assert settled('auto:total=2MB') == 'auto:total=2MB,rounds=7,clients=30,per_round=3'


@pytest.mark.parametrize('text, says', [
    ('auto:total=2MB,rate=1/2', 'give one of them'), ('auto:rounds=3', 'for a budget'), ('auto:total=2XB', 'such as'),
    ('auto:total=9MB,rounds=3,clients=2,per_round=3', 'more than'), ('auto:noise=1,clients=3', 'for a budget'),
])
def test_parameters_that_make_no_sense_are_refused(text, says):
  with pytest.raises(CompressionError, match=says):
    processes.method(text)


def test_a_budget_needs_to_know_the_run_and_enough_bytes():
  model = _Model()
  with pytest.raises(CompressionError, match='rounds and clients and per_round, .* add rounds=…,clients=…,per_round=…'):
    processes.method('auto:total=2MB').arguments(model)
  with pytest.raises(CompressionError, match='has to know the Keras model'):
    processes.method('auto:total=2MB,rounds=7,clients=30,per_round=3').arguments()
  with pytest.raises(CompressionError, match='512 coordinates, the fewest that train, take [0-9]+kB'):
    processes.method('auto:total=300kB,rounds=300,clients=30,per_round=3').arguments(model)
  with pytest.raises(CompressionError, match='number of rounds, .* add rounds=…'):
    processes.method('auto:noise=1.5').arguments()


def test_a_start_of_a_few_bytes_leaves_more_for_coordinates():
  method, model = processes.method('auto:total=9MB,rounds=100,clients=30,per_round=3'), _Model()
  rate = lambda arguments: arguments['rate'].floor
  sent, drawn = method.arguments(model), method.arguments_of_start(Start(1, ()), model)
  assert rate(drawn) > rate(sent) > 512
  # 27 of 30 clients receive the first model of 100,000 bytes.
  assert rate(method.arguments(_Model(200_000))) < rate(sent)


def test_a_run_that_goes_on_keeps_its_plan(tmp_path):
  def folder(rounds):
    config = RunConfig(uplink='auto:total=2MB', rounds=rounds)
    return Folder(str(tmp_path), config.as_dict(), str(config.method))

  folder(5).write_result('running', [], parameters=1)
  assert folder(5).read()['method'] == 'auto:total=2MB,rounds=5,clients=20,per_round=10'
  with pytest.raises(FolderError, match='planned for its rounds, as auto:total=2MB,rounds=5'):
    folder(6).read()


class _Model:
  """As much of a Keras model as a budget needs."""

  def __init__(self, size=100_000):
    import numpy as np
    import tensorflow as tf
    self.trainable_variables = [tf.Variable(np.zeros(size, np.float32), name='v')]
    self.layers = []
