"""A client's examples by a short text: `digits:client=3,of=20`, those of client 3 where 20 clients share the digits.

They are the same as those of client 3 of `tff-compress run` with 20 clients, this split and this seed.
"""

import re

import numpy as np

from tff_compress.device.errors import DeviceError
from tff_compress.simulation import datasets
from tff_compress.simulation import splits

_SPLIT = 'dirichlet:0.5'


def load(text: str) -> tuple[np.ndarray, np.ndarray]:
  """The examples (x, y) of a text.

  Options: `client`, from 0; `of`, how many clients there are; `split`, as for runs (dirichlet:0.5); `seed` (0).

  Raises:
    DeviceError: the text is not such a one.
    DataError, SplitError: there are no such data, or they cannot be split so.
  """
  name, _, rest = text.partition(':')
  options = dict.fromkeys(('client', 'of', 'split', 'seed'), '')
  for item in filter(None, rest.split(',')):
    key, equals, value = item.partition('=')
    if not equals or key not in options or options[key]:
      raise DeviceError(f'--data has {item[:40]!r}: its options are client, of, split and seed, each once, as in '
                        'digits:client=3,of=20.')
    options[key] = value
  numbers = {}
  for key, usual in (('client', ''), ('of', ''), ('seed', '0')):
    if re.fullmatch('[0-9]{1,9}', options[key] or usual) is None:
      raise DeviceError(f'--data needs a whole number for {key}, as in digits:client=3,of=20.')
    numbers[key] = int(options[key] or usual)
  if numbers['client'] >= numbers['of']:
    raise DeviceError(f'--data has client={numbers["client"]} of={numbers["of"]}: clients count from 0.')
  dataset = datasets.load(name, download=False)
  parts = splits.split(options['split'] or _SPLIT, dataset.labels, numbers['of'], numbers['seed'],
                       client_ids=dataset.client_ids)
  chosen = parts[numbers['client']]
  return dataset.x_train[chosen], dataset.y_train[chosen]
