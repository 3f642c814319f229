"""What a test needs, found by looking at it: `fast` nothing that takes long to load, `tf` TensorFlow, `tff` TFF.

`conftest.py` gives every test the marker of its need. Looked at are the imports of its module, those inside the test,
its fixtures and the helpers that these name, what the imported modules of this repository import in turn, and whether
it shares the process of TFF (`@pytest.mark.xdist_group('tff')`, fixture `tff_runtime`). What only the product imports
while it runs cannot be seen: such a test says `@pytest.mark.tf` itself, and `make fast` names those that do not
(`offline_guard.py`).
"""

import ast
import dis
import functools
import pathlib
import re
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

LEVELS = ('fast', 'tf', 'tff')
"""From the least to the most."""

PACKAGES = {'tensorflow': 'tf', 'keras': 'tf', 'tensorflow_model_optimization': 'tf', 'ai_edge_litert': 'tf',
            'tensorflow_federated': 'tff'}
"""What is slow to load, and the marker of the tests that load it."""

_OWN = ('tff_compress', 'tflite_export', 'benchmarks', 'tests', 'docs')


def most(levels) -> str:
  """The most demanding of several markers; 'fast' of none."""
  return max(levels, key=LEVELS.index, default='fast')


def of_item(item: pytest.Item) -> str:
  """The marker of a test that was collected."""
  if any(mark.args[:1] == ('tff',) for mark in item.iter_markers('xdist_group')) or 'tff_runtime' in item.fixturenames:
    return 'tff'
  marked = [level for level in LEVELS if item.get_closest_marker(level)]
  fixtures = [definition.func for name in item.fixturenames
              for definition in item._fixtureinfo.name2fixturedefs.get(name, ())]
  parameters = item.callspec.params.values() if hasattr(item, 'callspec') else ()
  functions = [item.function, *fixtures, *(value for value in parameters if isinstance(value, types.FunctionType))]
  return most([*marked, of_file(item.path), *map(of_function, functions)])


@functools.cache
def of_file(path: pathlib.Path) -> str:
  """What importing a file of this repository loads, or what the file says of all of its tests."""
  marks = [ast.unparse(node.value) for node in _tree(path).body
           if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'pytestmark']
  said = [level for level in LEVELS for mark in marks if re.search(rf"mark\.{level}\b|xdist_group\('{level}'\)", mark)]
  return most([*said, *_reached([path], _imports_of_file)])


def of_text(text: str) -> str:
  """What the imports of a program load."""
  levels, files = _imports(ast.parse(text))
  return most([*levels, *map(of_file, files)])


def of_module(name: str) -> str:
  """What importing a module, by its dotted name, loads."""
  path = _path(name)
  return of_file(path) if path else PACKAGES.get(name.partition('.')[0], 'fast')


@functools.cache
def of_function(function) -> str:
  """What the imports in a function of the tests load, and in the functions of the tests that it names."""
  return most(_reached([function], _loaded_by_function))


def _reached(start, direct):
  """Markers of what can be reached: `direct` gives (markers, what to look at next) of each."""
  levels, seen, todo = set(), set(), list(start)
  while todo:
    node = todo.pop()
    if node not in seen:
      seen.add(node)
      found, following = direct(node)
      levels |= found
      todo += following
  return levels


@functools.cache
def _loaded_by_function(function):
  """(markers of what its imports load, functions that it names)"""
  function = getattr(function, '__wrapped__', function)
  levels, named = set(), set()
  for code in _codes(function.__code__) if _is_of_tests(function) else ():
    module = last = None
    for instruction in dis.get_instructions(code):
      value = instruction.argval
      if instruction.opname == 'IMPORT_NAME':
        module = value
        levels.add(of_module(module))
      elif instruction.opname == 'IMPORT_FROM':
        inner = _path(f'{module}.{value}')
        levels.add(of_file(inner) if inner else _of_attribute(module, value))
      elif instruction.opname == 'LOAD_CONST' and last == 'importorskip' and isinstance(value, str):
        levels.add(of_module(value))
      elif instruction.opname == 'LOAD_GLOBAL' and isinstance(function.__globals__.get(value), types.FunctionType):
        named.add(function.__globals__[value])
      if instruction.opname in ('LOAD_METHOD', 'LOAD_ATTR', 'LOAD_CONST'):
        last = value
  return levels, named


def _is_of_tests(function):
  """Whether it is a test, a helper of tests or what makes a table of a document: not the product's."""
  path = pathlib.Path(function.__code__.co_filename)
  return any(path.is_relative_to(ROOT / folder) for folder in ('tests', 'docs'))


def _codes(code):
  yield code
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _codes(constant)


@functools.cache
def _imports_of_file(path):
  return _imports(_tree(path))


def _imports(tree):
  """(markers of what a program imports from outside when it is imported, files of this repository that it imports)"""
  levels, files = set(), set()
  for node in _when_imported(tree):
    from_import = isinstance(node, ast.ImportFrom)
    for name in [node.module] if from_import else [alias.name for alias in node.names]:
      levels.add(PACKAGES.get(name.partition('.')[0], 'fast'))
      parts = name.split('.')
      files |= {_path('.'.join(parts[:length])) for length in range(1, len(parts) + 1)}
    for attribute in [alias.name for alias in node.names] if from_import else ():
      inner = _path(f'{node.module}.{attribute}')
      files.add(inner)
      if not inner:
        levels.add(_of_attribute(node.module, attribute))
  return levels, files - {None}


def _when_imported(node):
  """Import statements that run when a module is imported: none inside a function."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, (ast.Import, ast.ImportFrom)):
      yield child
    elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
      yield from _when_imported(child)


def _of_attribute(module, name):
  """`from module import name`, where that is no module: 'tf' where the module loads it when it is used."""
  path = _path(module)
  return 'tf' if path and name in _lazy(path) else 'fast'


@functools.cache
def _lazy(path):
  """Names that a package loads when they are used."""
  for node in _tree(path).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_LAZY':
      return ast.literal_eval(node.value)
  return ()


@functools.cache
def _tree(path):
  return ast.parse(path.read_text(encoding='utf-8'))


@functools.cache
def _path(name):
  """The file of a module of this repository; None of others."""
  if name.partition('.')[0] not in _OWN:
    return None
  base = ROOT.joinpath(*name.split('.'))
  return next((path for path in (base / '__init__.py', base.with_suffix('.py')) if path.is_file()), None)
