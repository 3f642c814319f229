"""Runs with key frames: when the model is coded, what that loses, and how runs are compared."""

import numpy as np
import pytest

from benchmarks.training import key_frames
from tff_compress.codec.spec import Spec
from tff_compress.timeline.start import Start

SPEC = Spec.of({'kernel': np.zeros([30, 40], np.float32), 'bias': np.zeros([40], np.float32)})


def exchange_of(every, codec='int8'):
  weights = [np.random.default_rng(1).uniform(-1, 1, tensor.shape) for tensor in SPEC.tensors]
  return key_frames.KeyFrames('', codec, every).begin(SPEC, Start.like(weights, 3), 5)


def errors(exchange, rounds):
  found = []
  for number in rounds:
    updates = np.random.default_rng(number).normal(0, 0.01, (2, SPEC.parameters)).astype(np.float32)
    received = [(client, 1.0, exchange.upload(client, update)) for client, update in enumerate(updates)]
    found.append(exchange.step(received)['error'])
  return found


def test_the_model_is_coded_after_every_so_many_rounds():
  assert [error > 0 for error in errors(exchange_of(3), range(7))] == 2 * [False, False, True] + [False]
  assert not any(errors(exchange_of(0), range(3)))


def test_rounding_to_the_nearest_loses_half_of_what_rounding_at_random_does():
  random, nearest = (np.mean(errors(exchange_of(1, codec), range(8))) for codec in key_frames.CODECS.values())
  assert nearest == pytest.approx(random / 2, rel=0.1)


def test_a_run_goes_on_from_a_checkpoint():
  whole, again = exchange_of(2), exchange_of(2)
  errors(whole, range(3))
  again.restore(whole.checkpoint())
  assert errors(again, range(3, 6)) == errors(whole, range(3, 6))
  np.testing.assert_array_equal(again.model, whole.model)


def test_differences_are_paired_by_seed():
  rows = [{'key frames': name, 'seed': seed, 'NMSE': 0.5, 'accuracy': base + own, 'averaged': base}
          for seed, base in enumerate((0.5, 0.7)) for name, own in (('none', 0), ('nearest', 0.01 * (seed + 1)))]
  row = key_frames.summary(rows)[1]
  assert (row['accuracy +'], row['accuracy s.e.']) == (pytest.approx(1.5), pytest.approx(0.5))
  assert (row['averaged +'], row['NMSE']) == (0, 0.5)
