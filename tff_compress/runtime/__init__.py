"""Running TFF computations: workers that end with this process, several workers, deadlines, errors that say what to do.

    from tff_compress import runtime

    runtime.install()                        # one local worker, in place of TFF's own
    runtime.install(workers=2, deadline=60)  # the clients of every call split over two
    runtime.connect(['hosta:8000', 'hostb:8000'])
    with runtime.local_context(workers=2) as context:
      ...

TFF's own local runtime leaves its worker behind when Python is killed, and calls to a worker that died never return.
`runtime.compat` is the one module of this project that touches private or moving parts of TFF. TensorFlow and TFF are
imported when a name that needs them is used.
"""

import importlib
from typing import Any

from tff_compress.runtime.errors import NotMergeableError
from tff_compress.runtime.errors import RuntimeConnectionError
from tff_compress.runtime.errors import RuntimeDeadlineError
from tff_compress.runtime.errors import RuntimeStartError
from tff_compress.runtime.errors import TffRuntimeError

_LAZY = ('Runtime', 'connect', 'install', 'local_context')
_MODULES = ('compat', 'context')

__all__ = ['NotMergeableError', 'RuntimeConnectionError', 'RuntimeDeadlineError', 'RuntimeStartError',
           'TffRuntimeError',
           *_LAZY]


def __getattr__(name: str) -> Any:
  if name in _LAZY:
    return getattr(importlib.import_module('tff_compress.runtime.context'), name)
  if name in _MODULES:
    return importlib.import_module(f'tff_compress.runtime.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
