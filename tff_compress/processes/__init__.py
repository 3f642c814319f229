"""Learning processes whose clients keep state between rounds.

`build_fed_avg` makes one; a `Runner` runs it, and keeps the clients' states in a store of its own, by client id.
TensorFlow and TFF are imported when a name that needs them is used.
"""

import importlib

from tff_compress.processes.errors import ClientError
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError
from tff_compress.processes.feedback import ErrorFeedback
from tff_compress.processes.methods import method
from tff_compress.processes.relevance import Relevance
from tff_compress.processes.store import ClientStore

_LAZY = {
    'AutoencoderProcess': 'autoencoder',
    'Changes': 'changes',
    'ClientStateProcess': 'process',
    'FederatedDropout': 'federated_dropout',
    'FetchSgd': 'fetch',
    'PowerSgd': 'power',
    'Runner': 'runner',
    'Structured': 'structured',
    'build_autoencoder_fed_avg': 'autoencoder',
    'build_fed_avg': 'fed_avg',
}

__all__ = ['ClientError', 'ClientStore', 'ErrorFeedback', 'ProcessError', 'Relevance', 'StateError', 'method', *_LAZY]


def __getattr__(name):
  if name in _LAZY:
    return getattr(importlib.import_module(f'tff_compress.processes.{_LAZY[name]}'), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted([*globals(), *__all__])
