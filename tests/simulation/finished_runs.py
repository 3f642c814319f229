"""Runs as a report sees them, without training."""

from tff_compress.simulation import report

PARAMETERS = 1000


def run(uplink='float32', downlink='float32', seed=0, accuracies=(0.1, 0.5, 0.6, 0.7), bits=(32, 32), estimate='',
        figures=(), **changes):
  """A run with ten clients a round that sends the same bytes in every round, and has the same `figures` (a dict)."""
  rounds = []
  for i, accuracy in enumerate(accuracies):
    entry = {'round': i + 1, 'accuracy': accuracy, 'loss': 1.0 / (i + 1), 'seconds': 2.0 + i, 'clients': 10,
             **dict(figures)}
    for direction, width, suffix in zip(('uplink', 'downlink'), bits, (estimate, '')):
      entry[f'{direction}_bytes{suffix}'] = 10 * PARAMETERS * width // 8
      entry[f'{direction}_bits_per_parameter{suffix}'] = width
      entry[f'{direction}_ratio{suffix}'] = 32 / width if width else 0
    rounds.append(entry)
  fields = {'settings': {'dataset': 'digits', 'model': 'mlp', 'rounds': len(rounds)}, 'parameters': PARAMETERS,
            **changes}
  return report.Run(uplink, downlink, seed, rounds=tuple(rounds), **fields)


def comparison():
  return [run(seed=0, accuracies=(0.5, 0.8, 0.8, 0.8)), run(seed=1, accuracies=(0.5, 0.6, 0.6, 0.6)),
          run('int8', 'int8', 0, (0.5, 0.79, 0.79, 0.79), (8, 8)),
          run('int8', 'int8', 1, (0.5, 0.61, 0.61, 0.61), (8, 8)),
          run('sketch', 'int8', 1, (0.4, 0.5, 0.5, 0.5), (1, 8))]
