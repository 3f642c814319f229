"""Tests run offline: whoever looks up or connects to another machine fails, and the test is named.

`conftest.py` installs this in the processes that run tests, and `sitecustomize.py` beside it in every Python that these
start. It hears what Python's own sockets do, by whatever library; not what compiled code does by itself. Where tests
are to need no TensorFlow (`make fast`), whoever imports it fails likewise.
"""

import os
import socket
import sys

REPORT = 'TFF_COMPRESS_TESTS_OFFLINE'
"""Environment variable: the file in which attempts are noted, so that a test fails also where its code swallows the
error.
"""

REFUSED = 'TFF_COMPRESS_TESTS_WITHOUT'
"""Environment variable: packages that no test may import, with commas between them."""


class NetworkUsed(BaseException):
  """Not an `Exception`, which code that downloads turns into a message of its own."""


class PackageImported(BaseException):
  """Likewise."""


_installed = False


def install() -> None:
  """From now on this process reaches itself and its machine only. Called again it does nothing."""
  global _installed
  if _installed:
    return
  _installed = True
  # Local names, as a hook lives longer than its module's.
  look_ups = ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.gethostbyaddr')
  sending = ('socket.connect', 'socket.sendto', 'socket.sendmsg')
  own = ('localhost', socket.gethostname())

  refused = frozenset(filter(None, os.environ.get(REFUSED, '').split(',')))

  def here(host):
    if isinstance(host, (bytes, bytearray)):
      host = bytes(host).decode('ascii', 'replace')
    return not host or host in own or host == '::1' or host.startswith('127.')

  def hook(event, arguments):
    if event in look_ups:
      host = arguments[0]
    elif event in sending and isinstance(arguments[1], tuple):
      host = arguments[1][0]
    elif event == 'import' and arguments[0].partition('.')[0] in refused:
      _refuse(PackageImported, f'imports {arguments[0]}, which a test that is marked fast must not: mark it '
                               '@pytest.mark.tf (tests/needs.py finds what tests import themselves).')
    else:
      return
    if not here(host):
      _refuse(NetworkUsed, f'tries to reach {host!r}: tests run offline, on what packages ship or what they make '
                           'themselves.')

  sys.addaudithook(hook)


def attempts() -> str:
  """What was noted since this was last asked, a line each."""
  with open(os.environ[REPORT], 'r+', encoding='utf-8') as file:
    found = file.read()
    file.truncate(0)
  return found


def _refuse(error, what):
  test = os.environ.get('PYTEST_CURRENT_TEST', 'a test (call)').rpartition(' ')[0]
  with open(os.environ[REPORT], 'a', encoding='utf-8') as file:
    file.write(f'{test} {what}\n')
  raise error(f'{test} {what}')
