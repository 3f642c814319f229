"""Levels around zero: the formulas of QSGD and TernGrad, on encoded vectors."""

import math

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec import sums
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.quantizers.symmetric import Symmetric
from tff_compress.codec.stage import Real

D = 20_000


def _variance(x, levels, norms):
  """sum of w^2 f (1 - f) / ||x||^2 (Alistarh et al. 2017, eq. 4)."""
  width = norms / levels
  f = np.modf(np.abs(x.astype(np.float64)) / width)[0]
  return np.sum(width**2 * f * (1 - f)) / np.sum(x.astype(np.float64)**2)


@pytest.mark.parametrize('levels', [1, 4, 141, 564])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_the_error_is_the_formula_of_qsgd(levels, make):
  x = make(D)
  expected = _variance(x, levels, np.linalg.norm(x.astype(np.float64)))
  assert measure.nmse(f'symmetric:levels={levels},per=tensor | elias', x, 20) == pytest.approx(expected, rel=0.05)
  assert expected <= min(D / levels**2, math.sqrt(D) / levels) <= Symmetric(levels=levels,
                                                                            per='tensor').nmse_bound(Real(D)) * 4


@pytest.mark.parametrize('levels, nmse', [(1, 105), (4, 27.6), (141, 0.167), (564, 0.0105)])
def test_the_error_on_normal_values_is_that_of_the_table(levels, nmse):
  x = measure.gaussian(D)
  assert measure.nmse(f'symmetric:levels={levels},per=tensor | elias', x, 40) == pytest.approx(nmse, rel=0.1)


@pytest.mark.parametrize('norm', ['l2', 'max'])
@pytest.mark.parametrize('block', [64, 512, 4096])
def test_each_block_has_its_own_norm(norm, block):
  x = measure.gaussian(D) * np.repeat(10.0**np.arange(-2, 3), D // 5).astype(np.float32)
  stage = Symmetric(levels=5, norm=norm, block=block)
  _, side = stage.encode(numpy_ops, x, measure.draws_of(), Real(D))
  sent = (side['norm'].astype(np.int64) << 16).astype(np.int32).view(np.float32).astype(np.float64)
  rows = [x[i:i + block].astype(np.float64) for i in range(0, D, block)]
  exact = np.asarray([np.linalg.norm(r) if norm == 'l2' else np.max(np.abs(r)) for r in rows])
  assert np.all(sent >= exact * (1 - 2e-4)) and np.all(sent <= exact * (1 + 2.0**-7 + 2e-4))
  expected = _variance(x, 5, np.repeat(sent, block)[:D])
  assert measure.nmse(f'{stage} | elias', x, 20) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('levels', [1, 4, 16])
def test_few_symbols_are_not_zero(levels):
  """E[non-zeros] <= s (s + sqrt d), with one block of d values."""
  block = 4096
  stage = Symmetric(levels=levels, block=block)
  symbols = [stage.encode(numpy_ops, measure.gaussian(block, i), measure.draws_of(client=i), Real(block))[0]
             for i in range(20)]
  assert np.mean([np.count_nonzero(s) for s in symbols]) <= levels * (levels + math.sqrt(block))
  # And the number is the sum of the probabilities |x| / w, where no value is above one level.
  if levels == 1:
    expected = np.mean([np.sum(np.abs(x)) / np.linalg.norm(x) for x in (measure.gaussian(block, i) for i in range(20))])
    assert np.mean([np.count_nonzero(s) for s in symbols]) == pytest.approx(expected, rel=0.1)


def test_zeros_are_cheap_behind_every_coder_for_sparse_symbols():
  """QSGD at s = 1 on 20,000 normal values: 0.084 bit per value in the paper's code."""
  x = measure.gaussian(D)
  assert measure.bits_per_value('symmetric:levels=1,per=tensor | rice', x, 4) < 0.084 * 1.05
  assert measure.bits_per_value('symmetric:levels=1,per=tensor | elias', x, 4) < 1.02
  rans, rice, pack = (measure.bits_per_value(f'symmetric | {c}', x) for c in ('rans', 'rice', 'pack'))
  assert rans < rice < pack


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_terngrad_has_its_variance_and_its_symbols(make):
  """NMSE = (s ||x||_1 - ||x||^2) / ||x||^2, s = max |x|."""
  x = make(D).astype(np.float64)
  expected = np.max(np.abs(x)) * np.sum(np.abs(x)) / np.sum(x**2) - 1
  assert measure.nmse('terngrad:clip=0', x.astype(np.float32), 20) == pytest.approx(expected, rel=0.05)
  symbols, side = Symmetric(levels=1, norm='max', per='tensor').encode(
      numpy_ops, x.astype(np.float32), measure.draws_of(), Real(D))
  assert set(np.unique(symbols)) == {-1, 0, 1} and np.all(symbols * x >= 0)
  assert side['norm'].view(np.float32) == np.float32(np.max(np.abs(x)))
  assert symbols[np.argmax(np.abs(x))] != 0


def test_terngrad_is_unbiased_and_clipping_trades_bias_for_error():
  """C.2: the error falls from 2.21 to 1.03 on normal values, 0.23 % of their energy is clipped away."""
  x = measure.gaussian(D)
  assert 0.85 < measure.bias_ratio('terngrad:clip=0', x, 60) < 1.15
  assert measure.nmse('terngrad', x, 10) == pytest.approx(1.03, rel=0.05)
  assert measure.nmse('sigma-clip | float32', x) == pytest.approx(0.0023, rel=0.1)


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, measure.spikes])
def test_whole_norms_are_exact(make):
  x = make(50_000)
  exact = np.linalg.norm(x.astype(np.float64))
  assert sums.norm(numpy_ops, x)[0] == pytest.approx(exact, rel=1e-4)
  assert sums.norm(numpy_ops, x)[0] >= np.max(np.abs(x))
  assert sums.root_mean_square(numpy_ops, x, x.size)[0] == pytest.approx(exact / math.sqrt(x.size), rel=1e-4)


@pytest.mark.parametrize('text',
                         ['symmetric:levels=0 | pack', 'symmetric:levels=5000 | elias', 'symmetric:block=8 | pack',
                          'symmetric:norm=l1 | pack', 'symmetric:levels=200 | rans', 'sigma-clip:0 | float32'])
def test_parameters_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(text)
