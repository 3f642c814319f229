"""Work in slices of rows gives what work on whole matrices gives, and random rows are those of the stream."""

import numpy as np
import pytest

from tff_compress.codec import random
from tff_compress.codec.ops import NumpyOps


@pytest.fixture
def xp():
  ops = NumpyOps()
  ops.slice_size = 64
  return ops


@pytest.fixture
def stream(xp):
  return random.Stream(xp, lambda chunk: np.array([1 + chunk, 2], np.int32))


@pytest.mark.parametrize('kind', ['words', 'halves', 'dither', 'signs'])
@pytest.mark.parametrize('start', [0, 1, 5, 31, 32, 33, 95])
def test_a_draw_may_start_anywhere(stream, kind, start):
  draw = getattr(stream, kind)
  whole = draw(200)
  for size in (0, 1, 2, 33, 100):
    np.testing.assert_array_equal(draw(size, start), whole[start:start + size])


def test_a_draw_may_start_in_any_chunk(stream, monkeypatch):
  monkeypatch.setattr(random, 'WORDS_PER_KEY', 10)
  whole = stream.words(45)
  np.testing.assert_array_equal(stream.words(15, 27), whole[27:42])
  np.testing.assert_array_equal(stream.words(10, 10), whole[10:20])


@pytest.mark.parametrize('columns', [1, 7, 32])
def test_random_rows_are_consecutive_numbers_of_the_stream(xp, stream, columns):
  rows = random.Rows(xp, stream.dither, 9, columns, 3)
  whole = stream.dither(9 * columns, 3).reshape(9, columns)
  np.testing.assert_array_equal(rows[:], whole)
  np.testing.assert_array_equal(rows[4:7], whole[4:7])
  np.testing.assert_array_equal(rows[8:16], whole[8:])


@pytest.mark.parametrize('rows', [0, 1, 7, 8, 9, 100])
def test_slices_of_rows_are_put_together_in_order(xp, stream, rows):
  x = np.arange(rows * 10, dtype=np.float32).reshape(rows, 10)
  seen = []

  def function(a, dither):
    seen.append(len(a))
    return a + dither, np.max(a, axis=1, keepdims=True, initial=0)

  total, largest = xp.by_rows(function, x, random.Rows(xp, stream.dither, rows, 10))
  np.testing.assert_array_equal(total, x + stream.dither(rows * 10).reshape(rows, 10))
  np.testing.assert_array_equal(largest, x[:, 9:])
  assert sum(seen) == rows and max(seen) <= 64 // 10


def test_results_for_a_transposed_view_are_transposed_back_without_a_copy(xp):
  x = np.arange(300, dtype=np.float32).reshape(10, 30)
  doubled, = xp.by_rows(lambda a: (2 * a,), x.T)
  np.testing.assert_array_equal(doubled, 2 * x.T)
  assert np.shares_memory(doubled.T.reshape(-1), doubled)
