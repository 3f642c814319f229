"""The updates that golden frames hold, by rules that give the same bits in every language: README.md beside this states
them.

A description is what manifest.json holds of an update: a list of variables, each a dict of name, dtype, shape and a
rule.
"""

import zlib

import ml_dtypes
import numpy as np

from tff_compress.codec import network as network_lib
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops

DTYPES = {'bfloat16': np.dtype(ml_dtypes.bfloat16)}


def dtype_of(name):
  return DTYPES.get(name) or np.dtype(name)


def make(description):
  """dict of name to array for a description."""
  update = {}
  for variable in description:
    dtype, shape = dtype_of(variable['dtype']), tuple(variable['shape'])
    (rule, arguments), = variable['values'].items()
    values = RULES[rule](int(np.prod(shape, dtype=np.int64)), dtype, arguments)
    assert values.dtype == dtype, variable
    update[variable['name']] = values.reshape(shape)
  return update


def little_endian(array):
  """The bytes of an array, as SHA-256 takes them."""
  if array.dtype == ml_dtypes.bfloat16:
    array = array.view(np.uint16)
  return array.astype(array.dtype.newbyteorder('<')).tobytes()


def _words(seed, count):
  """uint32[count]: the first words of key (seed, 0)."""
  return numpy_ops.generate(lambda i, k0, k1: random.x5(numpy_ops, i, k0, k1), np.asarray([seed, 0], np.int32), 0,
                            count).view(np.uint32)


def _heavy(size, dtype, seed):
  words = [zlib.crc32(np.asarray([i, seed], '<u4').tobytes()) for i in range(size)]
  words = np.asarray(words, np.int64)
  tail = np.zeros(size, np.int64)
  for j in range(1, 5):
    tail += (words & ((1 << j) - 1)) == (1 << j) - 1
  return ((2 * (words >> 16) - (1 << 16)) * 2.0**-21 * 2.0**tail).astype(dtype)


def _normal(size, dtype, arguments):
  seed, exponent = arguments
  words = _words(seed, 5 * size).reshape(size, 5).astype(np.int64)
  halves = np.sum(words[:, :4] & 0xFFFF, axis=1) + np.sum(words[:, :4] >> 16, axis=1) - 262140
  # Exact in double precision, so it is rounded once.
  return (halves * (1 + (words[:, 4] & 0xFFFFFF) * 2.0**-24) * 2.0**exponent).astype(dtype)


def _wide(size, dtype, arguments):
  seed, first, count = arguments
  words = _words(seed, size)
  exponents = first + (words >> 23 & 255) % np.uint32(count)
  return (words & np.uint32(0x807FFFFF) | exponents << np.uint32(23)).astype(np.uint32).view(np.float32).astype(dtype)


def _ramp(size, dtype, arguments):
  del arguments
  numbers = (40503 * np.arange(size, dtype=np.uint32) & 0xFFFF).astype(np.float32)
  return ((numbers - np.float32(32768)) * np.float32(2.0**-16)).astype(dtype)


def _runs(size, dtype, arguments):
  bits = np.dtype(f'u{dtype.itemsize}')
  parts = [np.full(count, int(text, 16), bits) for count, text in arguments]
  values = np.concatenate(parts) if parts else np.zeros(0, bits)
  assert values.size == size, arguments
  return values.view(dtype)


RULES = {'heavy': _heavy, 'normal': _normal, 'wide': _wide, 'ramp': _ramp, 'runs': _runs}


# -- descriptions -----------------------------------------------------------------------------------------------------


def _variable(name, shape, rule, arguments, dtype='float32'):
  return {'name': name, 'dtype': dtype, 'shape': list(shape), 'values': {rule: arguments}}


def _bits(*values):
  """Runs of length one, or of (count, value), of float32 values."""
  pairs = [value if isinstance(value, tuple) else (1, value) for value in values]
  return [[count, f'{int(np.float32(value).view(np.uint32)):08x}'] for count, value in pairs]


def _listed(name, *values):
  runs = _bits(*values)
  return _variable(name, [sum(count for count, _ in runs)], 'runs', runs)


