"""The TFF execution context of this project, over worker processes of its own or workers started elsewhere."""

import asyncio
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import contextlib
import functools
import os
import threading
import time
from typing import Any
from typing import Self
import weakref

import grpc

from tff_compress.runtime import compat
from tff_compress.runtime import process as process_lib
from tff_compress.runtime.errors import RuntimeConnectionError
from tff_compress.runtime.errors import RuntimeDeadlineError
from tff_compress.runtime.errors import TffRuntimeError

_CONNECT_SECONDS = 30.0

_installed: 'Runtime | None' = None


class _Connection:
  """A channel to a running worker, TFF's context on it, and the worker's process if it is ours."""

  def __init__(self, target: str, process: process_lib.WorkerProcess | None, default_num_clients: int,
               timeout: float) -> None:
    self._owner = os.getpid()
    self.target = target
    self.process = process
    self.lock = threading.Lock()  # TFF's remote executor is not made for two calls at a time.
    self.closed = False
    # A proxy named in the environment cannot reach a worker of this machine.
    options = compat.CHANNEL_OPTIONS + ((('grpc.enable_http_proxy', 0),) if process else ())
    self.channel = grpc.insecure_channel(target, options)
    try:
      grpc.channel_ready_future(self.channel).result(timeout)
      compat.ping(self.channel, timeout)
    except grpc.FutureTimeoutError as error:
      self.close()
      raise RuntimeConnectionError(f'no TFF worker answers at {target} within {timeout:g} s: start one there with '
                                   f'worker_binary --port={target.rpartition(":")[2]}.') from error
    except grpc.RpcError as error:
      self.close()
      raise RuntimeConnectionError(f'what listens at {target} does not answer as a TFF worker ({error.code().name}): '
                                   'name the port given to worker_binary.') from error
    except BaseException:
      self.close()
      raise
    self.context = compat.remote_context(self.channel, default_num_clients)

  def is_usable(self, timeout: float) -> bool:
    """Whether a call can be sent: a dead process is known at once, a worker elsewhere has to be asked."""
    if self.process:
      return not self.process.ending()
    try:
      compat.ping(self.channel, timeout)
      return True
    except grpc.RpcError:
      return False

  def close(self) -> None:
    """Ends calls in progress and our own process. Does nothing in a forked child, which shares both with its parent."""
    if os.getpid() != self._owner:
      return
    self.closed = True
    self.channel.close()
    if self.process:
      self.process.stop()


