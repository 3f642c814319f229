"""Sub-sampling: what is kept, with what probability, and the error d / k - 1."""

import fractions

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Real
from tff_compress.codec.transforms.subsample import Subsample


@pytest.mark.parametrize('key', ['round', 'client'])
@pytest.mark.parametrize('fraction', ['1/16', '1/4', '0.3', '1/50', '0.0625'])
def test_nmse_is_d_over_k_minus_one(fraction, key):
  d = 20000
  k = round(float(fractions.Fraction(fraction)) * d)
  measured = measure.nmse(f'subsample:{fraction},key={key} | float32', measure.gaussian(d), draws=40)
  assert measured == pytest.approx(d / k - 1, rel=0.05)


@pytest.mark.parametrize('fraction, d, k', [('1/16', 1000, 63), ('1/16', 1024, 64), ('1/16', 3, 1), ('0.3', 1000, 300),
                                            ('0.3', 1, 1), ('1', 7, 7), ('1/50', 1001, 21), ('2/3', 10, 7)])
def test_kept_values_are_multiplied_and_the_others_are_zero(fraction, d, k):
  stage = Subsample(fractions.Fraction(fraction))
  x = np.arange(1, d + 1, dtype=np.float32)
  draws = measure.draws_of()
  kept, side = stage.encode(numpy_ops, x, draws, Real(d))
  assert kept.shape == (k,) == (stage.output(Real(d)).size,)
  decoded = stage.decode(numpy_ops, kept, side, draws, Real(d))
  stride = 1 / fractions.Fraction(fraction)
  factor = float(stride) if stride.denominator == 1 else d / k
  nonzero = np.flatnonzero(decoded)
  np.testing.assert_allclose(decoded[nonzero], x[nonzero] * factor, rtol=1e-6)
  # A stride at the end that is not whole may keep a place behind the end, sent as zero.
  assert len(nonzero) in ((k,) if d % stride == 0 or stride.denominator != 1 else (k - 1, k))


def test_one_coordinate_of_every_stride_is_kept():
  for stride in (2, 7, 16, 50):
    stage = Subsample(fractions.Fraction(1, stride))
    index = stage._index(numpy_ops, measure.draws_of(), 40 * stride)
    assert np.array_equal(index // stride, np.arange(40))


def test_offsets_use_all_bits_of_a_word():
  """An offset in stride s is floor(word s / 2^32): with 16 bits, 1/50000 would favour some coordinates twofold."""
  for stride in (3, 16, 50, 50000, 65536):
    draws = measure.draws_of(round=stride)
    index = Subsample(fractions.Fraction(1, stride))._index(numpy_ops, draws, 300 * stride)
    words = draws.of('round', Purpose.MASK).words(300).view(np.uint32)
    assert [int(i) - j * stride for j, i in enumerate(index)] == [int(word) * stride >> 32 for word in words]


@pytest.mark.parametrize('fraction', ['1/16', '1/10', '0.3'])
def test_every_coordinate_is_kept_equally_often(fraction):
  d, rounds = 200, 3000
  stage = Subsample(fractions.Fraction(fraction))
  times = np.zeros(d)
  for i in range(rounds):
    index = stage._index(numpy_ops, measure.draws_of(round=i), d)
    times[index[index < d]] += 1
  p = float(fractions.Fraction(fraction))
  assert np.max(np.abs(times - rounds * p)) < 5 * np.sqrt(rounds * p * (1 - p))


def test_a_uniform_subset_has_distinct_coordinates():
  index = Subsample(fractions.Fraction('0.3'))._index(numpy_ops, measure.draws_of(), 1000)
  assert len(set(index)) == 300 and np.all(np.diff(index) > 0)


def test_clients_share_the_mask_of_a_round_unless_it_is_their_own():
  def mask(key, round, client):
    stage = Subsample(fractions.Fraction(1, 8), key)
    return tuple(stage._index(numpy_ops, measure.draws_of(round=round, client=client), 800))
  assert mask('round', 1, 1) == mask('round', 1, 2) != mask('round', 2, 1)
  assert mask('client', 1, 1) != mask('client', 1, 2) != mask('client', 2, 2)


def test_a_shared_mask_leaves_a_common_error():
  """Ten clients with the same update: private masks cover it together, a shared one leaves d / k - 1."""
  x = measure.gaussian(8000)
  for key, expected in (('round', 7.0), ('client', 0.7)):
    results = measure.decodes(f'subsample:1/8,key={key} | float32', x, 10, same_round=True)
    mean = np.mean([decoded for decoded, _ in results], axis=0)
    assert np.sum((mean - x)**2) / np.sum(x**2) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize('fraction', ['0', '-1/2', '1.5', '2'])
def test_fractions_outside_zero_to_one_are_refused(fraction):
  with pytest.raises(codec_lib.CodecError, match='above 0 and at most 1'):
    codec_lib(f'subsample:{fraction} | float32')
