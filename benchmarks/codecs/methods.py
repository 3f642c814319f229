"""Bits and errors of the published methods, from real payloads: what each costs, and what its formula says."""

import fractions
import math

import numpy as np

from benchmarks.lib import progress
from tff_compress import codec as codec_lib

KEYS = {'seed': 1, 'round': 0, 'client': 0}
CODECS = (
    'qsgd', 'symmetric | rans', 'symmetric | huffman', 'symmetric | elias', 'symmetric:levels=1,block=64 | rice',
    'symmetric:norm=max | rans', 'symmetric:levels=1,per=tensor | rice', 'symmetric:levels=141,per=tensor | elias',
    'terngrad', 'terngrad:clip=0', 'signsgd', 'ef-signsgd', 'sign:per=block | pack', 'topk:1/100 | float32',
    'topk:1/100 | uniform | pack', 'sbc', 'stc:p=1/100', 'stc', 'atomo', 'subsample:1/50,key=client | float32',
    'fedzip',
    'fedzip:centroids=16', 'bounded', 'bounded:error=0.003', 'countsketch:1/10 | float32')


SHARES = tuple(fractions.Fraction(1, n) for n in (10, 25, 100, 400, 1000, 10_000))
DELAYS = (1, 10, 100)
CONFIGURATIONS = ((1, fractions.Fraction(1, 1000), 2569), (10, fractions.Fraction(1, 100), 3531),
                  (100, fractions.Fraction(1, 100), 37_208))
"""Delay, share and ratio as printed for ResNet50 of the configurations of Sattler et al. 2019."""


def run(quick):
  sparse = positions(quick)
  return sparse + configurations(sparse) + codecs(quick)


def bits_per_position(p):
  """Sattler et al. 2019, eq. 14."""
  b = max(0, 1 + math.floor(math.log2(math.log((math.sqrt(5) - 1) / 2) / math.log(1 - p))))
  return b + 1 / (1 - (1 - p)**(2**b))


def positions(quick):
  """SBC and STC: bits per value sent, without the 17 bytes of lengths, mean and counts, and ratios with all bytes.

  A message after n local steps stands for n updates: with this communication delay the ratio is n times as large.
  """
  rng = np.random.default_rng(0)
  rows = []
  for p in SHARES:
    # The fewer values are sent, the more their number, and the gaps that chance makes, vary.
    x = rng.standard_normal(1 << (18 if quick else 20 if p > fractions.Fraction(1, 1000) else 24)).astype(np.float32)
    for name, sign in (('sbc', 0), ('stc', 1)):
      progress.say(f'{name}, p = {p}')
      size = len(codec_lib(f'{name}:p={p}').encode({'x': x}, **KEYS))
      expected = bits_per_position(float(p)) + sign
      ratio = 4 * x.size / size
      rows.append({'table': 'sparse positions', 'method': name, 'p': str(p),
                   'bits': 8 * (size - 17) / round(p * x.size), 'formula': expected,
                   **{f'ratio, delay {n}': n * ratio for n in DELAYS}, 'ratio, formula': 32 / float(p) / expected})
  return rows


def configurations(rows):
  """The configurations of the SBC paper: the ratio it prints, the formula's, and that measured by `positions`."""
  result = []
  for number, (delay, p, printed) in enumerate(CONFIGURATIONS, 1):
    row = next(row for row in rows if row['method'] == 'sbc' and row['p'] == str(p))
    result.append({'table': 'SBC', 'configuration': number, 'delay': delay, 'p': str(p), 'printed': printed,
                   'formula': delay * row['ratio, formula'], 'measured': row[f'ratio, delay {delay}']})
  return result


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