def heavy(size, convolution_of=None):
  """What `tests.contract.cases.Case.update` gives: about `size` values, or a kernel of convolutions."""
  kernel = [-(-size // 7), 7] if convolution_of is None else [3, 3, -(-convolution_of // 63), 7]
  return [_variable('dense/kernel', kernel, 'heavy', 0), _variable('dense/bias', [11], 'heavy', 1),
          _variable('scale', [], 'heavy', 2), _variable('nothing', [0, 3], 'runs', []),
          _variable('steps', [3], 'runs', [[1, '1'], [1, 'fffffffffffffffe'], [1, '3']], 'int64'),
          _variable('frozen', [1, 2], 'runs', [[1, '1'], [1, '0']], 'bool')]


def irregular():
  """Whatever a rule of the format may be wrong about."""
  floor, above, below = 2.0**-64, 2.0**-64 * (1 + 2.0**-23), 2.0**-64 * (1 - 2.0**-24)
  width = float(np.float32(0.9226284))
  return [
      _variable('normal', [43, 60], 'normal', [1, -17]),
      _variable('wide', [700], 'wide', [2, 40, 90]),
      _variable('conv/kernel', [3, 3, 4, 7], 'normal', [3, -20]),
      _variable('Conv/small', [2, 1, 3, 5], 'wide', [4, 110, 12]),
      _variable('point', [1, 1, 3, 6], 'normal', [5, -18]),
      _variable('tall', [61, 9], 'normal', [6, -17]),
      _variable('long', [5, 23, 3], 'wide', [7, 118, 10]),
      # Half-way between two whole numbers for 2^11, 2^14 and 2^23, between two float16 and two bfloat16.
      _listed('ties', 1.5, *(sign * (k + 0.5) * 2.0**-n
                             for n in (4, 11, 14, 23) for k in (0, 1, 2, 5) for sign in (1, -1)),
              1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 5 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8),
      _listed('ties/many', 1.0, (100, 2.5 * 2.0**-11), (99, -2.5 * 2.0**-11)),
      # The square of the first is 2^24 units, the others are one each: a sum in float32 loses them.
      _listed('squares', 2 - 2.0**-13, (200, 2.0**-11), (199, -2.0**-11)),
      # Sigma times a boundary of eden with four bits is one of them.
      _listed('boundary', *(m * 2.0**-11 for m in (2214, 2662, 2537, 672, 868, 978))),
      # Of this width, one and a half and two and a half are not what multiplying by its inverse gives.
      _listed('steps/of/width', 0, 3 * width, 0.5 * width, 1.5 * width, 2.5 * width),
      _listed('steps/of/3', 0, 3, 0.5, 1.5, 2.5),
      _listed('steps/of/15', 0, 15, *(k + 0.5 for k in range(12)), 7),
      _listed('scale/half-way', (4, 1 + 2.0**-8)),
      _listed('scale/half-way/odd', 1 + 3 * 2.0**-8, -1 - 3 * 2.0**-8),
      _listed('equal/magnitudes', *(0.75 * sign for sign in (1, -1, -1, 1, 1, -1)), 0.5, -0.5, 0.5, 0.25, -0.75, 0.75),
      _listed('zeros', (9, 0.0), (8, -0.0)),
      _listed('denormal', 1e-40, -1e-40, 0.0, -0.0, 1.4e-45, -1.1e-38),
      _listed('nearly/zero', 2.0**-126, -2.0**-126, 1.17e-38, -1.17e-38, 2.0**-80, -2.0**-81, 2.0**-80 * (1 - 2.0**-24),
              1e-40, -0.0, 2.0**-79),
      _listed('below/the/floor', below, -below, 2.0**-65, -2.0**-66, 1e-40, 0.0, -1e-40),
      _listed('at/the/floor', floor, -2.0**-65, 2.0**-65, 2.0**-70, -2.0**-88, -1e-40, 0.0),
      _listed('above/the/floor', -above, 1.5 * 2.0**-65, 2.0**-66, -2.0**-66, 2.0**-75, 1e-40),
      _listed('between', 2.0**-65, -1.25 * 2.0**-65, 1.75 * 2.0**-65),
      _listed('largest', 2.0**64, -2.0**64, 2.0**63, -1.0, 3e-39, 1.0, 2.0**40, -2.0**52),
      _listed('negative', -3.0, -2.75, -1.1, -0.3, -2.999),
      _listed('negative/alone', -1.37),
      _listed('alone', 1.0002),
      _listed('one/zero', (31, 1.0), 0.0),
      # The dither of value 973 is the largest there is.
      _listed('clamp/1', 0.0, (1023, 1.375)),
      _listed('mixed', 1.0, -1e-40, 1e-40, -0.0, 0.0, 2.0**-126, -2.0**-127, 0.3, -2.0**-24, -2.0**-25, 2.0**-14,
              2.0**-15),
      _listed('spike', 1000.0, *(0.001 * (k - 20) for k in range(40))),
      # Counts of symbols that are alike, for what coders do then.
      _listed('counts', (5, 0.0), (5, 1.0), (3, 2.0), (3, 3.0), (3, 4.0), (1, 5.0), (1, 6.0), (1, 7.0)),
      _listed('counts/two', (40, 0.0), (40, 15.0), (7, 3.0), (7, 4.0), (7, 9.0), (1, 12.0)),
      _listed('counts/one', (30, 0.0), (1, 1e-3)),
      _variable('scalar', [], 'normal', [8, -17]),
      _variable('empty', [0, 5], 'runs', []),
      _variable('Ü/名', [3, 7], 'normal', [9, -17]),
      _variable('whole/narrow', [4], 'runs', [[1, '80'], [1, 'ff'], [1, '0'], [1, '7f']], 'int8'),
      _variable('whole/wide', [3], 'runs', [[1, '8000000000000001'], [1, 'ffffffffffffffff'], [1, '2']], 'uint64'),
      _variable('flags', [2, 2], 'runs', [[1, '1'], [2, '0'], [1, '1']], 'bool'),
  ]


def ordinary():
  """Values of one magnitude, for what joins variables: the largest of `irregular` would leave nothing of the others."""
  kept = ('normal', 'conv/kernel', 'point', 'tall', 'scalar', 'Ü/名', 'empty', 'flags')
  return [variable for variable in irregular() if variable['name'] in kept]


def dtypes():
  """Float variables of every dtype: largest values, denormals, and those between two of the narrower one."""
  double = [0.1, -2.0**64, 1e-320, 1 + 2.0**-24, 1 + 3 * 2.0**-24, -1 / 3]
  return [
      _variable('float64', [6], 'runs', [[1, f'{int(np.float64(v).view(np.uint64)):016x}'] for v in double], 'float64'),
      _variable('float16', [8], 'runs', [[1, text] for text in '7bff fbff 0001 8001 03ff 3c01 bc01 3555'.split()],
                'float16'),
      _variable('bfloat16', [8], 'runs', [[1, text] for text in '3f80 3f81 bf81 5f80 0001 2000 1f80 c049'.split()],
                'bfloat16'),
      _variable('float32', [5], 'normal', [10, -17]),
      _variable('uint16', [2], 'runs', [[1, 'ffff'], [1, '1']], 'uint16'),
      _variable('int32', [2], 'runs', [[1, '80000000'], [1, '7']], 'int32'),
  ]


def many():
  """Several lanes of the entropy coders, whose last rows are not full."""
  return [_variable('many', [16387], 'normal', [11, -17]), _variable('few', [300], 'normal', [12, -17])]


def lanes():
  """So many lanes of rans that implementations may work on them side by side."""
  return [_variable('lanes', [64 * 4096 + 5], 'normal', [14, -17])]


def network():
  """A small `network.Autoencoder` for `ordinary`, with all that its file may say: weights that several positions share,
  biases, every activation, and a normalisation."""
  numbers = _normal(400, np.dtype(np.float32), [13, -17])

  def layer(first, inputs, outputs, positions=1, activation=network_lib.NONE):
    weights = numbers[first:first + inputs * outputs].reshape(inputs, outputs)
    return network_lib.Layer.of(weights, numbers[first:first + outputs] / 4, positions, activation)
  sizes = tuple(int(np.prod(variable['shape'], dtype=np.int64)) for variable in ordinary()
                if variable['dtype'] == 'float32')
  return network_lib.Autoencoder(
      12, (layer(0, 3, 2, 4, network_lib.RELU), layer(6, 8, 8, 1, network_lib.RESIDUAL), layer(70, 8, 5)),
      (layer(110, 5, 5, 1, network_lib.RELU), layer(135, 5, 12)), sizes, numbers[200:200 + len(sizes)] / 8,
      np.abs(numbers[300:300 + len(sizes)]) + np.float32(0.5))


def long():
  """More than 2^24 words of one stream: the positions of a mask over all values."""
  return [_variable('long', [(1 << 24) + (1 << 20) + 5], 'ramp', {})]
