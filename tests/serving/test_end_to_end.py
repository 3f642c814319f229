"""A server and devices as processes of their own: two rounds of the digits, and a server that is killed between the
last upload that it accepts and the end of the round."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tff_compress import wire
from tff_compress.serving import aggregator

pytestmark = [pytest.mark.tff, pytest.mark.xdist_group('serving')]

UPLINK = 'hadamard | uniform:bits=2 | pack'
ROOT = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 240

# The command, with a store that kills its process after so many receipts.
SERVE = '''
import os, signal, sys
from tff_compress.cli import main
from tff_compress.serving import aggregator
left, opened = int(sys.argv[1]), aggregator.open_store
def at(point):
  global left
  if point == 'after receipt':
    left -= 1
    if not left:
      os.kill(os.getpid(), signal.SIGKILL)
aggregator.open_store = lambda *arguments: opened(*arguments, at=at)
sys.exit(main(['serve', *sys.argv[2:]]))
'''

# The command, which says afterwards whether TensorFlow was imported on the way.
DEVICE = '''
import sys
from tff_compress.cli import main
code = main(['device', *sys.argv[1:]])
print(sorted({'tensorflow', 'tensorflow_federated', 'jax', 'keras'} & set(sys.modules)))
sys.exit(code)
'''


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """A folder with a model and its plan."""
  import tensorflow as tf

  from tflite_export import manifest
  folder = tmp_path_factory.mktemp('serving')
  tf.keras.utils.set_random_seed(1)
  layers = tf.keras.layers
  model = tf.keras.Sequential([tf.keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(16, 'relu', name='hidden'),
                               layers.Dense(10, name='logits')])
  model.compile(tf.keras.optimizers.SGD(0.1), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  model.save(folder / 'model.keras')
  manifest.export_plan(model, uplink=UPLINK, downlink='int8', path=folder / 'plan', batch_size=10,
                       error_feedback=True)
  return folder


class Processes:
  """What a test started, with their output in files; all are ended with it."""

  def __init__(self, folder):
    self._folder, self._started = folder, []

  def start(self, name, program, *arguments):
    with open(self._folder / f'{name}.log', 'ab') as log:
      environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'OMP_NUM_THREADS': '1', 'TF_NUM_INTRAOP_THREADS': '1',
                     'TF_NUM_INTEROP_THREADS': '1'}
      self._started.append(subprocess.Popen([sys.executable, '-c', program, *map(str, arguments)], cwd=ROOT,
                                            stdout=log, stderr=log, env=environment))
    return self._started[-1]

  def log(self, name):
    return (self._folder / f'{name}.log').read_text(errors='replace')

  def said(self, name, pattern):
    """What a process says, waited for."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
      found = re.search(pattern, self.log(name))
      if found:
        return found[1]
      time.sleep(0.2)
    raise AssertionError(f'{name} does not say {pattern}:\n{self.log(name)}')

  def end(self):
    for process in self._started:
      with contextlib.suppress(OSError):
        process.kill()
      process.wait()


@pytest.fixture
def processes(tmp_path):
  found = Processes(tmp_path)
  yield found
  found.end()


def free_port():
  with socket.socket() as sock:
    sock.bind(('127.0.0.1', 0))
    return sock.getsockname()[1]


