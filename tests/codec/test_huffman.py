"""Huffman code: optimal lengths, canonical words, and a decoder that looks at all bits at once."""

import heapq

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec import bits
from tff_compress.codec import gaps
from tff_compress.codec.coders import huffman
from tff_compress.codec.coders.huffman import Huffman
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.stage import Integers


def coded(symbols, low, high):
  symbols = np.asarray(symbols, np.int32)
  signal = Integers(symbols.size, low, high)
  payload, _ = Huffman().encode(numpy_ops, symbols, None, signal)
  np.testing.assert_array_equal(Huffman().decode(numpy_ops, payload, {}, None, signal), symbols)
  return payload


def shortest(weights):
  """Sum of weight times length over the words of an optimal code: the sum of all merges."""
  heap, total = [int(w) for w in weights if w], 0
  heapq.heapify(heap)
  while len(heap) > 1:
    merged = heapq.heappop(heap) + heapq.heappop(heap)
    total += merged
    heapq.heappush(heap, merged)
  return total


def lengths_of(weights):
  return huffman._lengths(numpy_ops, np.asarray(weights, np.int32), len(weights))


@pytest.mark.parametrize('alphabet', [2, 3, 10, 100, 256])
def test_the_lengths_are_those_of_an_optimal_code(alphabet):
  rng = np.random.default_rng(alphabet)
  for skew in (0, 1, 3):
    weights = np.floor(rng.random(alphabet) ** (1 + 5 * skew) * 200).astype(np.int64)
    weights[:2] += 1
    lengths = lengths_of(weights)
    assert np.all((lengths > 0) == (weights > 0))
    assert np.sum(2.0**-lengths[lengths > 0]) == 1
    assert np.sum(weights * lengths) == shortest(weights)


def test_no_word_is_longer_than_16_bits():
  """Fibonacci numbers make the longest words: 4180 is the sum of the first 17."""
  fibonacci = [1, 1]
  while sum(fibonacci) + sum(fibonacci[-2:]) <= 4096:
    fibonacci.append(sum(fibonacci[-2:]))
  weights = fibonacci + [4096 - sum(fibonacci)]
  assert max(lengths_of(fibonacci)) == len(fibonacci) - 1 == 15
  assert max(lengths_of(weights)) <= huffman.LONGEST
  counts = np.asarray([1.5**i for i in range(30)], np.int64) + 1  # Frequencies by themselves would take 29 bits.
  symbols = np.repeat(np.arange(30), counts)
  coded(np.random.default_rng(0).permutation(symbols), 0, 29)


def test_words_are_canonical_and_in_order():
  """a a a a b b c: a is 0, b is 10, c is 11."""
  payload = coded([0, 0, 0, 0, 1, 1, 2], 0, 2)
  steps, words = gaps.decode_numbers(numpy_ops, payload, 3, 96)
  assert steps.tolist() == [2, 2, 0]  # Lengths 1, 2, 2: each one longer, one longer, the same.
  assert bits.unpack(numpy_ops, words, 10, 1).tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 1, 1]


def test_lanes_lie_one_behind_the_other():
  """2049 symbols are two lanes, of those at even and of those at odd places; only the first one's bits are said."""
  symbols = np.zeros(2049, np.int32)
  symbols[[1, 3, 4]] = 1, 1, 2
  payload = coded(symbols, 0, 2)
  _, rest = gaps.decode_numbers(numpy_ops, payload, 3, 96)
  assert int.from_bytes(rest[:2].tobytes(), 'little') == 1025 + 1
  words = bits.unpack(numpy_ops, rest[2:], 1025 + 1 + 1024 + 2, 1).tolist()
  assert words[:5] == [0, 0, 1, 1, 0] and words[1026:1030] == [1, 0, 1, 0] and sum(words) == 4


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 64, 1000, 4097])
def test_any_symbols_come_back(size):
  rng = np.random.default_rng(size)
  coded(rng.integers(-3, 4, size), -3, 3)
  coded(rng.geometric(0.3, size).clip(1, 255), 0, 255)
  head = 2 + 2 + 2 * (-(-size // 2048) - 1)  # The table: steps 0, 0, 0, 0, 0, 2, 1, 0 in unary. Lanes.
  assert len(coded(np.full(size, 5), 0, 7)) == head + -(-size // 8)  # One symbol alone takes a bit.


def test_it_is_within_a_bit_of_the_entropy_and_far_from_it_for_sparse_symbols():
  """Ternary at a density of 1 % costs 1.010 bits, and 16 bits for every 2048; its entropy is 0.092
  (H(p) + p would be 0.091).
  """
  rng = np.random.default_rng(0)
  sparse = np.where(rng.random(100_000) < 0.01, rng.choice([-1, 1], 100_000), 0)
  assert 8 * len(coded(sparse, -1, 1)) / sparse.size == pytest.approx(1.010 + 16 / 2048, rel=0.002)
  usual = np.round(rng.standard_normal(50_000) * 5).clip(-60, 60).astype(np.int32)
  share = np.bincount(usual + 60) / usual.size
  entropy = -np.sum(share[share > 0] * np.log2(share[share > 0]))
  assert entropy < 8 * len(coded(usual, -60, 60)) / usual.size < entropy + 0.06


def test_clusters_are_the_means_of_what_is_near_them():
  x = measure.lognormal(3000)
  pipeline = codec_lib('cluster:centroids=5,iterations=50 | huffman').rules[0].pipeline
  symbols, side = pipeline.stages[0].encode(numpy_ops, x, measure.draws_of(), pipeline.signals(x.size)[0])
  codebook = side['codebook'].view(np.float32).astype(np.float64)
  np.testing.assert_array_equal(symbols, np.argmin(np.abs(x[:, None] - codebook), axis=1))
  for i in range(5):
    if np.any(symbols == i):
      assert codebook[i] == pytest.approx(np.mean(x[symbols == i].astype(np.float64)), rel=1e-2)


def test_clusters_start_evenly_spaced():
  x = np.linspace(-2, 6, 9).astype(np.float32)
  pipeline = codec_lib('cluster:centroids=5,iterations=0 | huffman').rules[0].pipeline
  _, side = pipeline.stages[0].encode(numpy_ops, x, measure.draws_of(), pipeline.signals(9)[0])
  assert side['codebook'].view(np.float32).tolist() == [-2, 0, 2, 4, 6]


def test_k_means_only_lessens_the_error():
  x = measure.gaussian(2000)
  errors = [measure.nmse(f'cluster:centroids=6,iterations={i} | huffman', x) for i in (0, 1, 3, 10, 50)]
  assert all(b <= a * (1 + 1e-6) for a, b in zip(errors, errors[1:])) and errors[-1] < 0.8 * errors[0]


def test_fedzip_counts_its_codebook_and_its_positions():
  x = measure.gaussian(20_000)
  payload = codec_lib('fedzip').encode({'x': x}, seed=1, round=0, client=0)
  # Length, positions of about 8.1 bits, three float32, count and table of the code, 200 words of at most 2 bits.
  assert 2 + 200 + 12 + 1 + 25 < len(payload) <= 2 + 3 + 215 + 12 + 1 + 50
  decoded, _ = next(measure.decodes('fedzip', x, 1))
  assert np.count_nonzero(decoded) <= 200 and len(np.unique(decoded)) <= 4
