"""A process that installs, replaces and connects runtimes, for test_context.py; it prints what it saw as one line of
JSON.

Separate from the tests because `install` and `connect` replace the runtime that all other tests of a process share.
"""

import json
import os
import signal
import socket
import subprocess

import numpy as np
import tensorflow_federated as tff

from tests.runtime.processes import is_running
from tests.runtime.processes import wait_for
from tff_compress import runtime
from tff_compress.runtime import compat
from tff_compress.runtime import process as process_lib


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def total(values):
  return tff.federated_sum(values)


def restart(worker):
  """Kills a worker, starts another on its port, and returns that when it listens."""
  port = worker.target.rpartition(':')[2]
  os.kill(worker.pid, signal.SIGKILL)
  worker.ending(wait=5)
  again = subprocess.Popen([compat.worker_binary(), f'--port={port}'], stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
  assert wait_for(lambda: listens(port))
  return again


def listens(port):
  with socket.socket() as probe:
    return probe.connect_ex(('127.0.0.1', int(port))) == 0


def close_in_a_forked_child(context):
  child = os.fork()
  if not child:
    context.close()
    os._exit(0)
  os.waitpid(child, 0)


def main():
  seen = {}
  first = runtime.install()
  seen['one worker'] = int(total([1, 2, 3]))
  [pid] = first.pids
  second = runtime.install(workers=2)
  seen['first closed by second'] = first.closed and not is_running(pid)
  seen['two workers'] = int(total([1, 2, 3]))

  elsewhere = [process_lib.WorkerProcess(compat.worker_binary()) for _ in range(2)]
  with runtime.connect([worker.target for worker in elsewhere], timeout=5):
    seen['second closed by connect'] = second.closed
    seen['connected'] = int(total([1, 2, 3]))
    again = restart(elsewhere[1])
    seen['worker restarted'] = int(total([1, 2, 3]))
    again.kill()
    again.wait()
    try:
      total([1, 2, 3])
    except runtime.RuntimeConnectionError as error:
      seen['worker gone'] = str(error)
  seen['connect leaves workers running'] = elsewhere[0].ending() is None
  elsewhere[0].stop()

  last = runtime.install()
  close_in_a_forked_child(last)
  seen['last'] = int(total([1, 2, 3]))
  seen['pid'] = last.pids[0]
  print(json.dumps(seen))


if __name__ == '__main__':
  main()