class _Worker:
  """One worker: connected to when it is needed, and again when it was lost."""

  def __init__(self, *, default_num_clients: int, connect_timeout: float, target: str = '',
               launch: Callable[[], process_lib.WorkerProcess] | None = None) -> None:
    self._default_num_clients = default_num_clients
    self._timeout = connect_timeout
    self._target = target
    self._launch = launch
    self._lock = threading.Lock()
    self._connection: _Connection | None = None
    self._closed = False

  def connect(self) -> _Connection:
    """Returns a connection to the worker, started first if it is ours and does not run."""
    with self._lock:
      self._check_open()
      connection = self._connection
      if connection and not connection.closed and not connection.is_usable(self._timeout):
        connection.close()
      if connection is None or connection.closed:
        process = self._launch() if self._launch else None
        target = process.target if process else self._target
        self._connection = connection = _Connection(target, process, self._default_num_clients, self._timeout)
        if self._closed:  # Meanwhile, from another thread.
          connection.close()
          self._check_open()
      return connection

  def _check_open(self) -> None:
    if self._closed:
      raise TffRuntimeError('this TFF runtime is closed: call tff_compress.runtime.install() for another.')

  @property
  def pid(self) -> int | None:
    connection = self._connection
    return connection.process.pid if connection and not connection.closed and connection.process else None

  def submit(self, computation: Any, argument: Any) -> concurrent.futures.Future[Any]:
    """Starts a call and returns its future. It stays pending, and can be cancelled, until the worker is free for it."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # A daemon thread, so that a call that hangs does not keep Python from ending.
    threading.Thread(target=self._run, args=(future, computation, argument), name='tff-call', daemon=True).start()
    return future

  def _run(self, future: concurrent.futures.Future[Any], computation: Any, argument: Any) -> None:
    try:
      for last in (False, True):
        connection = self._acquire()
        try:
          if not future.running() and not future.set_running_or_notify_cancel():
            return
          future.set_result(asyncio.run(connection.context.invoke(computation, argument)))
          return
        except compat.LostState as error:
          # Someone started the worker again since the last call. Nothing of this call has run.
          connection.close()
          if last:
            raise RuntimeConnectionError(
                f'the TFF worker at {connection.target} forgets what it is sent: restart it.') from error
        except compat.LostConnection as error:
          # The connection ends a little before the process that held it.
          problem = _ending(connection, wait=1) or f'was lost ({error})'
          connection.close()
          remedy = ('call again to start another, with fewer clients if it ran out of memory' if connection.process else
                    'see that it runs, then call again')
          raise RuntimeConnectionError(
              f'the TFF worker at {connection.target} {problem} during a call: {remedy}.') from error
        finally:
          connection.lock.release()
    except BaseException as error:  # The caller waits for it, whatever it is.
      if future.running() or future.set_running_or_notify_cancel():
        future.set_exception(error)

  def _acquire(self) -> _Connection:
    while True:
      connection = self.connect()
      connection.lock.acquire()
      if not connection.closed:
        return connection
      connection.lock.release()

  def check(self, timeout: float) -> None:
    """Raises RuntimeConnectionError if the worker ended, or does not answer within `timeout` seconds."""
    connection = self._connection
    if connection is None or connection.closed or not _ending(connection):
      connection = self.connect()
      try:
        compat.ping(connection.channel, timeout)
        return
      except grpc.RpcError:
        pass
    # The worker ends a little before the process that held it.
    problem = _ending(connection, wait=1) or f'does not answer within {timeout:g} s'
    connection.close()
    remedy = 'the next call starts another' if connection.process else 'see that it runs'
    raise RuntimeConnectionError(f'the TFF worker at {connection.target} {problem}: {remedy}.')

  def abort(self) -> None:
    """Ends the call in progress; the next one finds a new worker, or connects anew."""
    connection = self._connection
    if connection:
      connection.close()

  def close(self) -> None:
    self._closed = True
    self.abort()


def _ending(connection: _Connection, wait: float = 0) -> str | None:
  return connection.process.ending(wait) if connection.process else None


class Runtime(compat.SyncContext):
  """Runs TFF computations on one worker, or on several that each take a share of the clients.

  `install`, `connect` and `local_context` make one. A `with` block on it closes it, and so does the end of the process.
  TFF has a default context for each thread: another thread uses this one `with
  tff.framework.get_context_stack().install(runtime)`.

  Several workers run a computation as TFF's mergeable context does, and need what that needs: no aggregation may depend
  on the result of another. Unlike there, workers run at the same time, and partial results merge in the order of the
  clients, as the clients' own results come back: the same inputs give the same floats.

  Attributes:
    deadline: seconds that one call may take, None for no limit. When it is over, the call ends with
      RuntimeDeadlineError and local workers that were still busy are replaced at the next call. Splitting a computation
      for several workers, once for each computation, comes before the clock starts.
  """

  def __init__(self, workers: list[_Worker], *, deadline: float | None) -> None:
    self._workers = workers
    self._compile = compat.mergeable_compiler()
    self.deadline = deadline
    # Not a method, which would keep the runtime alive until the end of the process, where this runs at the latest.
    self._close_workers = weakref.finalize(self, _close_all, workers)
    try:
      for worker in workers:
        worker.connect()
    except BaseException:
      self._close_workers()
      raise

  @property
  def deadline(self) -> float | None:
    return self._deadline

  @deadline.setter
  def deadline(self, seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
      raise ValueError(f'a deadline is a positive number of seconds or None, not {seconds!r}.')
    self._deadline = seconds

  @property
  def pids(self) -> list[int]:
    """Process ids of the local workers that run, in order."""
    return [worker.pid for worker in self._workers if worker.pid is not None]

  @property
  def closed(self) -> bool:
    return not self._close_workers.alive

  def invoke(self, comp: Any, arg: Any = None) -> Any:
    """Runs a computation; TFF calls this when a computation is called.

    Raises:
      RuntimeConnectionError: a worker was lost; a local one is replaced at the next call.
      RuntimeDeadlineError: the call took longer than `deadline`.
      NotMergeableError: there are several workers, and an aggregation depends on another.
      TffRuntimeError: this runtime is closed.
    """
    if len(self._workers) == 1:
      return self._gather([(self._workers[0], comp, arg)], self._expiry())[0]
    form = self._compile(comp)
    expiry = self._expiry()
    if form is None:
      return self._gather([(self._workers[0], comp, arg)], expiry)[0]
    return self._invoke_sharded(form, arg, expiry)

  def _invoke_sharded(self, form: Any, arg: Any, expiry: float | None) -> Any:
    shards = compat.split(arg, form.up_to_merge.type_signature.parameter, len(self._workers))
    calls = [(worker, form.up_to_merge, shard) for worker, shard in zip(self._workers, shards)]
    merged, *others = self._gather(calls, expiry)
    for other in others:
      [merged] = self._gather([(self._workers[0], form.merge, compat.pair(merged, other))], expiry)
    if not compat.returns_client_values(form):
      shards = shards[:1]  # All would give the same result.
    calls = [(worker, form.after_merge, merged if arg is None else compat.pair(shard, merged))
             for worker, shard in zip(self._workers, shards)]
    return compat.join(form, self._gather(calls, expiry))

  def _expiry(self) -> float | None:
    return None if self._deadline is None else time.monotonic() + self._deadline

  def _gather(self, calls: Sequence[tuple[_Worker, Any, Any]], expiry: float | None) -> list[Any]:
    """Runs (worker, computation, argument) at the same time; returns the results in order, or raises the first
    error."""
    running = [(worker, worker.submit(computation, argument)) for worker, computation, argument in calls]
    futures = [future for _, future in running]
    try:
      timeout = None if expiry is None else max(0, expiry - time.monotonic())
      _, pending = concurrent.futures.wait(futures, timeout, concurrent.futures.FIRST_EXCEPTION)
      for future in futures:
        error = future.exception() if future.done() else None
        if error is not None:
          raise error
      if pending:
        raise RuntimeDeadlineError(
            f'a call took longer than its deadline of {self._deadline:g} s: give it more time, or '
            'fewer clients.')
    except BaseException:  # Ctrl-C too must not leave workers busy with what no one waits for.
      for worker, future in running:
        if not future.done() and not future.cancel():
          worker.abort()
      raise
    return [future.result() for future in futures]

  def check(self, timeout: float = 10.0) -> None:
    """Asks every worker for a sign of life.

    Raises:
      RuntimeConnectionError: a worker ended, or did not answer within `timeout` seconds.
      TffRuntimeError: this runtime is closed.
    """
    for worker in self._workers:
      worker.check(timeout)

  def close(self) -> None:
    """Ends calls in progress and stops local workers. Calls from then on raise `TffRuntimeError`."""
    self._close_workers()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def _close_all(workers: list[_Worker]) -> None:
  for worker in workers:
    worker.close()


def _start(*, workers: int, max_concurrent_computation_calls: int | None, default_num_clients: int,
           deadline: float | None, log_dir: str | None) -> Runtime:
  if workers < 1:
    raise ValueError(f'a runtime needs at least one worker, not {workers}.')
  if max_concurrent_computation_calls is not None and max_concurrent_computation_calls < 1:
    raise ValueError(f'max_concurrent_computation_calls is positive or None, not {max_concurrent_computation_calls}.')
  if log_dir is not None:
    os.makedirs(log_dir, exist_ok=True)

  def launch(index: int) -> process_lib.WorkerProcess:
    return process_lib.WorkerProcess(
        compat.worker_binary(), max_concurrent_computation_calls=max_concurrent_computation_calls,
        log_path=None if log_dir is None else os.path.join(log_dir, f'worker-{index}.log'))

  return Runtime([_Worker(default_num_clients=share, connect_timeout=_CONNECT_SECONDS,
                          launch=functools.partial(launch, index))
                  for index, share in enumerate(_shares(default_num_clients, workers))], deadline=deadline)


def _shares(clients: int, workers: int) -> list[int]:
  """Splits a number of clients as evenly as possible."""
  if clients < 0:
    raise ValueError(f'default_num_clients is at least 0, not {clients}.')
  return [len(range(index, clients, workers)) for index in range(workers)]


def _install(runtime: Runtime) -> Runtime:
  global _installed
  compat.set_default_context(runtime)
  if _installed is not None:
    _installed.close()
  _installed = runtime
  return runtime


def install(*, workers: int = 1, max_concurrent_computation_calls: int | None = None, default_num_clients: int = 0,
            deadline: float | None = None, log_dir: str | None = None) -> Runtime:
  """Starts local TFF workers and makes them the default context of this thread, in place of TFF's own.

  A second call replaces the runtime of the first, and closes it. The workers end with this process, however it ends.

  Args:
    workers: number of worker processes. With more than one the clients of a call are split over them.
    max_concurrent_computation_calls: how many clients a worker computes at the same time; None: no limit.
    default_num_clients: number of clients of computations whose arguments do not tell.
    deadline: seconds that one call may take; None: no limit.
    log_dir: directory for what the workers print, worker-0.log and so on; None: thrown away.

  Returns:
    The `Runtime`.

  Raises:
    RuntimeStartError: a worker could not be started.
  """
  return _install(_start(
      workers=workers, max_concurrent_computation_calls=max_concurrent_computation_calls,
      default_num_clients=default_num_clients, deadline=deadline, log_dir=log_dir))


def connect(targets: Sequence[str], *, default_num_clients: int = 0, deadline: float | None = None,
            timeout: float = 30.0) -> Runtime:
  """Connects to TFF workers that run elsewhere, and makes them the default context of this thread.

  A worker is started with `worker_binary --port=PORT`, the program in TFF's `data` directory. TFF 0.87 has neither
  authentication nor encryption: on a network of your own only. A worker that is started again is found again.

  Args:
    targets: addresses, each 'host:port'.
    default_num_clients: number of clients of computations whose arguments do not tell, over all workers.
    deadline: seconds that one call may take; None: no limit, and a machine that vanishes is noticed after minutes.
    timeout: seconds to wait for a worker to answer, now and after it was lost.

  Returns:
    The `Runtime`.

  Raises:
    RuntimeConnectionError: a worker does not answer.
  """
  if isinstance(targets, str) or not targets or not all(':' in target for target in targets):
    raise ValueError(f"targets is a list of addresses such as ['localhost:8000'], not {targets!r}.")
  shares = _shares(default_num_clients, len(targets))
  return _install(Runtime(
      [_Worker(default_num_clients=share, connect_timeout=timeout, target=target) for target,
       share in zip(targets, shares)],
      deadline=deadline))


@contextlib.contextmanager
def local_context(*, workers: int = 1, max_concurrent_computation_calls: int | None = None,
                  default_num_clients: int = 0, deadline: float | None = None,
                  log_dir: str | None = None) -> Iterator[Runtime]:
  """`install` for the length of a `with` block, over whatever context is installed; yields the `Runtime`."""
  runtime = _start(
      workers=workers, max_concurrent_computation_calls=max_concurrent_computation_calls,
      default_num_clients=default_num_clients, deadline=deadline, log_dir=log_dir)
  with runtime, compat.installed(runtime):
    yield runtime
