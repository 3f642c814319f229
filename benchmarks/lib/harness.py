"""What all benchmarks share: finding them, timing side by side, tables and JSON files.

A benchmark is a module in a folder of this package with a function

    run(quick) -> rows        a list of dicts of numbers and texts; rows with the same 'table' are printed together

Its docstring's first paragraph is its summary. `THREADS = n` next to it allows its process n threads instead of one.
Progress goes to standard error (progress.py). With `quick` it takes seconds, and its figures only show that it works.
"""

import ast
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any
from typing import BinaryIO

import numpy as np
import threadpoolctl

from benchmarks.lib import progress
from tff_compress.codec import files

FOLDER = pathlib.Path(__file__).parents[1]
RESULTS = FOLDER / 'results'
CACHE = FOLDER / '.cache'
"""Checkpoints and recorded updates; not under version control, and safe to delete."""

THREAD_VARIABLES = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS',
                    'TF_NUM_INTEROP_THREADS')


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """What a benchmark's file says of it, without being imported.

  Attributes:
    name: that of its file, and of its command.
    folder: the one it is in.
    summary: first paragraph of its docstring.
    threads: how many threads it asks for.
  """
  name: str
  folder: str
  summary: str
  threads: int

  @property
  def module(self) -> str:
    """Its module's name."""
    return f'benchmarks.{self.folder}.{self.name}'

  @property
  def environment(self) -> dict[str, str]:
    """The environment of its process. Thread limits only work when they are set before NumPy is imported."""
    limits = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
    return {**os.environ, **limits, 'TF_CPP_MIN_LOG_LEVEL': '3'}


def benchmarks() -> dict[str, Benchmark]:
  """{name: `Benchmark`} of every module in the folders here with a function `run`, by folder.

  Raises:
    ValueError: two have the same name.
  """
  found: dict[str, Benchmark] = {}
  for path in sorted(FOLDER.glob('*/*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    if not any(isinstance(node, ast.FunctionDef) and node.name == 'run' for node in tree.body):
      continue
    if path.stem in found:
      raise ValueError(f'{found[path.stem].folder}/ and {path.parent.name}/ both have a benchmark {path.stem}: rename '
                       'one of them.')
    found[path.stem] = Benchmark(path.stem, path.parent.name, _summary(tree), _threads(tree))
  return found


def folders() -> dict[str, str]:
  """{name: first paragraph of its docstring} of every folder that has benchmarks."""
  names = dict.fromkeys(benchmark.folder for benchmark in benchmarks().values())
  return {name: _summary(ast.parse((FOLDER / name / '__init__.py').read_text(encoding='utf-8'))) for name in names}


def _summary(tree):
  return (ast.get_docstring(tree) or '').partition('\n\n')[0].replace('\n', ' ')


def _threads(tree):
  return next((int(ast.literal_eval(node.value)) for node in tree.body
               if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'THREADS'), 1)


def results(quick: bool) -> pathlib.Path:
  """The folder of results; those of quick runs have their own."""
  return RESULTS / 'quick' if quick else RESULTS


def execute(benchmark: Benchmark, quick: bool) -> list[dict]:
  """Runs a `Benchmark` in this process, prints its tables and writes its file. Returns the rows."""
  rows = importlib.import_module(benchmark.module).run(quick)
  print_tables(rows)
  path, name = results(quick) / f'{benchmark.name}.json', benchmark.name
  write_json(path, {'benchmark': name, 'command': f'python -m benchmarks {name}' + ' --quick' * quick,
                    'machine': machine(), 'rows': rows})
  print(f'written to {os.path.relpath(path)}', file=sys.stderr)
  return rows


def machine() -> dict[str, Any]:
  """What a result depends on. Without date or host name: a repeated run differs in what was measured and nothing
  else."""
  cpu = platform.processor()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo', encoding='utf-8') as lines:
      cpu = next((line.partition(':')[2].strip() for line in lines if line.startswith('model name')), cpu)
  libraries = threadpoolctl.threadpool_info()
  packages = ('numpy', 'tensorflow', 'tensorflow_federated', 'tensorflow_model_optimization', 'zstandard')
  return {
      'cpu': cpu, 'cores': os.cpu_count(), 'threads': int(os.environ.get(THREAD_VARIABLES[0], os.cpu_count() or 1)),
      'load_average': round(os.getloadavg()[0], 1), 'system': platform.system(), 'python': platform.python_version(),
      **{name: sys.modules[name].__version__ for name in packages if name in sys.modules},
      # OpenBLAS 0.3.23 takes its slowest kernels (Prescott) on processors it does not know; OPENBLAS_CORETYPE names
      # others.
      **{library['internal_api']: library['architecture'] for library in libraries if 'architecture' in library},
  }


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """`tff_compress.codec.files.replacing`, which makes the folder as well."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.replacing(str(path)) as stream:
    yield stream


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a dict as JSON: a line for each entry, and one for each member of an entry that is a list."""
  with replacing(path) as stream:
    entries = [f' {json.dumps(key)}: {_lines(entry)}' for key, entry in value.items()]
    stream.write(('{\n' + ',\n'.join(entries) + '\n}\n').encode())


def _lines(entry):
  if isinstance(entry, list) and entry:
    return '[\n  ' + ',\n  '.join(json.dumps(member) for member in entry) + '\n ]'
  return json.dumps(entry)


def once(folder: pathlib.Path, settings: Any, make: Callable[[], dict]) -> dict:
  """What `make()`, a dict, was when it was first called for these settings.

  Args:
    folder: where it is kept, in a file for each settings: delete them after a change of what `make` does.
    settings: what it depends on, in JSON's types.
    make: function without arguments.
  """
  name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]
  path = folder / f'{name}.json'
  if not path.exists():
    write_json(path, make())
  return json.loads(path.read_text(encoding='utf-8'))


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a dict of NumPy arrays as an .npz file."""
  with replacing(path) as stream:
    np.savez(stream, **arrays)


def print_tables(rows: list[dict]) -> None:
  """Prints the rows of each table, aligned, numbers to four digits. Lists and dicts are left to the JSON file."""
  tables: dict[str, list[dict]] = {}
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


def fastest(functions: Mapping[Any, Callable[[], Any]], seconds: float) -> dict[Any, float]:
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


def in_new_process(function: Callable, *arguments: Any) -> Any:
  """What a function of a module returns in a new process of Python, where nothing has taken memory yet.

  Arguments and result are of JSON's types.
  """
  code = (f'import json, sys; from {function.__module__} import {function.__name__} as function; '
          'print(json.dumps(function(*json.loads(sys.argv[1]))))')
  done = subprocess.run([sys.executable, '-c', code, json.dumps(arguments)], check=True, capture_output=True, text=True)
  return json.loads(done.stdout.splitlines()[-1])
