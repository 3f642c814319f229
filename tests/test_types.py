"""What the packages export says its types, and they say that they do."""

import importlib
import inspect
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

PACKAGES = sorted('.'.join(path.parent.relative_to(ROOT).parts) for top in ('tff_compress', 'tflite_export')
                  for path in (ROOT / top).glob('**/__init__.py') if '__all__ =' in path.read_text(encoding='utf-8'))
"""Packages that say what they export."""

UNSAID = inspect.Parameter.empty


def _of_function(function, name):
  """What of a function has no annotation, each as 'package.function: parameter'."""
  parameters = list(inspect.signature(function).parameters.values())
  if parameters and parameters[0].name in ('self', 'cls'):
    del parameters[0]
  silent = [parameter.name for parameter in parameters if parameter.annotation is UNSAID]
  if inspect.signature(function).return_annotation is UNSAID and function.__name__ != '__init__':
    silent.append('return')
  return [f'{name}: {missing}' for missing in silent]


def _of_class(kind, name):
  """The same for what a class defines itself: what it is made with, its methods and properties."""
  silent = []
  for attribute, value in vars(kind).items():
    if attribute.startswith('_') and attribute not in ('__init__', '__call__', '__enter__'):
      continue
    value = getattr(value, '__func__', value)  # of class and static methods
    for function in (value.fget, value.fset) if isinstance(value, property) else (value,):
      if inspect.isfunction(function):
        silent += _of_function(function, f'{name}.{attribute}')
  return silent


def _of(value, name):
  value = inspect.unwrap(value) if callable(value) else value
  if inspect.ismodule(value):
    return [missing for inner, member in vars(value).items()
            if not inner.startswith('_') and getattr(member, '__module__', None) == value.__name__
            for missing in _of(member, f'{name}.{inner}')]
  if inspect.isclass(value):
    return _of_class(value, name)
  return _of_function(value, name) if inspect.isfunction(value) else []


@pytest.mark.tf
@pytest.mark.parametrize('package', PACKAGES)
def test_public_names_say_their_types(package):
  found = importlib.import_module(package)
  silent = [missing for name in found.__all__ for missing in _of(getattr(found, name), f'{package}.{name}')]
  assert not silent, 'these have no annotation:\n' + '\n'.join(silent)


def test_packages_say_that_they_are_typed():
  assert (ROOT / 'tff_compress/py.typed').is_file() and (ROOT / 'tflite_export/py.typed').is_file()
  assert "'py.typed'" in (ROOT / 'setup.py').read_text(encoding='utf-8')
