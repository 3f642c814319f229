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
MODULES = ('tff_compress.processes.methods.diana', 'tff_compress.processes.memories.diana')


@pytest.fixture(scope='module')
def dropped_in(tmp_path_factory):
  """The two files lie in their folders, also where others of these names do."""
  blocks = re.findall(r'^```python\n(.*?)^```$', GUIDE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sys, 'dont_write_bytecode', True)
    for package, text in zip((methods, memories), blocks, strict=True):
      folder = tmp_path_factory.mktemp('folder')
      (folder / 'diana.py').write_text(text, encoding='utf-8')
      patch.setattr(package, '__path__', [str(folder), *package.__path__])
    for name in MODULES:
      patch.delitem(sys.modules, name, raising=False)
    names = {*grammar.method_names(), 'diana'}
    patch.setattr(grammar, 'method_names', lambda: tuple(sorted(names)))
    patch.setattr(methods, '_registry', {})
    yield
    for name in MODULES:
      sys.modules.pop(name, None)
  importlib.invalidate_caches()


def test_it_is_an_uplink(dropped_in):
  config = RunConfig(uplink='diana:rate=1/2', clients=4, clients_per_round=4)
  assert config.method.memory == 'clients, server' and str(config.method) == 'diana:rate=1/2'
  with pytest.raises(ConfigError, match='needs all clients'):
    RunConfig(uplink='diana', clients=4, clients_per_round=2)
  with pytest.raises(processes.ProcessError, match='rate must be above 0'):
    processes.method('diana:rate=0')


def test_shifts_come_to_the_update_at_the_rate(dropped_in):
  memory = processes.method('diana:rate=1/4').error_feedback
  update, state = [np.float32([3, -2, 1])], {'shift': [np.zeros(3, np.float32)]}
  for number in range(4):
    signal, = memory.signal(numpy_ops, state, update, None)
    np.testing.assert_allclose(signal, 0.75**number * update[0], rtol=1e-6)
    state = memory.settle(numpy_ops, state, update, [signal], None)


@pytest.mark.xdist_group('tff')
def test_it_trains(dropped_in, tff_runtime):
  test_methods.test_a_method_trains_and_remembers_what_it_says('diana:rate=1/2', tff_runtime)
