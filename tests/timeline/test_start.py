"""First weights that a few bytes say: of the distribution that they had, the same for all, and nothing else is read."""

import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.wire import reference
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.spec import Spec
from tff_compress.timeline.start import Start

WEIGHTS = 12
"""The purpose of the keys."""

SHAPES = ((50, 40), (40,), (), (0,), (24,))


def _weights(seed=0):
  rng = np.random.default_rng(seed)
  bias = np.repeat(np.float32([0, 1, 0]), 8)  # As an LSTM has it.
  return [rng.uniform(-0.3, 0.3, SHAPES[0]).astype(np.float32), np.zeros(40, np.float32), np.float32(2.5),
          np.zeros(0, np.float32), bias]


SPEC = Spec.of({f'v{i}': np.zeros(shape, np.float32) for i, shape in enumerate(SHAPES)})


def test_uniform_weights_keep_their_distribution_and_constants_stay():
  first = _weights()
  drawn = Start.like(first, 9).weights(SPEC)
  assert [w.shape for w in drawn] == [np.shape(w) for w in first] and all(w.dtype == np.float32 for w in drawn)
  for place in (1, 2, 3, 4):
    np.testing.assert_array_equal(drawn[place], first[place])
  assert np.abs(drawn[0]).max() <= 0.31 and drawn[0].std() == pytest.approx(first[0].std(), rel=0.05)
  assert abs(drawn[0].mean()) < 4 * 0.173 / np.sqrt(2000)
  assert not np.any(drawn[0] == first[0])


def test_normal_weights_keep_their_variance():
  normal = [np.random.default_rng(1).normal(0, 0.05, 20_000).astype(np.float32)]
  drawn, = Start.like(normal, 9).weights(Spec.of({'x': normal[0]}))
  assert drawn.std() == pytest.approx(0.05, rel=0.02)


def test_values_are_those_of_the_documents_formula():
  """(h + 1/2) / 65536 · 2 L - L, h the halves of the stream of the variable's place."""
  start = Start.like(_weights(), 9)
  limit = np.float32(start.variables[0].limit)
  stream = reference.Stream(9, 0, reference.SHARED, '0', WEIGHTS, 0)
  drawn = start.weights(SPEC)[0].reshape(-1)
  for i in (0, 1, 2, 777, 1999):
    half = stream.word(i // 2) >> 16 * (i % 2) & 0xFFFF
    u = reference.single((half + 0.5) / 65536)
    assert float(drawn[i]) == reference.single(reference.single(u * float(2 * limit)) - float(limit))


def test_the_seed_says_the_weights():
  first = _weights()
  one, same, other = (Start.like(first, seed).weights(SPEC)[0] for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert np.mean(one == other) < 0.01
  # Variables of one shape and limit are not the same.
  twice = Start.like([first[0], first[0]], 1).weights(Spec.of({'a': first[0], 'b': first[0]}))
  assert np.mean(twice[0] == twice[1]) < 0.01


def test_a_start_is_a_few_bytes_and_read_as_it_was():
  start = Start.like(_weights(), 2**64 - 1)
  data = start.to_bytes()
  assert len(data) == 9 + 5 + (1 + 1 + 4) * 3 + (1 + 3 * 5)
  assert Start.from_bytes(data, SPEC) == start


def test_a_start_that_was_cut_off_or_lengthened_or_is_for_another_model_is_refused():
  data = Start.like(_weights(), 3).to_bytes()
  for bad in [*(data[:n] for n in range(len(data))), data + b'\0', b'\2' + data[1:]]:
    with pytest.raises(PayloadError):
      Start.from_bytes(bad, SPEC)
  other = Spec.of({'a': np.zeros((50, 40), np.float32), 'b': np.zeros(41, np.float32)})
  with pytest.raises(PayloadError):
    Start.from_bytes(data, other)
  with pytest.raises(SpecError):
    Start.like(_weights(), 3).weights(other)


@pytest.mark.parametrize('value', [np.nan, np.inf, -1.0, 2.0**65])
def test_limits_and_values_that_no_model_has_are_refused(value):
  data = Start.like(_weights(), 3).to_bytes()
  with pytest.raises(PayloadError):
    Start.from_bytes(data[:10] + np.float32(value).tobytes() + data[14:], SPEC)
  if value != -1:
    with pytest.raises(PayloadError):
      Start.from_bytes(data[:16] + np.float32(value).tobytes() + data[20:], SPEC)
    with pytest.raises(SpecError):
      Start.like([np.float32([value])], 3)


@hypothesis.given(st.binary(max_size=80))
def test_any_bytes_are_a_start_or_refused_in_little_memory(data):
  tracemalloc.start()
  try:
    Start.from_bytes(b'\1' + data, SPEC)
  except CompressionError:
    pass
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1 << 18
