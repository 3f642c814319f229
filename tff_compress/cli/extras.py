"""Packages that a command needs beyond NumPy: which extra brings them, and what to say where one is not installed."""

from collections.abc import Iterator
import contextlib
import importlib.util

from tff_compress.codec.errors import CompressionError

EXTRAS = {
    'tff': ('tensorflow_federated', 'tensorflow', 'sklearn', 'h5py', 'tqdm'),
    'tflite': ('tensorflow', 'ai_edge_litert', 'tensorflow_model_optimization', 'h5py', 'jsonschema'),
    'plots': ('matplotlib', 'jinja2'),
    'yaml': ('yaml',),
    'serve': ('starlette', 'uvicorn', 'sqlalchemy', 'fsspec', 'jinja2'),
}
"""{extra, as setup.py has it: modules that it brings}."""


class MissingPackageError(CompressionError):
  """A command needs a package that is not installed."""


def need(extra: str, *modules: str) -> None:
  """Raises MissingPackageError where one of these modules is not installed; imports none of them.

  Args:
    extra: what to advise where several extras bring a module.
    *modules: names such as 'tensorflow'.
  """
  for module in modules:
    if importlib.util.find_spec(module) is None:
      raise _missing(module, extra)


@contextlib.contextmanager
def named(extra: str) -> Iterator[None]:
  """A block in which an import that fails is one sentence that names the extra to install, where there is one."""
  try:
    yield
  except ModuleNotFoundError as error:
    module = (error.name or '').partition('.')[0]
    if not any(module in modules for modules in EXTRAS.values()):
      raise
    raise _missing(module, extra) from error


def _missing(module: str, extra: str) -> MissingPackageError:
  extra = next(name for name in (extra, *EXTRAS) if module in EXTRAS[name])
  return MissingPackageError(f'this needs {module}, which is not installed: install the extra {extra!r} of '
                             'tff-compress, as docs/command-line.md says.')
