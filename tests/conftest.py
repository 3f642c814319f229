"""Settings and fixtures for all tests. They take effect before any test imports TensorFlow."""

import os
import sys
import tempfile

import hypothesis
import offline_guard
import pytest

from tests import needs

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
if 'PYTEST_XDIST_WORKER' in os.environ:
  # As many test processes as cores: each that also takes every core for itself only waits for the others.
  for variable in ('TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(variable, '1')

# The same examples every time, and no limit on one example's time, which the other test process can use up.
hypothesis.settings.register_profile('tff_compress', derandomize=True, deadline=None)
hypothesis.settings.load_profile('tff_compress')


# Tests run on what packages ship or what they make: a newcomer's machine has nothing else.
_attempts = tempfile.NamedTemporaryFile(prefix='offline-')  # Deleted with this process.
os.environ[offline_guard.REPORT] = _attempts.name
os.environ['PYTHONPATH'] = os.pathsep.join(
    filter(None, [os.path.dirname(offline_guard.__file__), os.environ.get('PYTHONPATH')]))


def pytest_configure(config):
  if config.option.markexpr == 'fast':
    os.environ[offline_guard.REFUSED] = ','.join(needs.PACKAGES)
  offline_guard.install()


def pytest_ignore_collect(collection_path, config):
  """Files whose imports alone take long are not read where only fast tests are asked for; True where that is so."""
  if config.option.markexpr == 'fast' and collection_path.name.startswith('test_') and collection_path.suffix == '.py':
    return needs.of_file(collection_path) != 'fast' or None
  return None


def pytest_itemcollected(item):
  level = needs.of_item(item)
  if not item.get_closest_marker(level) and not (level == 'fast' and item.get_closest_marker('thorough')):
    item.add_marker(level)


@pytest.fixture(autouse=True)
def stays_offline():
  """Fails a test that tried to reach the network, also in another thread or process, or where its code hid the error.
  """
  yield
  attempts = offline_guard.attempts()
  if attempts:
    pytest.fail(attempts, pytrace=False)


@pytest.fixture(scope='session')
def tff_runtime():
  """The one TFF runtime of this test process, installed as TFF's default context: a `tff_compress.runtime.Runtime`."""
  from tff_compress import runtime
  with runtime.install(deadline=300) as installed:
    yield installed


def pytest_unconfigure():
  # TFF makes a context of its own when it is imported, which prints an error if it is destroyed as late as Python's
  # modules.
  if 'tensorflow_federated' in sys.modules:
    from tff_compress.runtime import compat
    compat.set_no_default_context()
