"""Computations on one worker and on several, and what happens when a worker is slow, dies or is not there."""

import collections
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2

from tests.runtime.processes import freeze
from tests.runtime.processes import is_running
from tests.runtime.processes import wait_for
from tff_compress import runtime
from tff_compress.runtime import compat

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

CLIENT_FLOATS = tff.FederatedType(np.float32, tff.CLIENTS)


@tff.federated_computation(CLIENT_FLOATS)
def total(values):
  return tff.federated_sum(values)


@tff.federated_computation(CLIENT_FLOATS)
def doubled(values):
  return tff.federated_map(tff.tensorflow.computation(lambda x: 2 * x, np.float32), values)


@tff.federated_computation
def number_of_clients():
  return tff.federated_sum(tff.federated_value(1, tff.CLIENTS))


@tff.tensorflow.computation(np.float32)
def never_returns(x):
  return tf.while_loop(lambda x: True, lambda x: (x + 1,), (x,))[0]


def marked_sum():
  """A sum of client values whose `merge` adds 1000, which no right one does."""
  @tff.tensorflow.computation
  def zero():
    return tf.constant(0, tf.int32)

  @tff.tensorflow.computation(np.int32, np.int32)
  def add(a, b):
    return a + b

  @tff.tensorflow.computation(np.int32, np.int32)
  def merge(a, b):
    return a + b + 1000

  @tff.tensorflow.computation(np.int32)
  def report(a):
    return a

  @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
  def aggregate(values):
    return tff.federated_aggregate(values, zero(), add, merge, report)

  return aggregate


@pytest.fixture(scope='module')
def two_workers(tff_runtime):
  with runtime.local_context(workers=2, default_num_clients=5, deadline=120) as context, compat.installed(tff_runtime):
    yield context


@pytest.fixture(params=[1, 2], ids=['one', 'two'])
def context(request, tff_runtime, two_workers):
  """The runtime that the test's computations run in."""
  context = tff_runtime if request.param == 1 else two_workers
  with compat.installed(context):
    yield context


def kill_during_call(context, index):
  """Kills a worker as soon as it is called."""
  worker = context._workers[index]

  def kill():
    if wait_for(lambda: worker.connect().lock.locked(), seconds=30):
      os.kill(worker.pid, signal.SIGKILL)

  thread = threading.Thread(target=kill)
  thread.start()
  return thread


@pytest.mark.parametrize('clients', [0, 1, 2, 5])
def test_a_sum_over_clients(context, clients):
  assert total([float(client) for client in range(clients)]) == sum(range(clients))


@pytest.mark.parametrize('clients', [1, 2, 7])
def test_client_values_come_back_in_order(context, clients):
  values = [float(client) for client in range(clients)]
  assert doubled(values) == [2 * value for value in values]


def test_computations_without_clients(context):
  assert tff.tensorflow.computation(lambda x: x + 1, np.int32)(1) == 2
  assert tff.federated_computation(lambda: tff.federated_value(3, tff.SERVER))() == 3


def test_a_structure_keeps_its_containers(context):
  @tff.federated_computation(CLIENT_FLOATS, tff.FederatedType(np.float32, tff.SERVER))
  def both(values, server):
    return collections.OrderedDict(total=tff.federated_sum(values), server=server, clients=values)

  values = [1.0, 2.0, 4.0]
  assert both(values, 9.0) == collections.OrderedDict(total=7.0, server=9.0, clients=values)


def test_payloads_of_different_length_reach_the_server(context):
  @tff.tensorflow.computation
  def zero():
    return tf.constant(0, tf.int64)

  @tff.tensorflow.computation(np.int64, tff.TensorType(np.uint8, [None]))
  def count(bytes_so_far, payload):
    return bytes_so_far + tf.size(payload, out_type=tf.int64)

  @tff.tensorflow.computation(np.int64, np.int64)
  def add(a, b):
    return a + b

  @tff.tensorflow.computation(np.int64)
  def report(a):
    return a

  @tff.federated_computation(tff.FederatedType(tff.TensorType(np.uint8, [None]), tff.CLIENTS))
  def uplink_bytes(payloads):
    return tff.federated_aggregate(payloads, zero(), count, add, report)

  assert uplink_bytes([np.zeros(n, np.uint8) for n in (0, 3, 5)]) == 8