def test_two_rounds_with_a_server_that_is_killed_before_it_closes_one(files, processes, tmp_path):
  port, state = free_port(), tmp_path / 'state'
  options = [files / 'plan', '--model', files / 'model.keras', '--goal', 3, '--rounds', 2, '--port', port, '--state',
             state, '--keep-frames', '--data', 'digits', '--epochs', 3]
  server = processes.start('server', SERVE, 3, *options)
  code = processes.said('server', r'Enrolment code: (\S+)')
  devices = [processes.start(f'device-{client}', DEVICE, f'http://127.0.0.1:{port}', '--code', code, '--data',
                             f'digits:client={client},of=3,split=iid', '--state', tmp_path / f'device-{client}',
                             '--patience', DEADLINE) for client in range(3)]
  assert server.wait(DEADLINE) == -signal.SIGKILL, processes.log('server')

  store = aggregator.open_store(str(state))
  task = aggregator.Task(store, aggregator.open_task(store))
  assert [row['state'] for row in store.rounds(task.task)] == ['closed']  # And no model is made of it yet.
  before = store.accepted(task.task, 1)
  assert [number for number, *_ in before] == [1, 2, 3]

  server = processes.start('again', SERVE, -1, *options)
  assert server.wait(DEADLINE) == 0, processes.log('again')
  for client, device in enumerate(devices):
    assert device.wait(DEADLINE) == 0, processes.log(f'device-{client}')
    log = processes.log(f'device-{client}')
    assert 'The task is finished' in log and '2 updates were counted' in log
    assert log.splitlines()[-1] == '[]'  # No TensorFlow.
  assert store.accepted(task.task, 1) == before

  # The models are those of the frames, worked out here with NumPy alone.
  rows = store.rounds(task.task)
  assert [row['state'] for row in rows] == ['committed', 'committed']
  weights = wire.unpack('float32', store.blobs.get(rows[0]['model']), task.spec, seed=0)[0]
  for row in rows:
    accepted = store.accepted(task.task, row['round'])
    assert sum(examples for *_, examples in accepted) == 1438
    updates = [(wire.unpack(UPLINK, store.blobs.get(digest), task.spec, seed=task.seed)[0], examples)
               for _, _, digest, examples in accepted]
    for name in weights:
      first, second, third = (update[name].astype(np.float64) * examples for update, examples in updates)
      total = sum(examples for _, examples in updates)
      weights[name] = weights[name] + ((first + second + third) / total).astype(np.float32)
    result = wire.unpack('float32', store.blobs.get(row['result']), task.spec, seed=0)[0]
    assert all(np.array_equal(result[name], weights[name]) for name in weights)
  accuracy = [json.loads(row['figures'])['accuracy'] for row in rows]
  assert accuracy[1] > 0.5, accuracy
  store.close()

  replayed = subprocess.run([sys.executable, '-m', 'tff_compress.cli', 'replay', str(state), '--json'], cwd=ROOT,
                            capture_output=True, text=True, check=False)
  assert replayed.returncode == 0, replayed.stderr
  assert json.loads(replayed.stdout) == {'same': True, 'rounds': [{'round': number, 'updates': 3, 'same': True}
                                                                  for number in (1, 2)]}


@pytest.mark.parametrize('uplink, feedback, words', [
    (UPLINK, False, 'inside'), ('topk:1/4 | uniform:bits=4 | rice', True, 'inside'), ('int8', False, 'passed')])
def test_the_frames_of_a_device_are_those_of_numpy(tmp_path, uplink, feedback, words):
  """For the same weights and keys, byte for byte, with the residuals of error feedback too."""
  import tensorflow as tf

  from tff_compress import codec as codec_lib
  from tff_compress.device.runtime import Runtime
  from tflite_export import manifest
  model = tf.keras.Sequential([tf.keras.Input((6,)), tf.keras.layers.Dense(40, name='first'),
                               tf.keras.layers.Dense(3, name='second')])
  plan = manifest.export_plan(model, uplink=uplink, downlink='hadamard | uniform:bits=6 | pack', path=tmp_path / 'plan',
                              loss='mse', optimizer='sgd', words=words, error_feedback=feedback)
  runtime = Runtime(plan.manifest, {role: plan.file(role).read_bytes() for role in ('training', 'encoder', 'decoder')})
  rng = np.random.default_rng(1)
  spec, codec, residuals = plan.spec, codec_lib(uplink), {}
  update = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in spec.tensors}
  left = {t.name: np.zeros(t.shape, np.float32) for t in spec.tensors}
  for round in (1, 2):
    frame, residuals = runtime.encode(update, residuals, seed=2**63 + 5, round=round, client=7)
    whole = {name: update[name] + left[name] for name in update}
    assert frame == wire.pack(codec, whole, seed=2**63 + 5, round=round, client=7)
    if feedback:
      left = {t.name: residuals[f'residual_{place}'].reshape(t.shape) for place, t in enumerate(spec.tensors)}
      assert any(array.any() for array in left.values())
  coded = aggregator.pack(runtime.downlink, update, spec, 3, 4)
  decoded = wire.unpack(runtime.downlink, coded, spec, seed=3)[0]
  for name, array in runtime.model(coded, 3).items():
    np.testing.assert_allclose(array, decoded[name], rtol=1e-5, atol=1e-6)
  with pytest.raises(wire.FrameError):
    runtime.model(coded[:-1], 3)
