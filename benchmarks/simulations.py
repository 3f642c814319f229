"""Simulated runs for benchmarks: each is made once, kept in the cache, and compared with another seed by seed."""

import hashlib
import json
import math

import numpy as np

from benchmarks import harness
from benchmarks import progress
from tff_compress.simulation import run as run_lib

FOLDER = harness.CACHE / 'simulations'
"""One file per run. A run is known by its settings alone: delete the files after a change of what a method does."""

WIDTH = 3
"""Rounds whose mean accuracy is what counts."""

GUESSING = 0.1


def finished(**settings):
  """The run with these settings of `RunConfig`, trained unless it was: dict of `status`, `parameters` and `rounds`."""
  name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:20]
  path = FOLDER / f'{name}.json'
  if not path.exists():
    config = run_lib.RunConfig(**settings)
    label = f'{config.uplink}, {config.split}, seed {config.seed}'
    say = lambda entry: progress.say(f'{label}: round {entry["round"]} of {config.rounds}')
    result = run_lib.run(config, on_round=say)
    progress.say('')
    harness.write_json(path, {'settings': settings, 'status': result.status, 'parameters': result.parameters,
                              'rounds': list(result.rounds)})
  return json.loads(path.read_text(encoding='utf-8'))


def accuracies(result):
  """Those of a run's evaluations, in order. A run that diverged ends with `WIDTH` times the accuracy of guessing."""
  known = [entry['accuracy'] for entry in result['rounds'] if entry['accuracy'] is not None]
  return known + [GUESSING] * (WIDTH if result['status'] == 'diverged' else 0)


def trailing_means(curve):
  """Mean of the last `WIDTH` of them, from the `WIDTH`-th on; of all, where there are fewer."""
  width = min(WIDTH, len(curve))
  return [float(np.mean(curve[i - width:i])) for i in range(width, len(curve) + 1)]


def score(result, target):
  """What a run says about bytes until a target accuracy: a dict of columns.

  Args:
    result: as of `finished`, evaluated in each round.
    target: accuracy that the mean of `WIDTH` rounds has to reach.
  """
  rounds = result['rounds']
  curve = accuracies(result)
  means = trailing_means(curve)
  reached = next((i + WIDTH for i, mean in enumerate(means) if mean >= target), None)
  row = {'status': result['status'], 'round': reached, 'final accuracy': means[-1], 'accuracies': curve}
  for column, direction in (('up', 'uplink'), ('down', 'downlink')):
    sent = np.cumsum([entry[f'{direction}_bytes'] for entry in rounds])
    row[f'MB {column}'] = None if reached is None else float(sent[reached - 1] / 1e6)
    row[f'{direction} bytes'] = [entry[f'{direction}_bytes'] for entry in rounds]
    row[f'bytes {column}'] = float(sent[-1] / sum(entry['clients'] for entry in rounds)) if rounds else None
  return row


def mean_and_error(values):
  """(mean, its standard error or None for fewer than two values); (None, None) for no value."""
  if not values:
    return None, None
  error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
  return float(np.mean(values)), error
