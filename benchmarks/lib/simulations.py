"""Simulated runs for benchmarks: each is made once, kept in the cache, and compared with another seed by seed."""

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import progress
from benchmarks.lib import scores
from tff_compress.simulation import run as run_lib

FOLDER = harness.CACHE / 'simulations'
"""One file per run. A run is known by its settings alone: delete the files after a change of what a method does."""


def finished(**settings):
  """The run with these settings of `RunConfig`, trained unless it was: dict of `status`, `parameters` and `rounds`.
  Where no uplink is named, it is float32."""
  def trained():
    config = run_lib.RunConfig(**{'uplink': 'float32', **settings})
    label = f'{config.uplink}, {config.split}, seed {config.seed}'
    say = lambda entry: progress.say(f'{label}: round {entry["round"]} of {config.rounds}')
    result = run_lib.run(config, on_round=say)
    progress.say('')
    return {'settings': settings, 'status': result.status, 'parameters': result.parameters,
            'rounds': list(result.rounds)}
  return harness.once(FOLDER, settings, trained)


def accuracies(result):
  """Those of a run's evaluations, in order. A run that diverged ends with the accuracy of guessing, `scores.WIDTH`
  times."""
  known = [entry['accuracy'] for entry in result['rounds'] if entry['accuracy'] is not None]
  return known + [scores.GUESSING] * (scores.WIDTH if result['status'] == 'diverged' else 0)


def score(result, target):
  """What a run says about bytes until a target accuracy: a dict of columns.

  Args:
    result: as of `finished`, evaluated in each round.
    target: accuracy that the mean of `scores.WIDTH` rounds has to reach.
  """
  rounds = result['rounds']
  curve = accuracies(result)
  means = scores.trailing_means(curve)
  reached = next((i + scores.WIDTH for i, mean in enumerate(means) if mean >= target), None)
  row = {'status': result['status'], 'round': reached, 'final accuracy': means[-1], 'accuracies': curve}
  for column, direction in (('up', 'uplink'), ('down', 'downlink')):
    sent = np.cumsum([entry[f'{direction}_bytes'] for entry in rounds])
    row[f'MB {column}'] = None if reached is None else float(sent[reached - 1] / 1e6)
    row[f'{direction} bytes'] = [entry[f'{direction}_bytes'] for entry in rounds]
    row[f'bytes {column}'] = float(sent[-1] / sum(entry['clients'] for entry in rounds)) if rounds else None
  return row
