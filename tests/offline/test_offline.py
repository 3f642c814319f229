"""A test that reaches for the network fails, whatever its code makes of the error, and is named."""

import os
import socket
import subprocess
import sys
import threading

import offline_guard
import pytest

ADDRESS = ('192.0.2.1', 80)  # Reserved for documentation (RFC 5737): nothing is there.


def noted():
  """The attempts so far, which then do not count against this test."""
  return offline_guard.attempts()


def send():
  with socket.socket(type=socket.SOCK_DGRAM) as sender:
    sender.sendto(b'', ADDRESS)


@pytest.mark.parametrize('reach', [
    lambda: socket.create_connection(ADDRESS, timeout=1),
    lambda: socket.getaddrinfo('example.com', 80),
    lambda: socket.gethostbyname(b'example.com'),
    send,
], ids=['connect', 'look up', 'look up bytes', 'datagram'])
def test_an_attempt_fails_and_names_the_test_and_the_host(reach):
  with pytest.raises(offline_guard.NetworkUsed,
                     match=r'test_offline.py::test_an_attempt.* tries to reach .*(192|example)'):
    reach()
  assert 'test_an_attempt' in noted()


def test_an_attempt_in_a_thread_is_noted():
  found = []

  def reach():
    try:
      socket.create_connection(ADDRESS)
    except BaseException as error:
      found.append(error)

  thread = threading.Thread(target=reach)
  thread.start()
  thread.join()
  assert isinstance(found[0], offline_guard.NetworkUsed) and '192.0.2.1' in noted()


def test_an_attempt_of_a_command_that_a_test_starts_is_noted():
  code = ("import urllib.request\ntry:\n  urllib.request.urlopen('http://example.com')\n"
          "except Exception:\n  print('swallowed')")
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode and 'tries to reach' in done.stderr and 'swallowed' not in done.stdout
  assert 'test_an_attempt_of_a_command' in noted()


def test_a_test_that_swallows_the_error_fails(tmp_path):
  """The whole: pytest on a file that pretends nothing happened."""
  (tmp_path / 'conftest.py').write_text('from tests.conftest import stays_offline\n')
  (tmp_path / 'test_it.py').write_text(
      'import socket\n\n\ndef test_quiet():\n  try:\n    socket.getaddrinfo("example.com", 80)\n'
      '  except BaseException:\n    pass\n')
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(tmp_path)], cwd=root,
                        capture_output=True, text=True, check=False)
  assert done.returncode == 1 and "test_quiet tries to reach 'example.com'" in done.stdout, done.stdout + done.stderr


def test_this_machine_can_be_reached():
  with socket.create_server(('127.0.0.1', 0)) as server:
    socket.create_connection(('localhost', server.getsockname()[1])).close()
  assert noted() == ''