def test_errors_of_a_computation_are_raised_as_tff_raises_them(context):
  @tff.tensorflow.computation(np.int32)
  def refuses(x):
    with tf.control_dependencies([tf.debugging.assert_equal(x, 0, message='x is not zero')]):
      return tf.identity(x)

  with pytest.raises(grpc.RpcError, match='x is not zero'):
    refuses(1)
  assert refuses(0) == 0


def test_two_workers_merge_once(two_workers, tff_runtime):
  aggregate = marked_sum()
  assert aggregate([1, 2, 3, 4, 5]) == 15
  with compat.installed(two_workers):
    assert aggregate([1, 2, 3, 4, 5]) == 15 + 1000


@pytest.mark.parametrize('shards, expected',
                         [(1, [[1, 2, 3]]), (2, [[1], [2, 3]]), (3, [[1], [2], [3]]), (5, [[1], [2], [3]])])
def test_clients_are_split_in_order(shards, expected):
  value_type = tff.StructType([('clients', CLIENT_FLOATS), ('server', tff.FederatedType(np.float32, tff.SERVER))])
  parts = compat.split(collections.OrderedDict(clients=[1, 2, 3], server=9), value_type, shards)
  assert [part.clients for part in parts] == expected
  assert all(part.server == 9 for part in parts)


def test_partial_results_merge_in_the_order_of_the_clients(two_workers):
  # 2^24 + 1 - 2^24 is 0 or 1 in float32, as the order has it. Three shards of one client need a third worker.
  values = [2.0**24, 1.0, -2.0**24]
  with runtime.local_context(workers=3):
    assert {float(total(values)) for _ in range(5)} == {0.0}
    assert {float(total([values[0], values[2], values[1]])) for _ in range(5)} == {1.0}


def test_default_clients_are_shared_out(two_workers):
  with compat.installed(two_workers):
    assert number_of_clients() == 5


def test_dependent_aggregations_need_one_worker(two_workers):
  @tff.federated_computation(CLIENT_FLOATS)
  def variance(values):
    mean = tff.federated_broadcast(tff.federated_mean(values))
    return tff.federated_mean(tff.federated_map(
        tff.tensorflow.computation(lambda x, m: (x - m)**2, (np.float32, np.float32)), (values, mean)))

  assert variance([1.0, 3.0]) == 1.0
  with compat.installed(two_workers), pytest.raises(runtime.NotMergeableError, match='workers=1'):
    variance([1.0, 3.0])


def test_calls_from_several_threads(tff_runtime):
  def call(n):
    with compat.installed(tff_runtime):
      return total([float(n), 1.0])

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(call, range(12))) == [n + 1 for n in range(12)]


@pytest.mark.parametrize('workers', [1, 2])
def test_a_worker_killed_during_a_call_is_an_error_and_replaced(workers):
  @tff.federated_computation(CLIENT_FLOATS)
  def never(values):
    return tff.federated_sum(tff.federated_map(never_returns, values))

  with runtime.local_context(workers=workers, deadline=60) as context:
    assert total([1.0, 2.0]) == 3
    before = context.pids
    killer = kill_during_call(context, workers - 1)
    start = time.monotonic()
    with pytest.raises(runtime.RuntimeConnectionError, match='killed by signal 9 during a call: call again'):
      never([1.0, 2.0])
    assert time.monotonic() - start < 20
    killer.join()
    assert total([1.0, 2.0]) == 3
    assert len(context.pids) == workers and before[-1] not in context.pids


def test_a_worker_killed_between_calls_is_replaced():
  with runtime.local_context() as context:
    assert total([1.0, 2.0]) == 3
    [pid] = context.pids
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not is_running(pid))
    assert total([1.0, 2.0]) == 3


def test_a_worker_that_forgot_is_sent_everything_again(monkeypatch):
  forgotten = []
  get_executor = compat._Stub.get_executor

  def get_and_forget_once(stub, request):
    response = get_executor(stub, request)
    if not forgotten:  # As if the worker had been started again just after.
      forgotten.append(response.executor)
      stub.dispose_executor(executor_pb2.DisposeExecutorRequest(executor=response.executor))
    return response

  monkeypatch.setattr(compat._Stub, 'get_executor', get_and_forget_once)
  with runtime.local_context():
    assert total([1.0, 2.0]) == 3
  assert forgotten


