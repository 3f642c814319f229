"""Low rank: orthonormal columns on the shorter side, the error d1 / r - 1, and what is sent."""

import fractions

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.stage import Real
from tff_compress.codec.transforms.lowrank import LowRank

KEYS = dict(seed=1, round=2, client=3)


def decoded(text, x, i=0):
  codec = codec_lib(text)
  keys = dict(seed=1, round=i, client=i)
  return codec.decode(codec.encode({'x': x}, **keys), {'x': x}, **keys)['x'].astype(np.float64)


def gaussian(*shape):
  return measure.gaussian(int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize('key', ['round', 'client'])
@pytest.mark.parametrize('shape, share, d1, r', [
    ((40, 300), '1/4', 40, 10), ((300, 40), '1/4', 40, 10), ((3, 3, 8, 20), '1/2', 20, 10), ((5, 4, 270), '0.1', 20, 2),
    ((290, 310), '1/16', 290, 18)])
def test_nmse_is_d1_over_r_minus_one(shape, share, d1, r, key):
  x = gaussian(*shape)
  errors = [np.sum((decoded(f'lowrank:{share},key={key} | float32', x, i) - x)**2) for i in range(30)]
  assert np.mean(errors) / np.sum(x.astype(np.float64)**2) == pytest.approx(d1 / r - 1, rel=0.05)


@pytest.mark.parametrize('shape', [(37, 300), (300, 37), (3, 3, 5, 30)])
def test_what_is_decoded_has_the_rank_that_was_sent(shape):
  y = decoded('lowrank:1/3 | float32', gaussian(*shape))
  values = np.linalg.svd(y.reshape(-1, shape[-1]), compute_uv=False)
  rank = round(min(shape[-1], np.prod(shape[:-1])) / 3)
  assert values[rank - 1] > 1 and np.all(values[rank:] < 1e-4)


@pytest.mark.parametrize('shape', [(3, 50), (1, 16, 16), (17, 300), (500, 70), (300, 280)])
def test_the_columns_are_orthonormal(shape):
  """V^T V = I, whatever blocks the short side has; so what lies in the subspace comes back d1 / r times as large."""
  stage = LowRank(fractions.Fraction(2, 5))
  signal = Real(int(np.prod(shape)), (shape,))
  project, lift = stage.maps(numpy_ops, measure.draws_of(), signal)
  b = measure.gaussian(stage.output(signal).size)
  np.testing.assert_allclose(project(lift(b)), b, atol=1e-5)
  np.testing.assert_allclose(np.sum(lift(b)**2, dtype=np.float64), np.sum(b**2, dtype=np.float64), rtol=1e-5)
  inside = lift(b).reshape(shape)
  scale, = stage.scales(signal)
  d1 = min(shape[-1], int(np.prod(shape[:-1])))
  assert scale == d1 / round(0.4 * d1)
  codec = codec_lib('lowrank:2/5 | float32')
  keys = dict(seed=1, round=0, client=0)
  sent = codec.encode({measure.NAME: inside / np.float32(scale)}, **keys)
  np.testing.assert_allclose(codec.decode(sent, {measure.NAME: inside}, **keys)[measure.NAME], inside, atol=3e-4)


def test_a_quarter_of_the_values_is_sent_whichever_side_is_shorter():
  """A basis on the long side of 1728 x 192 would send 48 x 192 = 9,216 values: 2.8 %, not 25 %."""
  for shape in ((3, 3, 192, 192), (192, 1728), (1728, 192), (3, 3, 64, 192)):
    x = np.zeros(shape, np.float32)
    assert len(codec_lib('lowrank:1/4 | float32').encode({'x': x}, **KEYS)) == x.nbytes // 4


@pytest.mark.parametrize('shape', [(), (1,), (500,), (500, 1), (1, 500), (0, 3), (2, 0, 4), (3, 3, 32, 1)])
def test_what_is_no_matrix_passes_as_it_is(shape):
  x = gaussian(*shape)
  np.testing.assert_array_equal(decoded('lowrank:1/4 | float32', x), x)
  assert len(codec_lib('lowrank:1/4 | float32').encode({'x': x}, **KEYS)) == x.nbytes


@pytest.mark.parametrize(
    'x', [np.ones((20, 30), np.float32), np.eye(20, 30, dtype=np.float32), gaussian(20, 1) * gaussian(1, 30)],
    ids=['constant', 'diagonal', 'rank one'])
def test_structured_matrices_are_unbiased(x):
  results = np.asarray([decoded('lowrank:1/4,key=client | float32', x, i).reshape(-1) for i in range(400)])
  single = np.mean(np.sum((results - x.reshape(-1))**2, axis=1))
  assert single == pytest.approx(3 * np.sum(x**2), rel=0.1)
  assert 400 * np.sum((np.mean(results, axis=0) - x.reshape(-1))**2) / single == pytest.approx(1, abs=0.3)


def test_joined_variables_have_a_basis_each():
  update = {'a': gaussian(20, 30), 'b': gaussian(7), 'c': gaussian(20, 30)}
  codec = codec_lib('concat | lowrank:1/4 | float32')
  back = codec.decode(codec.encode(update, **KEYS), update, **KEYS)
  np.testing.assert_array_equal(back['b'], update['b'])
  both = np.concatenate([back['a'], back['c']], axis=1)
  assert np.linalg.matrix_rank(back['a'], 1e-3) == np.linalg.matrix_rank(back['c'], 1e-3) == 5
  assert np.linalg.matrix_rank(both, 1e-3) > 5


@pytest.mark.parametrize('text', ['lowrank:0 | float32', 'lowrank:1 | float32', 'lowrank | float32',
                                  'lowrank:1/4,key=no | float32', 'hadamard | lowrank:1/4 | float32',
                                  'lowrank:1/4 | pack'])
def test_bad_texts_are_typed_errors(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(text)
