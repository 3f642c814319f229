"""What /proc says about processes."""

import os
import pathlib
import signal
import time


def state(pid):
  """Returns the state letter of a process: R or S runs, T is stopped, Z has ended unread; None: there is no such
  process."""
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
  except (FileNotFoundError, ProcessLookupError):  # The latter where it ends while it is read.
    return None


def is_running(pid):
  # What is a zombie with threads that still end cannot be waited for yet.
  return state(pid) not in (None, 'Z', 'X') or _threads(pid) > 1


def _threads(pid):
  try:
    return len(os.listdir(f'/proc/{pid}/task'))
  except OSError:
    return 0


def wait_for(condition, seconds=5):
  """Returns whether `condition()` came true within the time."""
  give_up = time.monotonic() + seconds
  while not condition() and time.monotonic() < give_up:
    time.sleep(0.01)
  return condition()


def freeze(pid):
  """Stops a process as a debugger would: it is there and does nothing."""
  os.kill(pid, signal.SIGSTOP)
  assert wait_for(lambda: state(pid) == 'T')
