"""Time and memory of entropy coders, as multiples of int8's time and of the update's size.

One variable of normally distributed values, in NumPy on one core. Times are the fastest of calls in turns. Memory is
the peak of what is allocated during one call, result included, as tracemalloc counts it, in a process of its own for
each codec.
"""

import multiprocessing
import tracemalloc

import numpy as np

from benchmarks.lib import harness
from tff_compress import codec as codec_lib

CODECS = ('int8', 'uniform:bits=8 | huffman', 'uniform:bits=4 | huffman', 'uniform:bits=8 | rans',
          'uniform:bits=4 | rans', 'uniform:bits=8 | rans:lanes=1', 'symmetric:levels=1,block=64 | rice',
          'uniform:bits=4 | rice', 'uniform:bits=8 | elias')
KEYS = {'seed': 1, 'round': 2, 'client': 3}


def run(quick):
  update = {'x': np.random.default_rng(0).standard_normal(100_000 if quick else 1_000_000).astype(np.float32)}
  functions, payloads = {}, {}
  for text in CODECS:
    codec = codec_lib(text)
    payloads[text] = codec.encode(update, **KEYS)
    functions[text, 'encode'] = lambda codec=codec: codec.encode(update, **KEYS)
    functions[text, 'decode'] = lambda codec=codec, text=text: codec.decode(payloads[text], update, **KEYS)
  seconds = harness.fastest(functions, 5 if quick else 60)
  rows = []
  with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
    for text in CODECS:
      encoding, decoding = pool.apply(_memory, (text, update['x']))
      rows.append({
          'codec': text, 'bits per parameter': round(8 * len(payloads[text]) / update['x'].size, 4),
          'encode / int8': round(seconds[text, 'encode'] / seconds['int8', 'encode'], 1),
          'decode / int8': round(seconds[text, 'decode'] / seconds['int8', 'decode'], 1),
          'encode memory': round(encoding, 2), 'decode memory': round(decoding, 2)})
  return rows


def _memory(text, x):
  """Peaks while encoding and decoding, as multiples of the update."""
  codec, update = codec_lib(text), {'x': x}
  peaks = []
  tracemalloc.start()
  payload = codec.encode(update, **KEYS)
  peaks.append(tracemalloc.get_traced_memory()[1])
  before = tracemalloc.get_traced_memory()[0]
  tracemalloc.reset_peak()
  codec.decode(payload, update, **KEYS)
  peaks.append(tracemalloc.get_traced_memory()[1] - before)
  tracemalloc.stop()
  return tuple(peak / x.nbytes for peak in peaks)
