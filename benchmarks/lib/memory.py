"""Memory of processes, in bytes, as Linux tells it."""

import os
import pathlib
import re
import tempfile

import numpy as np

from benchmarks.lib import harness


def resident() -> int:
  """Of this process, now."""
  return _field(pathlib.Path('/proc/self/status').read_text(encoding='ascii'), 'VmRSS')


def peak() -> int:
  """The most that this process had, or since `forget_peak`. (getrusage would count what the parent had, too.)"""
  return _field(pathlib.Path('/proc/self/status').read_text(encoding='ascii'), 'VmHWM')


def forget_peak() -> None:
  """Lets `peak` begin anew."""
  pathlib.Path('/proc/self/clear_refs').write_text('5', encoding='ascii')


def peak_of_children() -> int:
  """The most that each of this process's children had that run now, together."""
  total = 0
  for status in pathlib.Path('/proc').glob('[0-9]*/status'):
    try:
      text = status.read_text(encoding='ascii', errors='replace')
    except OSError:  # It has ended.
      continue
    if re.search(rf'^PPid:\s*{os.getpid()}$', text, re.M):
      total += _field(text, 'VmHWM')
  return total


def _field(status, name):
  found = re.search(rf'^{name}:\s*(\d+) kB$', status, re.M)
  return int(found[1]) * 1024 if found else 0


def of_tflite_files(files: list[tuple[bytes, dict]], runtime: str) -> list[float]:
  """Megabytes that each file makes a process grow by, from before it is loaded to behind the first call.

  Args:
    files: list of (bytes of a .tflite file, dict of the inputs of a call).
    runtime: the interpreter, the only one in the process: 'tf.lite' or 'litert'.
  """
  with tempfile.TemporaryDirectory() as folder:
    for number, (data, inputs) in enumerate(files):
      pathlib.Path(folder, f'{number}.tflite').write_bytes(data)
      np.savez(pathlib.Path(folder, f'{number}.npz'), **inputs)
    return harness.in_new_process(_grown_by_each, folder, len(files), runtime)


def _grown_by_each(folder, count, runtime):
  from tflite_export import interpreters
  result = []
  for number in range(count):
    data = pathlib.Path(folder, f'{number}.tflite').read_bytes()
    with np.load(pathlib.Path(folder, f'{number}.npz')) as archive:
      inputs = dict(archive)
    if not number:
      interpreters.Interpreter(data, runtime)  # Imports the runtime.
    # A process for each file: one that has run another has memory left over.
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
      with interpreters.quiet():
        os.write(writing, str(_grown(data, inputs, runtime)).encode())
      os._exit(0)
    os.close(writing)
    with open(reading, encoding='ascii') as stream:
      result.append(float(stream.read()))
    os.waitpid(child, 0)
  return result


def _grown(data, inputs, runtime):
  from tflite_export import interpreters
  forget_peak()
  before = resident()
  interpreter = interpreters.Interpreter(data, runtime)
  interpreter.run(next(iter(interpreter.signatures)), **inputs)
  return round((peak() - before) / 1e6, 1)
