"""The rotation: exact integers inside, an inverse, no padding, and what two rotations do to a spike."""

import math

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.ops import NumpyOps
from tff_compress.codec.stage import Real
from tff_compress.codec.transforms import hadamard
from tff_compress.codec.transforms.hadamard import Hadamard

SIZES = [1, 2, 3, 4, 5, 15, 16, 17, 63, 65, 255, 257, 1000, 1023, 1024, 1025, 2047, 4096, 5000, 9216]


def butterflies(x):
  """Fast Walsh–Hadamard transform along the last axis, unnormalised, in float32: another order of the same sums."""
  x = np.array(x, np.float32)
  n = x.shape[-1]
  h = 1
  while h < n:
    pairs = x.reshape(*x.shape[:-1], n // (2 * h), 2, h)
    x = np.stack([pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]], axis=-2).reshape(x.shape)
    h *= 2
  return x


class ButterflyOps(NumpyOps):
  """NumPy with butterflies in place of products with a Hadamard matrix."""

  def __init__(self):
    self.used = 0

  def matmul(self, a, b):
    if b.ndim == 2 and b.shape[0] == b.shape[1] and np.array_equal(b, hadamard.sylvester(b.shape[0])):
      self.used += 1
      return butterflies(a)
    return super().matmul(a, b)


def _rotate(stage, x, client=0):
  draws = measure.draws_of(client=client)
  return stage.encode(numpy_ops, x, draws, Real(x.size))[0]


def _back(stage, y, client=0):
  return stage.decode(numpy_ops, y, {}, measure.draws_of(client=client), Real(y.size))


@pytest.mark.parametrize('rotations, block', [(1, 1024), (2, 1024), (2, 4096), (1, 16), (2, 4)])
@pytest.mark.parametrize('size', SIZES)
def test_the_inverse_is_exact_and_nothing_is_padded(size, rotations, block):
  stage = Hadamard(rotations=rotations, block=block)
  x = measure.gaussian(size)
  y = _rotate(stage, x)
  assert y.shape == x.shape
  # Only the rounding to integers inside is lost, below 1e-7 of the energy but for the largest block.
  assert np.sum((_back(stage, y) - x)**2) <= (1e-7 if block < 4096 else 1e-5) * np.sum(x**2)


@pytest.mark.parametrize('rotations, block', [(1, 1024), (2, 1024), (2, 4096), (2, 16)])
@pytest.mark.parametrize('size', [1, 5, 100, 1023, 2500])
def test_the_inverse_is_orthogonal(size, rotations, block):
  """Norms and inner products, to float32 rounding: the inverse has no rounding to integers in it."""
  stage = Hadamard(rotations=rotations, block=block)
  y, z = measure.gaussian(size, 1), measure.gaussian(size, 2)
  back, other = _back(stage, y).astype(np.float64), _back(stage, z).astype(np.float64)
  scale = float(np.linalg.norm(y) * np.linalg.norm(z))
  assert np.linalg.norm(back) == pytest.approx(np.linalg.norm(y), rel=1e-5)
  assert back @ other == pytest.approx(float(y.astype(np.float64) @ z), abs=1e-5 * scale)


@pytest.mark.parametrize('rotations', [1, 2])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, measure.spikes])
def test_norms_and_inner_products_are_preserved(rotations, make):
  stage = Hadamard(rotations=rotations)
  x, other = make(5000), measure.gaussian(5000, 9)
  y, rotated = _rotate(stage, x).astype(np.float64), _rotate(stage, other).astype(np.float64)
  assert np.sum(y**2) == pytest.approx(np.sum(x.astype(np.float64)**2), rel=2e-4)
  scale = float(np.linalg.norm(x) * np.linalg.norm(other))
  assert y @ rotated == pytest.approx(x.astype(np.float64) @ other, abs=1e-3 * scale)


@pytest.mark.parametrize('order', [2, 4, 8, 16, 32, 64])
def test_the_transform_is_the_hadamard_transform_of_order_squared(order):
  """Of integers up to 2^24 / order^2 it is exact, equal to butterflies, and its own inverse but for order^2."""
  block = order * order
  limit = min(2**24 // block, 2**20)
  rng = np.random.default_rng(order)
  x = rng.integers(-limit, limit + 1, (3, block)).astype(np.float32)
  x[0] = limit  # The largest sum: order^2 times the limit.
  y = hadamard.transform(numpy_ops, x)
  # (H X)' = H_order X' H_order on the square, read row by row: the Sylvester matrix of order^2, transposed within.
  matrix = hadamard.sylvester(block).astype(np.int64)
  expected = (x.astype(np.int64) @ matrix).reshape(3, order, order).transpose(0, 2, 1).reshape(3, block)
  np.testing.assert_array_equal(y, expected)
  butterfly = hadamard.transform(ButterflyOps(), x)
  np.testing.assert_array_equal(y, butterfly)
  if limit * block * block <= 2**24:
    np.testing.assert_array_equal(hadamard.transform(numpy_ops, y), block * x)


@pytest.mark.parametrize('block', [256, 1024, 4096])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, measure.spikes])
def test_the_order_of_the_sums_does_not_change_a_bit(block, make):
  stage = Hadamard(rotations=2, block=block)
  x = make(9000)
  ops = ButterflyOps()
  other, _ = stage.encode(ops, x, measure.draws_of(xp=ops), Real(x.size))
  assert ops.used
  np.testing.assert_array_equal(_rotate(stage, x).view(np.int32), other.view(np.int32))


