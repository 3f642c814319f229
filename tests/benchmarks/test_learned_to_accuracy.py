"""The classifier in NumPy of the benchmark of learned encoders."""

import numpy as np

from benchmarks.training import learned_to_accuracy


def loss(weights, x, y):
  kernel, bias, out, shift = (w.astype(np.float64) for w in weights.values())
  logits = np.maximum(x @ kernel + bias, 0) @ out + shift
  return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])


def test_a_step_goes_down_the_gradient():
  rng = np.random.default_rng(0)
  x, y = rng.random((4, 784)).astype(np.float32), rng.integers(0, 10, 4)
  model = learned_to_accuracy.Classifier(5, x, y)
  weights = model.initial(3)
  update = model.train(weights, np.arange(4), 1, np.random.default_rng(1))
  chosen = np.random.default_rng(1).choice(4, learned_to_accuracy.BATCH)
  for name in weights:
    for place in (0, -1):
      moved = {key: w.astype(np.float64) for key, w in weights.items()}
      slope = []
      for step in (1e-5, -1e-5):
        moved[name] = weights[name].astype(np.float64)
        moved[name].flat[place] += step
        slope.append(loss(moved, x[chosen], y[chosen]))
      expected = -learned_to_accuracy.RATE * (slope[0] - slope[1]) / 2e-5
      np.testing.assert_allclose(update[name].flat[place], expected, rtol=1e-2, atol=2e-6)


def test_the_model_goes_down_as_float32_to_each_client_in_each_round(monkeypatch):
  def train(hidden, seed, name, way, rounds):
    return {'up once': 500, 'down once': 0, 'rounds': [{'round': rounds, 'bytes': 2_500, 'accuracy': 0.5}]}
  monkeypatch.setattr(learned_to_accuracy, 'trained', train)
  monkeypatch.setattr(learned_to_accuracy, 'alone', lambda *unused: 0.4)
  monkeypatch.setattr(learned_to_accuracy, 'plot', lambda *unused: None)
  *rows, alone = [row for row in learned_to_accuracy.run(quick=True) if row['table'] == 'per seed']
  model = 4 * (784 * 20 + 20 + 20 * 10 + 10) + 20  # The frame has 20 bytes beside the values.
  assert [row['MB both'] for row in rows] == [(2_500 + 2 * 2 * model) / 1e6] * 3 and rows[0]['kB in all'] == 2.5
  assert alone['MB both'] == 0


def test_behind_is_paired_by_seed():
  rows = [{'table': 'per seed', 'model': 'narrow', 'method': method, 'seed': seed, 'kB up once': 0.0,
           'kB down once': 0.0, 'kB in all': 1.0, 'MB both': 1.0, 'bytes a message': 1.0, 'accuracy': accuracy}
          for seed, both in enumerate(((0.8, 0.7), (0.9, 0.8))) for method, accuracy in zip(('float32', 'other'), both)]
  other = learned_to_accuracy.summary(rows)[1]
  assert other['seeds'] == 2 and abs(other['behind'] - 10) < 1e-9 and other['behind, s.e.'] < 1e-9
