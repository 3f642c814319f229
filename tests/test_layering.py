"""Imports point one way, and the core needs NumPy alone.

codec ← wire ← timeline ← subspace ← tensorflow ← aggregators, distributors, processes, keras, tflite_export ←
simulation, serving, device, cli
"""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

LAYERS = (
    ('codec',),
    ('wire',),
    ('timeline',),
    ('subspace',),
    ('tensorflow', 'runtime', 'pages'),
    ('autoencoders',),
    ('aggregators', 'distributors', 'processes', 'keras', 'tflite_export'),
    ('simulation', 'serving', 'device'),
    ('cli',),
)
"""A package may import those of earlier layers, and modules of its own as long as no circle arises."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def _modules():
  """(package, path) of every module of the product; the package is the folder or module below the top."""
  for path in sorted(ROOT.glob('tff_compress/**/*.py')):
    relative = path.relative_to(ROOT / 'tff_compress')
    if relative.parts[0] != '__init__.py':
      yield relative.parts[0].removesuffix('.py'), path
  for path in sorted(ROOT.glob('tflite_export/**/*.py')):
    command = path.relative_to(ROOT).parts[1] == 'cli'
    yield 'cli' if command else 'tflite_export', path


def _imported(path):
  """Dotted names that a module imports anywhere in it, inside functions too."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path} has a relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith('import_module') and node.args:
      if isinstance(node.args[0], ast.Constant):
        yield node.args[0].value


def _package(name):
  """The package of the product that a dotted name is in; '' for its top, None for others."""
  parts = name.split('.')
  if parts[0] == 'tflite_export':
    return 'cli' if parts[1:2] == ['cli'] else 'tflite_export'
  if parts[0] != 'tff_compress':
    return None
  # What is not a folder or module below the top, such as __version__, is the top's own.
  base = ROOT / 'tff_compress' / (parts[1] if len(parts) > 1 else '')
  return parts[1] if len(parts) > 1 and (base.is_dir() or base.with_suffix('.py').is_file()) else ''


@functools.cache
def _edges():
  return {(package, _package(name), str(path.relative_to(ROOT)))
          for package, path in _modules() for name in _imported(path) if _package(name) is not None}


def test_every_package_has_a_layer():
  unknown = {package for package, _ in _modules()} - set(RANK)
  assert not unknown, f'say in LAYERS which layer {", ".join(sorted(unknown))} belongs to'


def test_imports_point_to_earlier_layers():
  wrong = sorted(f'{path} imports {target}' for package, target, path in _edges()
                 if target and RANK[target] > RANK[package])
  assert not wrong, '\n'.join(wrong)


def test_packages_do_not_import_each_other():
  graph = {}
  for package, target, _ in _edges():
    if target and target != package:
      graph.setdefault(package, set()).add(target)

  def reach(start):
    seen, todo = set(), [start]
    while todo:
      for target in graph.get(todo.pop(), ()):
        if target not in seen:
          seen.add(target)
          todo.append(target)
    return seen
  circles = sorted(package for package in graph if package in reach(package))
  assert not circles, f'{", ".join(circles)} import each other'


def _name(path):
  """The dotted name of a module or package."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _looked_up(path):
  """Dotted names in `_LAZY`, a package's table of what it imports when it is used: whole, or from the package on."""
  for node in ast.parse(path.read_text(encoding='utf-8')).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_LAZY' and isinstance(node.value, ast.Dict):
      for value in node.value.values:
        yield from (value.value, f'{_name(path)}.{value.value}')


def _module_graph():
  """{module: modules that it imports} of the product; the tops, which are lazy, are no part of it.

  Imports count wherever they stand, in functions and for types alone too: each says that one module is made of the
  other. So does a package's table of what it imports when it is used; a module inside takes what it needs from where it
  is, and not from its package. That a package is initialised before what is in it is no import: `__init__` then
  has no names of it. Registries, which import what lies in their folder, name nothing.
  """
  tops = {'tff_compress', 'tflite_export'}
  paths = {_name(path): path for top in sorted(tops) for path in sorted((ROOT / top).rglob('*.py'))}

  def module_of(name):
    while name and name not in paths:
      name = name.rpartition('.')[0]
    return name

  graph = {}
  for module, path in paths.items():
    targets = {module_of(name) for name in _imported(path)}
    targets |= {module_of(name) for name in _looked_up(path) if name in paths}
    graph[module] = targets - {module, ''} - tops
  return graph


