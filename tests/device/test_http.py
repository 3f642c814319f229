"""Requests of a device: tried again with jitter, and nothing that a server answers is taken as it comes."""

import contextlib
import random
import socket
import threading

import pytest

from tff_compress.device.errors import DeviceError
from tff_compress.device.http import Session


@contextlib.contextmanager
def answering(*answers):
  """A server that sends these bytes, one for each connection, and then refuses them."""
  with socket.create_server(('127.0.0.1', 0)) as sock:
    port = sock.getsockname()[1]

    def run():
      for answer in answers:
        connection, _ = sock.accept()
        with connection:
          connection.recv(10_000)
          connection.sendall(answer)
      sock.close()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{port}'
    thread.join(10)


def session(url, patience=1000.0):
  waits, clock = [], iter(range(10**6))
  return Session(url, patience, waits.append, lambda: next(clock), random.Random(1)), waits


OK = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok'


def test_what_fails_is_tried_again_after_waits_that_are_drawn():
  busy = b'HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n'
  with answering(b'', busy, b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok', b'nonsense\r\n\r\n', OK) as url:
    asked, waits = session(url)
    answer = asked.request('GET', '/')
  assert (answer.status, answer.body, answer.headers['x-a']) == (200, b'ok', 'b')
  assert len(waits) == 4 and 0 <= waits[0] <= 0.5 and 7 <= waits[1] <= 8 and len(set(waits)) == 4


def test_patience_ends():
  with answering() as url:
    asked, _ = session(url, patience=5)
    with pytest.raises(DeviceError, match='does not answer'):
      asked.request('GET', '/')


def test_an_answer_that_is_too_long_is_refused():
  with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n' + bytes(100)) as url:
    with pytest.raises(DeviceError, match='more than 50'):
      session(url)[0].request('GET', '/', largest=50)


def test_a_problem_is_said_in_its_words():
  body = b'{"title": "No \\u001b[31m more.", "status": 400}'
  with answering(b'HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body)) as url:
    assert session(url)[0].request('GET', '/').problem == 'No [31m more'


@pytest.mark.parametrize('url', ['ftp://127.0.0.1', 'http://example.org', '127.0.0.1:80', 'http://127.0.0.1:x', 'https://',
                                 'http://127.0.0.1/path', ''])
def test_addresses_that_are_none_or_not_safe(url):
  with pytest.raises(DeviceError):
    Session(url)
