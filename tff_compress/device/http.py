"""Requests to one server, tried again where that may help.

Waits are drawn from 0 to a limit that doubles, so that devices that failed together do not come back together.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import http.client
import json
import random
import time
from typing import Any
import urllib.parse

from tff_compress.device.errors import DeviceError

TIMEOUT = 60.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0

LOCAL = ('127.0.0.1', 'localhost', '::1')
"""Hosts to which a device speaks without TLS."""


@dataclasses.dataclass(frozen=True)
class Answer:
  """Attributes:
    status: of HTTP.
    headers: with names in small letters.
    body: bytes.
  """
  status: int
  headers: Mapping[str, str]
  body: bytes

  @property
  def problem(self) -> str:
    """What a problem document says; the status of any other answer."""
    try:
      title = str(json.loads(self.body)['title'])[:300]
      return ''.join(c for c in title if c.isprintable()).rstrip('.')
    except (ValueError, KeyError, TypeError, RecursionError):
      return f'HTTP status {self.status}'


class Session:
  """Args:
    url: of the server, http or https; http for this machine alone.
    patience: seconds for which a request is tried before the device gives up.
    sleep: waits so many seconds.
    clock: gives seconds that only grow.
    rng: of the waits; they are not to be the same on all devices.

  Raises:
    DeviceError: the URL is not one of a server.
  """

  def __init__(self, url: str, patience: float = 600.0, sleep: Callable[[float], None] = time.sleep,
               clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None) -> None:
    self._patience, self.sleep, self._clock = patience, sleep, clock
    self.rng = rng or random.Random()
    try:
      parts = urllib.parse.urlsplit(url)
      host, port = parts.hostname, parts.port
    except ValueError:
      parts, host, port = urllib.parse.urlsplit(''), None, None
    if not host or parts.scheme not in ('http', 'https') or parts.path not in ('', '/') or parts.query:
      raise DeviceError(f'{url[:100]!r} is no address of a server: write it as https://host:port.')
    if parts.scheme == 'http' and host not in LOCAL:
      raise DeviceError(f'{url[:100]!r} would send updates and tokens in the open: use https, or a server on this '
                        'machine.')
    kind = http.client.HTTPSConnection if parts.scheme == 'https' else http.client.HTTPConnection
    self._connect = lambda: kind(host, port, timeout=TIMEOUT)
    self.url = f'{parts.scheme}://{parts.netloc}'

  def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None,
              largest: int = 1 << 16) -> Answer:
    """An answer, whatever its status; none of 429 and 5xx unless the patience is over.

    Args:
      method, path, headers, body: of the request.
      largest: bytes of the longest body that is taken.

    Raises:
      DeviceError: there was no answer for too long, or one that is too long.
    """
    start, limit = self._clock(), FIRST_WAIT
    while True:
      after, answer, reason = 0.0, None, ''
      try:
        answer = self._once(method, path, headers or {}, body, largest)
        if answer.status != 429 and answer.status < 500:
          return answer
        after, reason = _seconds(answer.headers.get('retry-after', '')), answer.problem
      except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
      if self._clock() - start > self._patience:
        raise DeviceError(f'{self.url} does not answer: {reason}.')
      self.sleep(after + self.rng.uniform(0, limit))
      limit = min(2 * limit, LONGEST_WAIT)

  def _once(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, largest: int) -> Answer:
    connection = self._connect()
    try:
      connection.request(method, path, body, dict(headers))
      response = connection.getresponse()
      data = response.read(largest + 1)
      if len(data) > largest:
        raise DeviceError(f'{self.url} answers with more than {largest} bytes.')
      if response.length not in (None, 0):  # It said that there is more.
        raise http.client.IncompleteRead(data, response.length)
      return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
    finally:
      connection.close()


def _seconds(text: Any) -> float:
  """Of a header Retry-After; dates are passed over, as clocks are not trusted."""
  return min(float(text), 600.0) if text.isdigit() and len(text) < 9 else 0.0
