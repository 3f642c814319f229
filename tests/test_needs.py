"""Tests get their markers by themselves, and what is marked fast loads no TensorFlow."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import needs

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('text, level', [
    ('import numpy', 'fast'), ('import tff_compress', 'fast'), ('from tff_compress import processes', 'fast'),
    ('import tensorflow as tf', 'tf'), ('from tensorflow import keras', 'tf'),
    ('import tensorflow_federated as tff', 'tff'), ('from tff_compress.tensorflow import ops', 'tf'),
    ('from tff_compress import tensorflow', 'tf'), ('from tff_compress.processes import Changes', 'tf'),
    ('from tff_compress.processes.fed_avg import build', 'tff'), ('from tests.processes import test_fed_avg', 'tff'),
    ('def later():\n  import tensorflow', 'fast'),
])
def test_what_imports_load(text, level):
  assert needs.of_text(text) == level


def _helper():
  import tensorflow
  return tensorflow


def _by_name():
  return pytest.importorskip('tensorflow')


def test_what_a_test_loads_by_itself_or_through_helpers():
  def alone():
    return [helper() for helper in (_helper,)]
  assert needs.of_function(alone) == needs.of_function(_by_name) == 'tf'
  assert needs.of_function(test_what_imports_load) == 'fast'


def _run(folder, text, *arguments):
  (folder / 'conftest.py').write_text('from tests.conftest import *\n')
  (folder / 'test_it.py').write_text(text)
  environment = {name: value for name, value in os.environ.items() if not name.startswith('TFF_COMPRESS_')}
  return subprocess.run([sys.executable, '-m', 'pytest', '-q', '-c', 'pytest.ini', '-p', 'no:cacheprovider', *arguments,
                         str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_fast_test_that_loads_tensorflow_fails_and_is_named(tmp_path):
  """Also where its code makes something else of the error, or a process that it starts loads it."""
  done = _run(tmp_path, '''
import importlib, subprocess, sys

def test_swallows():
  try:
    importlib.import_module('tensorflow')
  except BaseException:
    pass

def test_starts():
  subprocess.run([sys.executable, '-c', 'import tensorflow_federated'], capture_output=True)
''', '-m', 'fast')
  assert done.returncode == 1 and '2 passed, 2 errors' in done.stdout, done.stdout + done.stderr
  assert 'test_swallows imports tensorflow' in done.stdout and 'test_starts imports tensorflow_federated' in done.stdout


def test_files_that_import_tensorflow_are_not_read_for_fast_tests(tmp_path):
  done = _run(tmp_path, 'import tensorflow\n\ndef test_it():\n  pass\n', '-m', 'fast')
  assert done.returncode == 5 and 'no tests ran' in done.stdout, done.stdout + done.stderr
