"""One process with front and aggregator: the front in an event loop, the aggregator in a thread beside it."""

from collections.abc import Callable
import secrets
import socket
import threading

import uvicorn

from tff_compress.codec.errors import CompressionError
from tff_compress.serving import front
from tff_compress.serving.aggregator import Aggregator
from tff_compress.serving.aggregator import Task

LOOK_SECONDS = 0.5
"""Between two looks at deadlines."""

MOST_CONNECTIONS = 1000

_LETTERS = 'ABCDEFGHJKLMNPQRSTUVWXYZ23456789'


class ServerError(CompressionError):
  """The server cannot start, or has to stop."""


def new_code() -> str:
  """An enrolment code of 60 random bits, to be read out."""
  return '-'.join(''.join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))


def listening(host: str, port: int) -> socket.socket:
  """A socket that listens; port 0 is any that is free. Raises ServerError."""
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    found = socket.create_server((host, port), family=family, backlog=1024)
  except OSError as error:
    raise ServerError(f'{host} port {port} cannot be listened on: {error.strerror or error}: name another with --port.'
                      ) from None
  return found


class Server:
  """Args:
    task: what is served.
    aggregator: that ends its rounds.
    code: with which devices enrol.
    stays: whether the front goes on when the task is finished, so that devices are told and the page can be read.
  """

  def __init__(self, task: Task, aggregator: Aggregator, code: str, stays: bool = False) -> None:
    self._aggregator, self._stays = aggregator, stays
    self._wake, self._stop = threading.Event(), threading.Event()
    self._problem: BaseException | None = None
    config = uvicorn.Config(
        front.application(task, code, self._wake.set), log_level='warning', access_log=False, server_header=False,
        limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=30, timeout_graceful_shutdown=5)
    self._server = uvicorn.Server(config)

  def run(self, sock: socket.socket, finished: Callable[[], None] = lambda: None) -> None:
    """Serves until the task is finished and the last devices had time to hear of it, or `stop`, or a signal.

    Args:
      sock: that listens.
      finished: called when the task is finished.

    Raises:
      what ended the aggregator.
    """
    thread = threading.Thread(target=self._aggregate, args=(finished,), name='aggregator', daemon=True)
    thread.start()
    try:
      self._server.run(sockets=[sock])
    finally:
      self._stop.set()
      self._wake.set()
      thread.join()
    if self._problem is not None:
      raise self._problem

  def stop(self) -> None:
    """Ends `run`, from any thread."""
    self._server.should_exit = True

  def _aggregate(self, finished: Callable[[], None]) -> None:
    try:
      while not self._stop.is_set():
        self._wake.clear()
        if self._aggregator.look():
          continue
        if self._aggregator.finished:
          finished()
          if not self._stays:
            self._stop.wait(2 * front.COME_BACK[1])  # All devices have come back by then.
            self.stop()
          return
        self._wake.wait(LOOK_SECONDS)
      self._aggregator.stop()
    except BaseException as problem:
      self._problem = problem
      self.stop()