def test_applied_twice_it_multiplies_by_the_block():
  x = np.random.default_rng(0).integers(-4, 5, (2, 1024)).astype(np.float32)
  twice = hadamard.transform(numpy_ops, hadamard.transform(numpy_ops, x))
  np.testing.assert_array_equal(twice, 1024 * x)


@pytest.mark.parametrize('size', [82944, 165888, 331776, 36864])
def test_kernels_of_all_cnn_c_are_whole_blocks(size):
  """A.3: these are multiples of 1024. A transform padded to a power of two would send 1.58 times the values."""
  assert len(Hadamard()._plan(size)) == 1
  spec = codec_lib.Spec.of({'k': np.zeros(size, np.float32)})
  assert codec_lib('hadamard | uniform:bits=2,range=tensor | pack').plan(spec).payload_size == size / 4 + 8


def test_two_rotations_spread_a_spike_over_all_values():
  size = 1 << 16
  x = np.zeros(size, np.float32)
  x[1234] = 1
  once = _rotate(Hadamard(rotations=1), x)
  assert np.count_nonzero(once) == 1024 and np.allclose(np.abs(once[once != 0]), 1 / 32, rtol=1e-3)
  twice = _rotate(Hadamard(rotations=2), x)
  assert np.mean(np.abs(twice) > 1e-4) > 0.5
  assert np.max(np.abs(twice)) < 6 / math.sqrt(size)
  # Near a normal distribution: the fourth moment is 3 - 2 / 16 for sums of 16 signs.
  assert np.mean(twice.astype(np.float64)**4) * size**2 == pytest.approx(3, rel=0.15)


def test_rotated_values_are_normally_distributed():
  y = _rotate(Hadamard(rotations=2, key='client'), measure.lognormal(1 << 15)).astype(np.float64)
  y /= np.sqrt(np.mean(y**2))
  assert np.mean(y**4) == pytest.approx(3, rel=0.1)
  assert np.mean(np.abs(y)) == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)


@pytest.mark.parametrize('block, bound', [(256, 6e-8), (1024, 3.8e-6), (4096, 2.4e-4)])
def test_rounding_inside_is_unbiased_and_small(block, bound):
  x = np.full(block, 0.5 / 2**(23 - int(math.log2(block))), np.float32)
  x[0] = 1  # The worst case: all other values are half a unit.
  stage = Hadamard(block=block)
  errors = [_back(stage, _rotate(stage, x, client), client).astype(np.float64) - x for client in range(100)]
  single = np.mean([np.sum(e**2) for e in errors])
  assert 0.9 * bound < single <= stage.nmse_bound(Real(block)) * np.sum(x**2) <= 1.1 * bound
  assert 100 * np.sum(np.mean(errors, axis=0)**2) < 1.6 * single
  assert measure.nmse(f'hadamard:block={block} | float32', measure.gaussian(9000)) < 3e-6


def test_a_block_below_two_to_minus_64_becomes_zero():
  x = np.concatenate([np.full(1024, 2.0**-65), np.full(1024, 2.0**-63)]).astype(np.float32)
  y = _rotate(Hadamard(), x)
  assert not np.any(y[:1024]) and np.any(y[1024:])


def test_clients_share_the_signs_of_a_round_unless_they_are_their_own():
  x = measure.gaussian(2048)
  shared = [_rotate(Hadamard(), x, client) for client in (1, 2)]
  own = [_rotate(Hadamard(key='client'), x, client) for client in (1, 2)]
  np.testing.assert_allclose(*shared, atol=1e-3)
  assert not np.array_equal(*shared)  # The rounding inside is each client's own.
  assert np.linalg.norm(own[0] - own[1]) > np.linalg.norm(x)
  assert Hadamard().linear and not Hadamard(key='client').linear


@pytest.mark.parametrize('text', ['rotations=0', 'rotations=3', 'block=2048', 'block=1', 'key=server'])
def test_parameters_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(f'hadamard:{text} | float32')