def _circles(graph):
  """Sets of modules that import each other, directly or not."""
  reach = {}
  for start in graph:
    reach[start], todo = set(), [start]
    while todo:
      for target in graph.get(todo.pop(), ()):
        if target not in reach[start]:
          reach[start].add(target)
          todo.append(target)
  return {frozenset(other for other in reach[module] if module in reach[other]) for module in graph
          if module in reach[module]}


def test_modules_do_not_import_each_other():
  circles = _circles(_module_graph())
  assert not circles, '\n'.join(f'{", ".join(sorted(circle))} import each other' for circle in circles)


def test_circles_of_modules_are_found():
  """Inside functions, and by way of a third; and what a lazy package hands out counts."""
  graph = _module_graph()
  assert 'tff_compress.processes.fed_avg.build' in graph['tff_compress.processes.methods']  # In a function.
  assert 'tff_compress.processes.runner' in graph['tff_compress.processes']  # In its table.
  assert 'tff_compress.keras.federation' in graph['tff_compress.keras']
  assert _circles({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}, 'e': {'e'}}) == {frozenset('abc'), frozenset('e')}


def test_only_late_layers_use_the_package_as_a_whole():
  """`import tff_compress` gives access to everything, so it would hide the direction of an import."""
  wrong = sorted(path for package, target, path in _edges() if target == '' and RANK[package] < RANK['simulation'])
  assert not wrong, wrong


def test_the_core_imports_numpy_and_the_standard_library_alone():
  allowed = sys.stdlib_module_names | {'numpy', 'tff_compress'}
  foreign = sorted(f'{path.relative_to(ROOT)} imports {name}' for package, path in _modules()
                   if package in ('codec', 'wire') for name in _imported(path) if name.split('.')[0] not in allowed)
  assert not foreign, '\n'.join(foreign)


def test_the_imports_are_found():
  """The checks above hold for what they see: here are imports that they must see."""
  edges = {(package, target) for package, target, _ in _edges()}
  assert {('wire', 'codec'), ('tensorflow', 'wire'), ('aggregators', 'tensorflow')} <= edges


@pytest.mark.parametrize('statement', ['import tff_compress', 'import tff_compress.codec', 'import tff_compress.wire',
                                       'import tff_compress; dir(tff_compress)'])
def test_importing_the_core_loads_no_tensorflow(statement):
  code = (f'{statement}; import sys; '
          'print(sorted({name.split(".")[0] for name in sys.modules} - sys.stdlib_module_names))')
  loaded = ast.literal_eval(_run(code))
  assert 'numpy' in loaded and 'tff_compress' in loaded
  assert not {'tensorflow', 'tensorflow_federated', 'jax', 'keras', 'scipy', 'ml_dtypes', 'matplotlib',
              'jinja2'} & set(loaded)


def test_the_core_works_where_tensorflow_is_not_installed():
  """Every codec is parsed, printed, and makes a frame and reads it, in an interpreter that cannot import TensorFlow."""
  print_all = '''
import sys
class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] not in sys.stdlib_module_names | {'numpy', 'tff_compress', '__main__'}:
      raise ImportError(name)
sys.meta_path.insert(0, Absent())
import numpy as np
import tff_compress
from tff_compress.codec import presets, stage
update = {'w': np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)}
names = []
for name in presets.registry():
  codec = tff_compress.codec(name)
  frame = tff_compress.wire.pack(codec, update, seed=1, round=2, client=3)
  decoded, _ = tff_compress.wire.unpack(codec, frame, update, seed=1)
  assert decoded['w'].shape == (20, 30)
  names.append(str(codec))
print([names, sorted(stage.registry())])
'''
  presets, stages = ast.literal_eval(_run(print_all))
  assert len(presets) >= 5 and len(stages) >= 12


def _run(code):
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout.strip().splitlines()[-1]
