"""The method of docs/adding-a-method.md: two files make it an uplink, and it learns."""

import importlib
import pathlib
import re
import sys

import numpy as np
import pytest

from tests.processes import test_methods
from tff_compress import processes
from tff_compress.codec import grammar
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes import memories
from tff_compress.processes import methods
from tff_compress.simulation.config import ConfigError
from tff_compress.simulation.config import RunConfig

GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'adding-a-method.md'
MODULES = ('tff_compress.processes.methods.estimates', 'tff_compress.processes.memories.estimates')


@pytest.fixture(scope='module')
def dropped_in(tmp_path_factory):
  """The two files lie in their folders."""
  blocks = re.findall(r'^```python\n(.*?)^```$', GUIDE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'dont_write_bytecode', True)
    for package, text in zip((methods, memories), blocks, strict=True):
      folder = tmp_path_factory.mktemp('folder')
      (folder / 'estimates.py').write_text(text, encoding='utf-8')
      patch.setattr(package, '__path__', [*package.__path__, str(folder)])
    names = (*grammar.method_names(), 'estimates')
    patch.setattr(grammar, 'method_names', lambda: tuple(sorted(names)))
    patch.setattr(methods, '_registry', {})
    yield
  for name in MODULES:
    sys.modules.pop(name, None)
  importlib.invalidate_caches()


def test_it_is_an_uplink(dropped_in):
  config = RunConfig(uplink='estimates:fraction=1/2', clients=4, clients_per_round=4, weighting='uniform')
  assert config.method.memory == 'clients, server' and str(config.method) == 'estimates:fraction=1/2'
  with pytest.raises(ConfigError, match='needs all clients'):
    RunConfig(uplink='estimates', clients=4, clients_per_round=2, weighting='uniform')


def test_estimates_come_to_the_update(dropped_in):
  memory = processes.method('estimates').error_feedback
  update, state = [np.float32([3, -2, 1])], {'estimate': [np.zeros(3, np.float32)]}
  for _ in range(3):
    signal, = memory.signal(numpy_ops, state, update, None)
    largest = np.where(np.arange(3) == np.argmax(np.abs(signal)), signal, 0)
    state = memory.settle(numpy_ops, state, update, [largest], None)
  np.testing.assert_array_equal(state['estimate'][0], update[0])


@pytest.mark.xdist_group('tff')
def test_it_trains(dropped_in, tff_runtime):
  test_methods.test_a_method_trains_and_remembers_what_it_says('estimates:fraction=1/2', tff_runtime)
