"""What all benchmarks share: finding them, timing side by side, tables and JSON files.

A benchmark is a module of this package with a function

    run(quick) -> rows        a list of dicts of numbers and texts; rows with the same 'table' are printed together

Its docstring's first line is its summary. `THREADS = n` next to it allows its process n threads instead of one.
Progress goes to standard error (progress.py). With `quick` it takes seconds, and its figures only show that it works.
"""

import ast
import contextlib
import importlib
import json
import os
import pathlib
import platform
import sys
import time

import numpy as np
import threadpoolctl

from benchmarks import progress

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / 'results'
CACHE = FOLDER / '.cache'
"""Checkpoints and recorded updates; not under version control, and safe to delete."""

THREAD_VARIABLES = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS',
                    'TF_NUM_INTEROP_THREADS')


def benchmarks():
  """{name: first line of the docstring} of every module here with a function `run`, without importing any."""
  found = {}
  for path in sorted(FOLDER.glob('*.py')):
    tree = ast.parse(path.read_text())
    if any(isinstance(node, ast.FunctionDef) and node.name == 'run' for node in tree.body):
      found[path.stem] = (ast.get_docstring(tree) or '').partition('\n')[0]
  return found


def threads(name):
  """How many threads a benchmark asks for."""
  tree = ast.parse((FOLDER / f'{name}.py').read_text())
  for node in tree.body:
    if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'THREADS':
      return int(ast.literal_eval(node.value))
  return 1


def environment(name):
  """The environment of a benchmark's process. Thread limits only work when they are set before NumPy is imported."""
  return {**os.environ, **{variable: str(threads(name)) for variable in THREAD_VARIABLES}, 'TF_CPP_MIN_LOG_LEVEL': '3'}


def execute(name, quick):
  """Runs one benchmark in this process, prints its tables and writes its file. Returns the rows."""
  rows = importlib.import_module(f'benchmarks.{name}').run(quick)
  print_tables(rows)
  path = (RESULTS / 'quick' if quick else RESULTS) / f'{name}.json'
  write_json(path, {'benchmark': name, 'command': f'python -m benchmarks {name}' + (' --quick' if quick else ''),
                    'machine': machine(), 'rows': rows})
  print(f'written to {os.path.relpath(path)}', file=sys.stderr)
  return rows


def machine():
  """What a result depends on. Without date or host name: a repeated run differs in what was measured and nothing
  else."""
  cpu = platform.processor()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo', encoding='utf-8') as lines:
      cpu = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), cpu)
  libraries = threadpoolctl.threadpool_info()
  packages = ('numpy', 'tensorflow', 'tensorflow_federated', 'tensorflow_model_optimization', 'zstandard')
  return {
      'cpu': cpu, 'cores': os.cpu_count(), 'threads': int(os.environ.get(THREAD_VARIABLES[0], os.cpu_count())),
      'load_average': round(os.getloadavg()[0], 1), 'system': platform.system(), 'python': platform.python_version(),
      **{name: sys.modules[name].__version__ for name in packages if name in sys.modules},
      # OpenBLAS 0.3.23 takes its slowest kernels (Prescott) on processors it does not know; OPENBLAS_CORETYPE names
      # others.
      **{library['internal_api']: library['architecture'] for library in libraries if 'architecture' in library},
  }


@contextlib.contextmanager
def replacing(path):
  """Opens a temporary file for writing bytes and renames it to `path` at the end: a file under its own name is
  whole."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    with open(partial, 'wb') as stream:
      yield stream
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def write_json(path, value):
  with replacing(path) as stream:
    stream.write((json.dumps(value, indent=1) + '\n').encode())


def write_arrays(path, arrays):
  """Writes a dict of NumPy arrays as an .npz file."""
  with replacing(path) as stream:
    np.savez(stream, **arrays)


def print_tables(rows):
  """Prints the rows of each table, aligned, numbers to four digits. Lists and dicts are left to the JSON file."""
  tables = {}
  for row in rows:
    tables.setdefault(row.get('table', ''), []).append({k: v for k, v in row.items() if k != 'table'})
  for title, members in tables.items():
    columns = [c for c in dict.fromkeys(column for row in members for column in row)
               if not any(isinstance(row.get(c), (list, dict)) for row in members)]
    cells = [columns] + [[_shown(row.get(column)) for column in columns] for row in members]
    widths = [max(map(len, column)) for column in zip(*cells)]
    print('\n' + title if title else '')
    for number, line in enumerate(cells):
      first, *rest = zip(line, widths)
      print('  '.join([first[0].ljust(first[1])] + [cell.rjust(width) for cell, width in rest]).rstrip())
      if number == 0:
        print('  '.join('-' * width for width in widths))
  sys.stdout.flush()


def _shown(value):
  if value is None:
    return ''
  if isinstance(value, float):
    return f'{value:.4g}' if abs(value) < 1e4 else f'{value:,.0f}'
  return f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else str(value)


# The first call of a turn finds the caches and the heap as other functions left them.
CALLS_PER_TURN = 3


def fastest(functions, seconds):
  """Times functions side by side, so that a busy moment of the machine does not fall on one of them.

  Args:
    functions: dict of name to a function without arguments.
    seconds: about how long to go on, in all.

  Returns:
    dict of name to the fewest seconds that a call took. Each has at least 5 turns after a first, uncounted call.
  """
  for name, function in functions.items():
    progress.say(f'first call: {name}')
    function()
  best = dict.fromkeys(functions, float('inf'))
  start, rounds = time.perf_counter(), 0
  while rounds < 5 or time.perf_counter() - start < seconds:
    for name, function in functions.items():
      for _ in range(CALLS_PER_TURN):
        begin = time.perf_counter()
        function()
        best[name] = min(best[name], time.perf_counter() - begin)
    rounds += 1
    progress.say(f'timing: round {rounds}, {time.perf_counter() - start:.0f} of about {seconds} s')
  progress.say('')
  return best
