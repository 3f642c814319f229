"""Becomes a program that dies with the thread that started it; run as a script: launcher.py PARENT_PID PROGRAM
ARGUMENT...

A `preexec_fn` would do the same between fork and exec, where Python code can deadlock in a process that has other
threads, as every process with TensorFlow in it has. So this is a program of its own, which then turns into PROGRAM.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
  parent, program = int(sys.argv[1]), sys.argv[2]
  # A shell that starts a job in the background has it ignore SIGINT, and that is inherited.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  if sys.platform == 'linux':
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It was gone before we asked.
      sys.exit(1)
  os.execv(program, sys.argv[2:])


if __name__ == '__main__':
  main()
