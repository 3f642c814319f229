"""Sparse binary and ternary compression: worked example, exact counts, and bits against the formula for Golomb
positions."""

import math

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec import gaps
from tff_compress.codec.ops import numpy_ops

PHI = (math.sqrt(5) + 1) / 2


def encoded(text, x):
  """(symbols, mean) of the quantizer of a codec text."""
  pipeline = codec_lib(text).rules[0].pipeline
  symbols, side = pipeline.stages[0].encode(numpy_ops, x, measure.draws_of(), pipeline.signals(x.size)[0])
  return symbols, side['mean'].view(np.float32)[0]


def formula(p):
  """Sattler et al. 2019, eq. 14: (b*, bits per position) at density p."""
  b = max(0, 1 + math.floor(math.log2(math.log(PHI - 1) / math.log(1 - p))))
  return b, b + 1 / (1 - (1 - p)**(2**b))


def test_the_worked_example_of_sbc():
  """[1, -2, 4, 2, 1, -1] with k = 2: c = [0, 0, 3, 3, 0, 0], gaps 2 and 0, in 5 bits at b = 1 (100 00)."""
  x = np.asarray([1, -2, 4, 2, 1, -1], np.float32)
  symbols, mean = encoded('sparse-binary:1/3 | rice', x)
  assert symbols.tolist() == [0, 0, 1, 1, 0, 0] and mean == 3
  decoded, _ = next(measure.decodes('sbc:p=1/3', x, 1))
  assert decoded.tolist() == [0, 0, 3, 3, 0, 0]
  assert (x - decoded).tolist() == [1, -2, 1, -1, 1, -1]
  # The two gaps: one unary bit more than g >> b, and b low bits, for each.
  positions = np.flatnonzero(symbols)
  skipped = np.diff(positions, prepend=-1) - 1
  assert skipped.tolist() == [2, 0] and sum((g >> 1) + 1 + 1 for g in skipped) == 5
  assert formula(2 / 6)[0] == 1
  # The encoder takes the parameter that makes the actual gaps shortest: 0 here, 001 1.
  payload = gaps.encode(numpy_ops, positions.astype(np.int32))
  assert payload.tolist() == [0, 1, 0b1100]


@pytest.mark.parametrize('x, symbols, mean', [
    ([-1, 2, -4, -2, -1, 1], [0, 0, 1, 1, 0, 0], -3),
    ([1, -1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], -1),  # Equal sums: the negative side.
    ([5, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], 5),  # Fewer than k: the mean is that of what is sent.
    ([3, 3, 3, 3, 3, 3], [1, 1, 0, 0, 0, 0], 3),  # Equal values: the lower positions.
    ([-3, -3, -3, -3, -3, -3], [1, 1, 0, 0, 0, 0], -3),
    ([4, 0, 0, -3, -3, 0], [0, 0, 0, 1, 1, 0], -3),  # Sums count, with what is missing as zero.
    ([0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], 0),
])
def test_sbc_sends_one_sign(x, symbols, mean):
  made, sent = encoded('sparse-binary:1/3 | rice', np.asarray(x, np.float32))
  assert made.tolist() == symbols and sent == mean


@pytest.mark.parametrize('x, symbols, mean', [
    ([1, -2, 4, 2, 1, -1], [0, -1, 1, 0, 0, 0], 3),  # Of the twos the lower position.
    ([3, -3, 3, 3, -3, 3], [1, -1, 0, 0, 0, 0], 3),
    ([0, 0, -7, 0, 0, 0], [0, 0, -1, 0, 0, 0], 7),
    ([0, 0, -0.0, 1e-40, 0, 0], [0, 0, 0, 0, 0, 0], 0),
    ([1, 1e-9, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], 1),  # Below 2^-24 of the largest: not worth a position.
])
def test_stc_sends_signs_and_their_mean(x, symbols, mean):
  made, sent = encoded('sparse-ternary:1/3 | rice', np.asarray(x, np.float32))
  assert made.tolist() == symbols and sent == mean


@pytest.mark.parametrize('text, p',
                         [('stc:p=1/400', 1 / 400), ('stc:p=0.0123', 0.0123), ('sbc:p=1/100', 0.01), ('stc:p=1', 1)])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, lambda n: np.ones(n, np.float32)])
def test_exactly_k_values_are_sent_with_their_mean(text, p, make):
  x = make(20_001)
  symbols, mean = encoded(str(codec_lib(text)), x)
  k = round(p * x.size)
  kept = np.flatnonzero(symbols)
  ranked = x * np.sign(mean) if text.startswith('sbc') else np.abs(x)
  assert kept.tolist() == sorted(np.argsort(-ranked, kind='stable')[:k])
  assert np.array_equal(symbols[kept], np.ones(k) if text.startswith('sbc') else np.sign(x[kept]))
  assert abs(mean) == pytest.approx(np.mean(np.abs(x[kept].astype(np.float64))), rel=1e-5)


def test_the_error_of_stc_is_what_the_mean_leaves():
  """||x - c||^2 = ||x||^2 - ||kept||_1^2 / k."""
  x = measure.gaussian(40_000)
  kept = np.sort(np.abs(x.astype(np.float64)))[-100:]
  expected = 1 - np.sum(kept)**2 / 100 / np.sum(x.astype(np.float64)**2)
  assert measure.nmse('stc:p=1/400', x) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('p, expected',
                         [('0.1', 4.756), ('0.04', 6.085), ('0.01', 8.108), ('1/400', 10.114), ('0.001', 11.495)])
@pytest.mark.parametrize('preset, sign_bits', [('sbc', 0), ('stc', 1)])
def test_bits_per_value_sent_are_those_of_the_formula(p, expected, preset, sign_bits):
  """Within 1 % of b* + 1 / (1 - (1 - p)^(2^b*)), and one more for STC's signs, from payloads of 1.2 million values."""
  size = 1 << 20
  x = measure.gaussian(size)
  codec = codec_lib(f'{preset}:p={p}')
  fraction = codec.rules[0].pipeline.stages[0].fraction
  k = round(fraction * size)
  assert formula(float(fraction))[1] == pytest.approx(expected, abs=6e-4)
  payload = codec.encode({'x': x}, seed=1, round=0, client=0)
  # The message's length, the mean, the number of positions, b, and the length of the unary part.
  head = 4 + 4 + 4 + 1 + 4
  assert 8 * (len(payload) - head) / k == pytest.approx(expected + sign_bits, rel=0.01)
  # The compression ratios of the table are 32 bits over that, and the headers cost no more than 2 % of it.
  assert 32 * size / (8 * len(payload)) == pytest.approx(32 / (float(fraction) * (expected + sign_bits)), rel=0.02)


@pytest.mark.parametrize('text', ['sbc:p=0', 'stc:p=1.5', 'stc:p=-1', 'sparse-ternary | rice'])
def test_fractions_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(text)
