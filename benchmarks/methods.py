"""Bits and errors of the published methods, from real payloads: what each costs, and what its formula says."""

import math

import numpy as np

from benchmarks import progress
from tff_compress import codec as codec_lib

KEYS = {'seed': 1, 'round': 0, 'client': 0}
CODECS = (
    'qsgd', 'symmetric | rans', 'symmetric | huffman', 'symmetric | elias', 'symmetric:levels=1,block=64 | rice',
    'symmetric:norm=max | rans', 'symmetric:levels=1,per=tensor | rice', 'symmetric:levels=141,per=tensor | elias',
    'terngrad', 'terngrad:clip=0', 'signsgd', 'ef-signsgd', 'sign:per=block | pack', 'topk:1/100 | float32',
    'topk:1/100 | uniform | pack', 'sbc', 'stc:p=1/100', 'stc', 'atomo', 'subsample:1/50,key=client | float32', 'fedzip',
    'fedzip:centroids=16', 'bounded', 'bounded:error=0.003', 'countsketch:1/10 | float32')


def run(quick):
  return positions(quick) + codecs(quick)


def bits_per_position(p):
  """Sattler et al. 2019, eq. 14."""
  b = max(0, 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log(1 - p))))
  return b + 1 / (1 - (1 - p)**(2**b))


def positions(quick):
  """SBC and STC: bits per value sent, without a message's 17 bytes of lengths, mean and counts; the ratio with all of them."""
  x = np.random.default_rng(0).standard_normal(1 << (18 if quick else 20)).astype(np.float32)
  rows = []
  for name, sign in (('sbc', 0), ('stc', 1)):
    for p in ('1/10', '1/25', '1/100', '1/400', '1/1000'):
      codec = codec_lib(f'{name}:p={p}')
      fraction = codec.rules[0].pipeline.stages[0].fraction
      size = len(codec.encode({'x': x}, **KEYS))
      expected = bits_per_position(float(fraction)) + sign
      rows.append({'table': 'sparse positions', 'method': name, 'p': p, 'bits': 8 * (size - 17) / round(fraction * x.size),
                   'formula': expected, 'ratio': 4 * x.size / size, 'ratio, formula': 32 / float(fraction) / expected})
  return rows


def codecs(quick):
  """Bits per value and NMSE of 20,000 normal values, and of as many with heavy tails."""
  rng = np.random.default_rng(0)
  normal = rng.standard_normal(20_000)
  sources = {'': normal, ', heavy tails': np.sign(normal) * np.exp(1.5 * rng.standard_normal(normal.size))}
  rows = []
  for text in CODECS:
    progress.say(text)
    row = {'table': 'codecs', 'codec': text}
    for name, values in sources.items():
      update = {'x': values.astype(np.float32)}
      sizes, errors = [], []
      for client in range(1 if quick else 4):
        keys = {**KEYS, 'client': client}
        payload = codec_lib(text).encode(update, **keys)
        decoded = codec_lib(text).decode(payload, update, **keys)['x'].astype(np.float64)
        sizes.append(8 * len(payload) / values.size)
        errors.append(np.sum((decoded - update['x'])**2) / np.sum(values**2))
      row[f'bits{name}'], row[f'NMSE{name}'] = float(np.mean(sizes)), float(np.mean(errors))
    rows.append(row)
  return rows