def test_a_call_ends_at_its_deadline():
  with runtime.local_context() as context:
    assert total([1.0, 2.0]) == 3
    context.deadline = 0.5
    start = time.monotonic()
    with pytest.raises(runtime.RuntimeDeadlineError, match='0.5 s'):
      never_returns(1.0)
    assert time.monotonic() - start < 5
    context.deadline = 60
    assert total([1.0, 2.0]) == 3


def test_ctrl_c_ends_a_call():
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with runtime.local_context(deadline=60):
      assert total([1.0, 2.0]) == 3
      timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
      timer.start()
      with pytest.raises(KeyboardInterrupt):
        never_returns(1.0)
      timer.join()
      assert total([1.0, 2.0]) == 3
  finally:
    signal.signal(signal.SIGINT, before)


def test_check_finds_a_worker_that_ended():
  with runtime.local_context(workers=2) as context:
    context.check()
    pid = context.pids[1]
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not is_running(pid))
    with pytest.raises(runtime.RuntimeConnectionError, match='killed by signal 9'):
      context.check()
    assert total([1.0, 2.0]) == 3
    context.check()


def test_check_finds_a_worker_that_does_not_answer():
  with runtime.local_context() as context:
    freeze(context.pids[0])
    with pytest.raises(runtime.RuntimeConnectionError, match='does not answer within 0.2 s'):
      context.check(timeout=0.2)


def test_a_closed_runtime_says_so():
  with runtime.local_context() as context:
    [pid] = context.pids
    context.close()
    assert not is_running(pid)
    with pytest.raises(runtime.TffRuntimeError, match='closed'):
      total([1.0])


def test_connecting_to_no_one():
  with pytest.raises(runtime.RuntimeConnectionError, match='no TFF worker answers at localhost:1 within 0.3 s'):
    runtime.connect(['localhost:1'], timeout=0.3)


def test_connecting_to_something_else():
  server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
  port = server.add_insecure_port('localhost:0')
  server.start()
  try:
    with pytest.raises(runtime.RuntimeConnectionError, match='does not answer as a TFF worker'):
      runtime.connect([f'localhost:{port}'], timeout=5)
  finally:
    server.stop(None)


@pytest.mark.parametrize('wrong', [{'workers': 0}, {'default_num_clients': -1}, {'deadline': 0},
                                   {'max_concurrent_computation_calls': 0}], ids=str)
def test_arguments_are_checked(wrong):
  with pytest.raises(ValueError, match=str(*wrong.values())):
    with runtime.local_context(**wrong):
      pass


@pytest.mark.parametrize('targets', ['localhost:8000', [], ['localhost']], ids=str)
def test_targets_are_checked(targets):
  with pytest.raises(ValueError, match='targets is a list of addresses'):
    runtime.connect(targets)


def test_install_replaces_connects_and_leaves_nothing_behind():
  script = pathlib.Path(__file__).with_name('lifecycle.py')
  # In the background and through a pipe, where TFF's own runtime never ends.
  command = ['sh', '-c', 'trap "" INT; exec "$@"', 'sh', sys.executable, str(script)]
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(command, capture_output=True, timeout=300, text=True, cwd=root,
                        env={**os.environ, 'PYTHONPATH': str(root)}, check=False)
  assert done.returncode == 0, done.stderr
  seen = json.loads(done.stdout)
  pid = seen.pop('pid')
  gone = seen.pop('worker gone')
  assert seen == {
      'one worker': 6, 'first closed by second': True, 'two workers': 6, 'second closed by connect': True,
      'connected': 6,
      'worker restarted': 6, 'connect leaves workers running': True, 'last': 6}
  assert 'no TFF worker answers at 127.0.0.1' in gone
  assert not is_running(pid)


def test_importing_the_package_does_not_import_tensorflow():
  code = ('import sys, tff_compress.runtime; '
          'print([m for m in ("tensorflow", "tensorflow_federated", "grpc") if m in sys.modules])')
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
