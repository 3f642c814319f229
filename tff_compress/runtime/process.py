"""TFF worker processes that never outlive the Python process that started them, nor hold its output open.

TFF stops its own worker in a destructor, with SIGINT: after `os._exit`, `kill -9` or SIGTERM the worker is left, with
the standard output it inherited; and started in the background, where SIGINT is ignored, Python waits for it for ever.
"""

from collections.abc import Callable
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import Any
from typing import IO
import warnings

from tff_compress.runtime.errors import RuntimeStartError

_LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'launcher.py')
_START_SECONDS = 60
_STOP_SECONDS = 2


class WorkerProcess:
  """A running `worker_binary` of this machine, ready to be connected to.

  Attributes:
    pid: its process id.
    target: its address, 'host:port'. TFF's worker listens on all interfaces, without authentication.
  """

  def __init__(self, binary: str, *, max_concurrent_computation_calls: int | None = None,
               log_path: str | None = None) -> None:
    """Starts the worker and waits until it listens.

    Args:
      binary: path of TFF's `worker_binary`.
      max_concurrent_computation_calls: how many calls of one computation the worker runs at the same time; None: no
        limit.
      log_path: file to which what the worker prints is appended; None: it is thrown away.

    Raises:
      RuntimeStartError: the worker stopped, or did not listen within a minute.
    """
    if sys.platform != 'linux':
      warnings.warn(
          f'on {sys.platform} a TFF worker can outlive a Python process that is killed; only on Linux it cannot.',
          stacklevel=2)
    self._port = _reserve_port()
    port = self._port.getsockname()[1]
    self.target = f'127.0.0.1:{port}'
    command = [sys.executable, '-I', '-S', _LAUNCHER, str(os.getpid()), binary, f'--port={port}',
               f'--max_concurrent_computation_calls={max_concurrent_computation_calls or -1}']
    log: IO[bytes] | int = open(log_path, 'ab') if log_path else subprocess.DEVNULL
    environment = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '0'}  # A log that is asked for is asked for whole.
    try:
      self._process = _starter.run(lambda: subprocess.Popen(
          command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment))
    except OSError as error:
      self._port.close()
      raise RuntimeStartError(f'the TFF worker {binary} cannot be started: {error}.') from error
    finally:
      if not isinstance(log, int):
        log.close()
    self.pid = self._process.pid
    try:
      problem = self._wait_until_it_listens(port)
      if problem:
        where = f'see {log_path}' if log_path else 'pass log_dir= to keep what it prints'
        raise RuntimeStartError(f'the TFF worker {problem} before it was ready: {where}.')
    except BaseException:
      self.stop()
      raise

  def _wait_until_it_listens(self, port: int) -> str | None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
      try:
        socket.create_connection(('127.0.0.1', port), timeout=1).close()
        return None
      except OSError:
        if self.ending():
          return self.ending()
        if time.monotonic() > give_up:
          return f'did not listen within {_START_SECONDS} s'
        time.sleep(0.01)

  def ending(self, wait: float = 0) -> str | None:
    """How the worker ended, as text such as 'was killed by signal 9', or None if it still runs after `wait` seconds."""
    try:
      status = self._process.wait(wait)
    except subprocess.TimeoutExpired:
      return None
    return f'was killed by signal {-status}' if status < 0 else f'exited with status {status}'

  def stop(self) -> None:
    """Stops the worker, with SIGTERM and then SIGKILL, and waits for its end. In a forked child it does nothing."""
    if self._process.poll() is None:
      self._process.terminate()
      try:
        self._process.wait(_STOP_SECONDS)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
    self._port.close()


def _reserve_port() -> socket.socket:
  """Returns a socket bound to a free port, never listening, that keeps other programs off the port while it is open.

  gRPC servers bind with SO_REUSEPORT, so the worker can bind the same port beside it. Without a reservation two
  processes that pick one port at the same time would both get it, and each other's calls.
  """
  for family, host in ((socket.AF_INET6, '::'), (socket.AF_INET, '0.0.0.0')):
    try:
      reserved = socket.socket(family, socket.SOCK_STREAM)
    except OSError:  # No IPv6 here.
      continue
    try:
      if family == socket.AF_INET6:
        reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
      reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      reserved.bind((host, 0))
      return reserved
    except OSError:
      reserved.close()
  raise RuntimeStartError('no port is free for a TFF worker: close programs that hold network connections.')


class _Starter:
  """One thread that starts all workers and ends only with the process.

  The kernel kills a worker when the *thread* that started it ends, so a thread of the caller's will not do.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._jobs: queue.SimpleQueue[Any] | None = None

  def run(self, job: Callable[[], Any]) -> Any:
    """Returns the result of `job()`, or raises what it raises."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with self._lock:
      if self._jobs is None:
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._serve, args=(self._jobs,), name='tff-worker-starter', daemon=True).start()
      self._jobs.put((job, answers))
    result, error = answers.get()
    if error is not None:
      raise error
    return result

  @staticmethod
  def _serve(jobs: queue.SimpleQueue[Any]) -> None:
    while True:
      job, answers = jobs.get()
      try:
        answers.put((job(), None))
      except BaseException as error:  # Whatever it is, it belongs to the caller.
        answers.put((None, error))


_starter = _Starter()


def _forget_starter() -> None:
  global _starter
  _starter = _Starter()


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_forget_starter)
