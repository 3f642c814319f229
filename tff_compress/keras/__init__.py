"""Keras in, Keras out: federated training of a compiled Keras model with encoded updates.

    model, history = tff_compress.keras.federate(model, client_data, uplink='hadamard | uniform:bits=2 | pack',
    rounds=20)

federation.py has the one function; model.py turns a compiled model into what TFF's clients run, tracing.py keeps users'
code out of TFF's graphs, clients.py lays out the clients' data, learning.py builds the learning process, training.py
runs its rounds, optimizers.py translates optimizers, progress.py shows that it goes on. TensorFlow and TFF are imported
when `federate` is first used.
"""

import importlib

from tff_compress.keras.errors import FederateError

_LAZY = {'federate': 'tff_compress.keras.federation'}

__all__ = ['FederateError', *_LAZY]


def __getattr__(name):
  if name in _LAZY:
    return getattr(importlib.import_module(_LAZY[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted([*globals(), *__all__])
