"""Kinds of data in training: the loss that is trained is the loss that is measured, and `run` trains every kind."""

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.simulation import datasets
from tff_compress.simulation import kinds
from tff_compress.simulation import models
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.run import run

pytestmark = pytest.mark.xdist_group('tff')

EXAMPLES = {'image': ('digits', 'digits_cnn'), 'table': ('wine', 'table_mlp'), 'regression': ('diabetes', 'table_mlp'),
            'text': ('sentences', 'char_lstm')}
"""{kind: (data set, model)}."""


def test_every_kind_has_an_example():
  assert set(EXAMPLES) == {kind.name for kind in kinds.KINDS}
  for name, (dataset, model) in EXAMPLES.items():
    assert datasets.SOURCES[dataset].kind.name == name
    models.check_kind(model, datasets.SOURCES[dataset].kind, dataset)


@pytest.mark.parametrize('dataset, model', EXAMPLES.values(), ids=EXAMPLES)
def test_what_is_measured_is_what_keras_says(dataset, model):
  dataset = datasets.load(dataset)
  kind, x, y = dataset.kind, dataset.x_test[:30], dataset.y_test[:30]
  built = models.build(model, input_shape=dataset.input_shape, num_classes=dataset.num_classes)
  built.compile(**kind.compile_arguments())
  outputs = built(x)
  assert outputs.shape[1:] == (*y.shape[1:], dataset.num_classes)
  measured = built.evaluate(x, y, batch_size=30, verbose=0, return_dict=True)
  np.testing.assert_allclose(tf.reduce_mean(kind.losses(y, outputs)), measured.pop('loss'), rtol=1e-5)
  assert bool(measured) == kind.accuracy
  if kind.accuracy:
    np.testing.assert_allclose(np.mean(kind.hits(y, outputs)), measured['accuracy'], rtol=1e-5)


@pytest.mark.parametrize('kind, without', [('table', np.log(3)), ('regression', 1), ('text', np.log(28))])
def test_run_trains_it(kind, without, tff_runtime):
  """Beyond the loss of a model that knows nothing."""
  dataset, model = EXAMPLES[kind]
  result = run(RunConfig(dataset=dataset, model=model, clients=4, clients_per_round=4, rounds=2, local_epochs=3,
                         client_learning_rate={'text': 2.0}.get(kind, 0.1), uplink='int8', workers=0))
  assert result.loss < 0.9 * without
  for entry in result.rounds:
    for name in ('accuracy', 'train_accuracy'):
      assert (entry[name] is None) == (kind == 'regression') and (entry[name] is None or 0 <= entry[name] <= 1)
