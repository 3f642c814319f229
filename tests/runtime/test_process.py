"""Worker processes end with the process that started them, whatever ends it. None of this needs TFF imported."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.runtime.processes import freeze
from tests.runtime.processes import is_running
from tests.runtime.processes import wait_for
from tff_compress.runtime import process as process_lib
from tff_compress.runtime.errors import RuntimeStartError

PACKAGE = importlib.util.find_spec('tensorflow_federated').submodule_search_locations[0]
BINARY = os.path.join(PACKAGE, 'data', 'worker_binary')
CHILD = """
import os, signal, sys, threading, time
from tff_compress.runtime.process import WorkerProcess
def start():
  global worker
  worker = WorkerProcess(sys.argv[1])
  print(worker.pid, flush=True)
"""


def run_child(script, *, end=None, ignore_sigint=False):
  """Runs a Python process that prints a worker's pid, ends it with a signal if `end` is one, and reads its output to
  the end.

  Returns:
    The worker's pid and what the process printed after it.
  """
  # A shell starts jobs in the background this way.
  prefix = ['sh', '-c', 'trap "" INT; exec "$@"', 'sh'] if ignore_sigint else []
  # Unbuffered, so that `readline` leaves what follows to `communicate`.
  child = subprocess.Popen(prefix + [sys.executable, '-c', CHILD + script, BINARY], stdout=subprocess.PIPE, bufsize=0)
  try:
    pid = int(child.stdout.readline())
    if end is not None:
      child.send_signal(end)
    output, _ = child.communicate(timeout=20)  # To the end of the pipe, which a worker that held it would keep open.
  finally:
    child.kill()
  return pid, output.decode()


@pytest.fixture
def worker():
  process = process_lib.WorkerProcess(BINARY)
  yield process
  process.stop()


@pytest.mark.thorough
@pytest.mark.parametrize('script, end', [
    ('start()', None),
    ('start(); os._exit(1)', None),
    ('start(); time.sleep(60)', signal.SIGTERM),
    ('start(); time.sleep(60)', signal.SIGKILL),
], ids=['return', 'os._exit', 'SIGTERM', 'SIGKILL'])
@pytest.mark.parametrize('ignore_sigint', [False, True], ids=['foreground', 'background'])
def test_the_worker_ends_with_the_process(script, end, ignore_sigint):
  pid, _ = run_child(script, end=end, ignore_sigint=ignore_sigint)
  assert wait_for(lambda: not is_running(pid))


def test_the_worker_outlives_the_thread_that_asked_for_it():
  script = """
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(0.2)
print(worker.ending())
"""
  pid, output = run_child(script)
  assert output.strip() == 'None'
  assert wait_for(lambda: not is_running(pid))


def test_a_forked_child_leaves_the_worker_to_its_parent():
  script = """
start()
child = os.fork()
if not child:
  worker.stop()
  os._exit(0)
os.waitpid(child, 0)
print(worker.ending(wait=0.2))
"""
  _, output = run_child(script)
  assert output.strip() == 'None'


def test_a_worker_started_in_the_background_does_not_ignore_sigint():
  script = """
start()
os.kill(worker.pid, signal.SIGINT)
print(worker.ending(wait=10))
"""
  _, output = run_child(script, ignore_sigint=True)
  assert output.strip() == f'was killed by signal {signal.SIGINT.value}'


def test_stop_ends_a_worker_that_does_not_listen_to_sigterm(worker, monkeypatch):
  monkeypatch.setattr(process_lib, '_STOP_SECONDS', 0.1)
  freeze(worker.pid)
  worker.stop()
  assert worker.ending() == f'was killed by signal {signal.SIGKILL.value}'


def test_a_reserved_port_is_for_the_worker_alone():
  with process_lib._reserve_port() as reserved, socket.socket() as other, socket.socket() as as_grpc_does:
    port = reserved.getsockname()[1]
    with pytest.raises(OSError, match='in use'):
      other.bind(('', port))
    as_grpc_does.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    as_grpc_does.bind(('', port))


def test_workers_started_at_the_same_time_have_ports_of_their_own():
  started = []
  threads = [threading.Thread(target=lambda: started.append(process_lib.WorkerProcess(BINARY))) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for process in started:
    process.stop()
  assert len({process.target for process in started}) == 4


def test_a_program_that_ends_at_once_is_reported_with_its_status():
  with pytest.raises(RuntimeStartError, match='exited with status 1 before it was ready: pass log_dir='):
    process_lib.WorkerProcess('/bin/false')


def test_what_the_worker_prints_goes_to_the_log(tmp_path):
  log = tmp_path / 'worker.log'
  process = process_lib.WorkerProcess(BINARY, log_path=log)
  try:
    assert wait_for(lambda: 'listening' in log.read_text())
  finally:
    process.stop()
