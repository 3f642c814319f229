"""Measured bits per parameter of real frames against their error, and the gap to the limit of rate-distortion theory.

Sources: 2^20 values of a normal distribution, of Student's t with 3 degrees of freedom and of a lognormal distribution
(sigma 1.5, random signs), given to all 10 clients alike; and the updates of the 10 clients of rounds 1 and 5 of
federated averaging on Fashion-MNIST (lib/fedavg.py; recorded once, which takes TensorFlow and a minute).

    bits        8 x bytes of the frame / values: header, scales, positions and checksum included
    NMSE        ||decoded - update||^2 / ||update||^2, averaged over the clients
    gap         bits minus the fewest bits at which this NMSE is possible for a normal distribution: NMSE = 1 / (2^{2R}
    - 1) for
                unbiased codecs, 2^{-2R} for the others. Values that are not normal can do better than that: gaps may be
                negative.
    mean / one  squared error of the mean over the clients / mean squared error of one client: 0.1 where errors are
                independent, 1 where averaging does not help
"""

import math

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import plots
from benchmarks.lib import progress
from tff_compress import codec as codec_lib
from tff_compress import wire

_PRIVATE = 'hadamard:rotations=2,key=client'

FAMILIES = {
    'uniform': [f'uniform:bits={b} | pack' for b in range(1, 9)],
    'hadamard + uniform': [f'hadamard | uniform:bits={b} | pack' for b in range(1, 9)],
    'hadamard + uniform + rans': [f'hadamard | uniform:bits={b} | rans' for b in range(2, 9)],
    'uniform + rans': [f'uniform:bits={b} | rans' for b in range(2, 9)],
    'eden': [f'concat | {_PRIVATE} | subsample:1/{s},key=client | eden:bits=1 | pack' for s in (64, 16, 8, 4, 2)]
            + [f'drive:bits={b}' for b in range(1, 5)],
    'eden + rans': [f'concat | {_PRIVATE} | eden:bits={b} | rans' for b in (2, 3, 4)],
    'eden, least error': [f'concat | {_PRIVATE} | eden:bits={b},scale=least-error | pack' for b in range(1, 5)],
    'rotated-ternary': [f'rotated-ternary:threshold={t}' for t in (3.1, 2.81, 2.441, 2.116, 1.728, 1.208)],
    'shared-mask': [f'shared-mask:fraction=1/{s}' for s in (64, 16, 4)],
    'sketch': ['sketch', 'sketch:fraction=1/4,bits=2', 'sketch:fraction=1/4,bits=4'],
    'topk + float16': [f'topk:{f} | float16' for f in ('1/1000', '1/100', '1/20', '1/10', '1/4')],
    'float16': ['float16'],
}


def run(quick):
  rows = []
  tables = sources(quick)
  for table, updates in tables.items():
    for family, codecs in FAMILIES.items():
      for text in codecs[::3] if quick else codecs:
        progress.say(f'{table}: {text}')
        rows.append({'table': table, 'family': family, 'codec': text, **measured(codec_lib(text), updates)})
  progress.say('')
  plot(rows, quick)
  return rows


def sources(quick):
  """{name: [update of each client]}"""
  size, clients = (1 << 15, 3) if quick else (1 << 20, 10)
  rng = np.random.default_rng(0)
  samples = {
      'normal': rng.standard_normal(size),
      'Student t (3)': rng.standard_t(3, size),
      'lognormal (1.5)': rng.lognormal(0, 1.5, size) * rng.choice([-1, 1], size),
  }
  result = {name: [{'x': values.astype(np.float32)}] * clients for name, values in samples.items()}
  if not quick:
    for number, updates in fedavg.recorded_updates((1, 5)).items():
      result[f'CNN updates, round {number}'] = updates
  return result


def measured(codec, updates):
  """Sends one update per client and measures: a dict of columns."""
  sent, errors, energies = 0, [], []
  error_of_sum = 0
  for client, update in enumerate(updates):
    frame = wire.pack(codec, update, seed=0, round=1, client=client)
    decoded, _ = wire.unpack(codec, frame, update, seed=0, round=1, client=client)
    error = np.concatenate([(decoded[name] - update[name]).ravel() for name in update]).astype(np.float64)
    sent += len(frame)
    errors.append(error @ error)
    energies.append(sum(float(np.sum(np.square(value, dtype=np.float64))) for value in update.values()))
    error_of_sum = error_of_sum + error
  values = codec_lib.Spec.of(updates[0]).parameters * len(updates)
  bits = 8 * sent / values
  nmse = float(np.mean(np.divide(errors, energies)))
  unbiased = all(rule.pipeline.unbiased for rule in codec.rules)
  return {'bits': bits, 'NMSE': nmse, 'unbiased': unbiased, 'gap': bits - least_bits(nmse, unbiased),
          'mean / one': float(error_of_sum @ error_of_sum / len(updates)**2 / np.mean(errors))}


def least_bits(nmse, unbiased):
  """Bits per value below which no codec reaches this NMSE on a normal distribution."""
  return 0.5 * math.log2(1 + 1 / nmse if unbiased else max(1, 1 / nmse))


def plot(rows, quick):
  tables = list(dict.fromkeys(row['table'] for row in rows))
  figure, axes = plots.axes(len(tables), size=(4.4, 4), sharey=True)
  rates = np.geomspace(0.01, 17, 200)
  for axis, table in zip(axes[0], tables):
    for number, family in enumerate(FAMILIES):
      points = [(row['bits'], row['NMSE']) for row in rows if (row['table'], row['family']) == (table, family)]
      axis.plot(*zip(*points), marker='osv^D*'[number % 6], markersize=4, linewidth=1, label=family,
                color=plots.colour(number))
    axis.plot(rates, 1 / (4**rates - 1), 'k-', linewidth=0.8, label='limit, unbiased (normal)')
    axis.plot(rates, 4**-rates, 'k:', linewidth=0.8, label='limit (normal)')
    axis.set(xscale='log', yscale='log', title=table, xlabel='bits per parameter', xlim=(0.01, 20), ylim=(1e-8, 1e4))
  axes[0][0].set_ylabel('NMSE of one update')
  axes[0][-1].legend(fontsize=7, loc='lower left')
  plots.save(figure, 'rate_distortion', quick)
