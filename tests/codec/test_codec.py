"""Codecs over whole models: rules, joined variables, dtypes, the layout of a payload, and errors for bad arguments."""

import dataclasses
import struct
import tracemalloc
import types
import warnings

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec import counts
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import presets
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops

KEYS = dict(seed=1, round=2, client=3)
MODEL = {
    'conv/kernel': measure.gaussian(30 * 50).reshape(30, 50),
    'conv/bias': measure.gaussian(50, 1),
    'dense/kernel': measure.gaussian(60 * 10, 2).reshape(60, 10),
    'dense/bias': measure.gaussian(10, 3),
    'steps': np.asarray(7, np.int64),
}


def _segments(text, update=None):
  plan = codec_lib(text).plan(codec_lib.Spec.of(update or MODEL))
  return [(s.name, s.tensors, s.size, None if s.pipeline is None else str(s.pipeline)) for s in plan.segments]


def test_the_first_rule_that_matches_gives_the_pipeline():
  assert _segments('*/bias => float16; size<1000 & dense* => float32; * => uniform | pack') == [
      ('conv/kernel', (0,), 1500, 'uniform | pack'),
      ('conv/bias', (1,), 50, 'float16'),
      ('dense/kernel', (2,), 600, 'float32'),
      ('dense/bias', (3,), 10, 'float16'),
      ('steps', (4,), 1, None),
  ]


@pytest.mark.parametrize('comparison, sizes', [('<', {10}), ('<=', {10, 50}), ('>', {600, 1500}),
                                               ('>=', {50, 600, 1500})])
def test_comparisons_of_sizes(comparison, sizes):
  segments = _segments(f'size{comparison}50 => float16; * => float32')
  assert {size for _, _, size, pipeline in segments if pipeline == 'float16'} == sizes


def test_concat_joins_the_variables_of_its_rule():
  assert _segments('*/bias => concat | float16; * => concat | hadamard | float32') == [
      ('*', (0, 2), 2100, 'concat | hadamard | float32'),
      ('*/bias', (1, 3), 60, 'concat | float16'),
      ('steps', (4,), 1, None),
  ]
  joined = codec_lib('concat | float32').encode(MODEL, **KEYS)
  names = ('conv/kernel', 'conv/bias', 'dense/kernel', 'dense/bias', 'steps')
  assert joined == b''.join(MODEL[name].tobytes() for name in names)


def test_two_rules_may_stand_for_the_same_pipeline_apart():
  assert len(_segments('conv* => concat | float32; * => concat | float32')) == 3


def test_a_variable_without_a_rule_is_named():
  with pytest.raises(codec_lib.CodecError, match='no rule of the codec matches variable \'conv/kernel\' with 1500'):
    codec_lib('*/bias => float32').encode(MODEL, **KEYS)


@pytest.mark.parametrize('text, sentence', [
    ('*/bais => float16; * => float32', r"'\*/bais' fits no variable, as there are only 'conv/kernel', .* and 2 more"),
    ('conv/*x & size>1 => float16; * => float32', r"'conv/\*x & size>1' fits no variable"),
    ('* => float32; */bias => float16', r"'\*/bias' comes too late for 'conv/bias', 'dense/bias'"),
    ('size<100 => float32; conv/bias => float16; * => float32', r"'conv/bias' comes too late for 'conv/bias'"),
])
def test_a_rule_that_names_variables_and_has_none_is_told_once_with_the_line_that_uses_it(text, sentence):
  codec, spec = codec_lib(text), codec_lib.Spec.of(MODEL)
  with pytest.warns(codec_lib.UnmatchedRuleWarning, match=sentence) as caught:
    codec.encode(MODEL, **KEYS)
  assert [warning.filename for warning in caught] == [__file__]
  assert str(caught[0].message).endswith('.')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    codec.encode(MODEL, **KEYS)
    codec.plan(spec)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('text', [
    'size<2 => float32; size>=2 => float16; * => float32',  # Thresholds and remainders are written for any model.
    'dense/* & size>100000 => float16; * => float32',
    '*/bias => float16; */kernel => float32',
    'steps => float16; * => float32',  # Sent as it is.
    *[f'{name}:{example}' if example else name for name, kind in presets.registry().items()
      for example in kind.examples],
])
def test_rules_that_may_have_no_variable_are_not_told(text):
  codec_lib(text).plan(codec_lib.Spec.of(MODEL))
  codec_lib(text).plan(codec_lib.Spec.of({}))


def test_names_are_compared_with_case_and_whole():
  for pattern in ('Conv*', 'onv*'):
    with pytest.warns(codec_lib.UnmatchedRuleWarning, match='fits no variable'):
      assert _segments(f'{pattern} => float16; * => float32')[0][3] == 'float32'
  assert _segments('con?/[jk]ernel => float16; * => float32')[0][3] == 'float16'


def test_the_payload_is_the_variable_lengths_then_the_segments():
  text = '*/bias => float32; * => topk:1/10 | uniform:bits=4 | pack'
  payload = codec_lib(text).encode(MODEL, **KEYS)
  lengths, rest = counts.decode(numpy_ops, np.frombuffer(payload, np.uint8), 2)
  first, second = lengths.tolist()
  assert rest.size == first + 50 * 4 + second + 10 * 4 + 8
  assert rest[first:first + 200].tobytes() == MODEL['conv/bias'].tobytes()
  assert payload[-8:] == struct.pack('<q', 7)


def test_the_payload_size_is_known_where_every_segment_is_static():
  spec = codec_lib.Spec.of(MODEL)
  assert codec_lib('uniform:bits=2 | pack').plan(spec).payload_size == (
      (375 + 2 * 4) + (13 + 4) + (150 + 4) + (3 + 4) + 8)
  assert codec_lib('uniform:bits=2 | rans').plan(spec).payload_size is None
  assert codec_lib('topk:1/2 | float32').plan(spec).payload_size is None


@pytest.mark.parametrize('dtype', ['float16', 'float64', 'bfloat16', 'float32'])
def test_float_dtypes_travel_as_float32_and_come_back_in_their_own(dtype):
  if dtype == 'bfloat16':
    pytest.importorskip('ml_dtypes', reason='NumPy has no bfloat16 of its own')
  x = measure.gaussian(300).astype(dtype)
  spec = codec_lib.Spec.of({'x': x})
  assert spec.tensors[0].dtype == dtype and spec.uncompressed_bytes == 300 * x.dtype.itemsize
  decoded = codec_lib('float32').decode(codec_lib('float32').encode({'x': x}, **KEYS), spec, **KEYS)['x']
  assert decoded.dtype == x.dtype
  np.testing.assert_array_equal(decoded.astype(np.float32), x.astype(np.float32))


def test_float16_variables_never_become_infinite():
  x = np.asarray([65504, -65504] * 50, np.float16)
  codec = codec_lib('uniform | pack')
  decoded = codec.decode(codec.encode({'x': x}, **KEYS), {'x': x}, **KEYS)['x']
  assert np.max(np.abs(decoded)) == 65504


@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64', 'bool'])
def test_whole_numbers_and_booleans_are_sent_as_they_are(dtype):
  x = np.asarray([[0, 1, 1], [1, 0, 0]], dtype)
  if dtype != 'bool':
    x[0, 0], x[1, 2] = np.iinfo(dtype).min, np.iinfo(dtype).max
  for text in ('hadamard | uniform:bits=1 | pack', 'drive'):
    payload = codec_lib(text).encode({'x': x}, **KEYS)
    assert payload == x.astype(x.dtype.newbyteorder('<')).tobytes()
    assert np.array_equal(codec_lib(text).decode(payload, {'x': x}, **KEYS)['x'], x)
  big_endian = x.astype(x.dtype.newbyteorder('>'))
  assert codec_lib('float32').encode({'x': big_endian}, **KEYS) == payload


def test_a_byte_that_is_no_boolean_is_refused():
  with pytest.raises(codec_lib.PayloadError, match='neither 0 nor 1'):
    codec_lib('float32').decode(b'\2', {'x': np.zeros(1, bool)}, **KEYS)


def test_results_belong_to_the_caller():
  codec = codec_lib('float32')
  payload = bytearray(codec.encode(MODEL, **KEYS))
  decoded = codec.decode(payload, MODEL, **KEYS)
  payload[:] = bytes(len(payload))
  for name, value in decoded.items():
    assert np.array_equal(value, MODEL[name])
    value[...] = 0


def test_payloads_come_as_any_bytes():
  codec = codec_lib('hadamard | uniform | pack')
  payload = codec.encode(MODEL, **KEYS)
  expected = codec.decode(payload, MODEL, **KEYS)
  spread = bytes(b for byte in payload for b in (byte, 0))
  for given in (bytearray(payload), memoryview(payload), memoryview(spread)[::2]):
    decoded = codec.decode(given, MODEL, **KEYS)
    assert all(np.array_equal(decoded[n], expected[n]) for n in MODEL)
  for wrong in ('text', None, 5, np.frombuffer(payload, np.uint8)):
    with pytest.raises(codec_lib.PayloadError, match='a payload is bytes'):
      codec.decode(wrong, MODEL, **KEYS)


def test_an_empty_update_is_an_empty_payload():
  for text in ('float32', 'drive', 'rotated-ternary'):
    assert codec_lib(text).encode({}, **KEYS) == b''
    assert codec_lib(text).decode(b'', {}, **KEYS) == {}
    with pytest.raises(codec_lib.PayloadError):
      codec_lib(text).decode(b'\0', {}, **KEYS)


@pytest.mark.parametrize('name, value', [('seed', -1), ('seed', 2**64), ('seed', 1.0), ('seed', '1'), ('seed', None),
                                         ('seed', True), ('round', -1), ('round', 2**32), ('client', 2**32),
                                         ('client', [1])])
def test_keys_out_of_range_are_refused(name, value):
  codec = codec_lib('float32')
  for call in (lambda keys: codec.encode(MODEL, **keys), lambda keys: codec.decode(b'', {}, **keys)):
    with pytest.raises(codec_lib.SpecError, match=f'{name} must be a whole number'):
      call({**KEYS, name: value})


def test_numpy_integers_are_keys():
  payload = codec_lib('uniform | pack').encode(MODEL, seed=np.uint64(1), round=np.int32(2), client=np.uint8(3))
  assert payload == codec_lib('uniform | pack').encode(MODEL, **KEYS)


@pytest.mark.parametrize('update', [None, [1.0], np.zeros(3), 'text', {1: np.zeros(3)}, {'x': 'text'}, {'x': None},
                                    {'x': [[1.0], [1.0, 2.0]]}, {'x': np.zeros(3, complex)}, {'x': np.asarray(['a'])},
                                    {'\ud800': np.zeros(3)},
                                    {'x' * 65536: np.zeros(1)}, {'x': {'y': 1}}])
def test_updates_that_are_not_arrays_by_name_are_refused(update):
  with pytest.raises(codec_lib.SpecError) as raised:
    codec_lib('float32').encode(update, **KEYS)
  assert str(raised.value).endswith('.')


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 2.0**64 * 1.0001, 1e300])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
@pytest.mark.filterwarnings('error')
def test_values_that_are_not_finite_or_too_large_are_refused(value, dtype):
  with np.errstate(over='ignore'):
    x = np.asarray([1.0, value], dtype)
  with pytest.raises(codec_lib.UpdateError, match='\'w\' holds a NaN, an infinity or a magnitude above 2\\^64'):
    codec_lib('float32').encode({'w': x}, **KEYS)


@pytest.mark.parametrize('arguments', [
    ('x', (-1,)), ('x', (None,)), ('x', (2.0,)), ('x', (True,)), ('x', [3]), ('x', 3), ('x', (1 << 16, 1 << 15)),
    ('x', (3,), 'complex64'), ('x', (10**5000,)), ('x', (0, 2**31)), ('x', (0, 2**31 - 1, 2**31 - 1, 2**31 - 1)),
    ('x', (1,) * 33),
])
def test_specs_of_unknown_or_impossible_shape_or_dtype_are_refused(arguments):
  with pytest.raises(codec_lib.SpecError):
    codec_lib.TensorSpec(*arguments)


@pytest.mark.parametrize('shape', [(0, 2**31 - 1), (2**16, 0, 2**14), (1,) * 32, (0,) * 32, (2,) * 30 + (0,)])
def test_every_shape_of_a_spec_is_one_of_numpys(shape):
  assert codec_lib.TensorSpec('x', shape).size == np.broadcast_to(np.int8(0), shape).size


@pytest.mark.parametrize('name', ['', 'a\tfloat32\t1', 'a\nb', '\0', 'a\x1b[2J', 'a\x7f', 'a\x85b', 'a\u2028b',
                                  'a\u2029b', '\ud800', 'a' * 65536, 'ü' * 32768, 7, None, b'x'])
def test_names_without_an_unambiguous_text_are_refused(name):
  with pytest.raises(codec_lib.SpecError) as raised:
    codec_lib.TensorSpec(name, (3,))
  assert len(str(raised.value)) < 400 and str(raised.value).isprintable()


def test_names_of_any_other_characters_are_taken():
  for name in ('dense/kernel', 'ü', '重み', 'a b', ' ', '*', '\N{PILE OF POO}', 'x' * 65535):
    update = {name: np.asarray([1, 2], np.float32)}
    assert np.array_equal(
        codec_lib('float32').decode(codec_lib('float32').encode(update, **KEYS), update, **KEYS)[name], update[name])


def test_no_name_makes_one_spec_look_like_another():
  """The text of fingerprints has a line per variable and a tab between its parts: none of them can hold either."""
  one = codec_lib.Spec((codec_lib.TensorSpec('a', (1,)), codec_lib.TensorSpec('b', (2,))))
  assert codec_lib('float32').fingerprint(one).hex() == '5c7520a1'
  with pytest.raises(codec_lib.SpecError, match='control character'):
    codec_lib.TensorSpec('a\tfloat32\t1\nb', (2,))


def test_a_variable_cannot_share_the_name_and_so_the_keys_of_a_joined_segment():
  codec = codec_lib('[*] => sign | pack; * => concat | uniform | pack')
  for names in (('*', 'a'), ('a', '*')):
    with pytest.raises(codec_lib.SpecError, match="variable '\\*' is named as"):
      codec.plan(codec_lib.Spec(tuple(codec_lib.TensorSpec(name, (2,)) for name in names)))
  joined, = codec_lib('* => concat | uniform | pack').plan(codec_lib.Spec(
      (codec_lib.TensorSpec('*', (2,)), codec_lib.TensorSpec('a', (2,))))).segments
  assert (joined.name, joined.tensors) == ('*', (0, 1))


def test_no_parameter_of_a_stage_takes_memory_that_the_values_do_not():
  update, keys = {'x': np.linspace(-1, 1, 10, dtype=np.float32)}, dict(seed=1, round=1, client=1)
  rotated = 'hadamard:rotations=2,block=4096,key=client | '
  for text in (rotated + 'uniform:block=1048576 | pack', 'countsketch:1,rows=9 | float32',
               'subsample:1/65536 | float32', 'lowrank:9/10 | float32', 'cluster:centroids=32,iterations=50 | pack',
               'bound:0.01,limit=32767 | elias', 'symmetric:levels=4095,block=4096 | rice',
               rotated + 'eden:bits=4 | rans:lanes=4096', rotated + 'ternary | huffman',
               'topk:1/1000000000 | float32', 'autoencoder:8,length=16777216,weights=cosine | float32',
               'autoencoder:33554432,length=67108864,weights=cosine | float32'):
    codec = codec_lib(text)
    tracemalloc.start()
    try:
      codec.decode(codec.encode(update, **keys), update, **keys)
    except codec_lib.CodecError as error:
      assert 'too many for a segment of 10 values' in str(error)
    finally:
      peak = tracemalloc.get_traced_memory()[1]
      tracemalloc.stop()
    assert peak < 3e6, text


def test_names_of_a_spec_differ():
  with pytest.raises(codec_lib.SpecError, match='2 variables are named \'x\''):
    codec_lib.Spec((codec_lib.TensorSpec('x', ()), codec_lib.TensorSpec('x', (3,))))


def test_a_spec_says_what_does_not_fit():
  spec = codec_lib.Spec.of(MODEL)
  spec.check(MODEL)
  for update, message in (({**MODEL, 'more': np.zeros(1)}, 'unexpected more'), ({'steps': 1}, 'missing conv/bias'),
                          ({**MODEL, 'steps': np.zeros(2)}, 'has shape \\(2,\\) but the spec says \\(\\)'),
                          ([], 'not list')):
    with pytest.raises(codec_lib.SpecError, match=message):
      spec.check(update)
  assert (spec.parameters, spec.uncompressed_bytes) == (2161, 2160 * 4 + 8)


@pytest.mark.parametrize('shapes', [[(3,)], [()], [(2, 3), (), (0, 4), (5,)]])
def test_a_vector_splits_into_variables_and_joins_again(shapes):
  spec = codec_lib.Spec.of({f'v{i}': np.zeros(shape) for i, shape in enumerate(shapes)})
  vector = np.arange(spec.parameters, dtype=np.float32)
  arrays = spec.split(numpy_ops, vector)
  assert [array.shape for array in arrays] == shapes
  assert [x for array in arrays for x in array.ravel()] == vector.tolist()
  assert spec.join(numpy_ops, arrays).tolist() == vector.tolist()
  for wrong in (np.arange(spec.parameters + 1), vector[:-1]):
    with pytest.raises(codec_lib.SpecError, match='values'):
      spec.split(numpy_ops, wrong)


def test_specs_are_made_of_models_and_tell_repeated_names_apart():
  @dataclasses.dataclass
  class Variable:
    name: str
    shape: tuple
    dtype: str = 'float32'

  class Model:
    trainable_variables = [Variable('dense/kernel:0', (3, 2)), Variable('dense/kernel:0', (2, 2)),
                           Variable('bias:0', (2,), 'float16')]

  assert [(t.name, t.shape, t.dtype) for t in codec_lib.Spec.of(Model()).tensors] == [
      ('dense/kernel', (3, 2), 'float32'), ('dense/kernel_1', (2, 2), 'float32'), ('bias', (2,), 'float16')]


class Functional:
  """Stands in for a model of Keras 3, where a variable's name is without its layer and its path has all around it."""

  def __init__(self, name, paths=(), layers=()):
    self.name, self.layers = name, layers
    self.trainable_variables = [
        types.SimpleNamespace(path=path, name=path.rpartition('/')[2], shape=(2,), dtype='float32') for path in paths]


class Sequential(Functional):
  pass


def test_variables_of_keras_3_are_named_as_in_keras_2():
  def names(model):
    return [tensor.name for tensor in codec_lib.Spec.of(model).tensors]
  paths = [f'sequential/{name}' for name in ('dense/kernel', 'dense/bias', 'dense_1/kernel')]
  assert names(Sequential('sequential', paths)) == ['dense/kernel', 'dense/bias', 'dense_1/kernel']
  layers = [Sequential('inner', layers=[Sequential('deep')]), types.SimpleNamespace(name='out')]
  paths = ['inner/deep/x/kernel', 'out/kernel', 'x/kernel', 'out/cell/kernel', 'alone']
  assert names(Functional('functional', paths, layers)) == ['x/kernel', 'out/kernel', 'x/kernel_1', 'out/cell/kernel',
                                                            'alone']


def test_fingerprints_tell_codecs_and_specs_apart():
  spec = codec_lib.Spec.of(MODEL)
  texts = ('float32', 'float16', 'uniform | pack', 'uniform:bits=7 | pack')
  prints = {codec_lib(text).fingerprint(spec) for text in texts}
  for change in ({'name': 'y'}, {'shape': (50, 30)}, {'dtype': 'float64'}):
    other = codec_lib.Spec((dataclasses.replace(spec.tensors[0], **change),) + spec.tensors[1:])
    prints.add(codec_lib('float32').fingerprint(other))
  assert len(prints) == 7 and all(len(p) == 4 for p in prints)
  assert codec_lib('uniform:bits=8|pack').fingerprint(spec) == codec_lib('uniform | pack').fingerprint(spec)


def test_streams_are_drawn_with_the_documented_keys():
  """Purpose, scope and tensor name of each draw, and later streams of the same stage class 2^16 chunks further on."""
  asked = set()

  class Asked:
    def key(self, scope, name, purpose, chunk):
      asked.add((scope, name, random.Purpose(purpose).name, chunk))
      return random.derive_key(1, 2, 3, name, purpose, chunk)

  text = ('a* => hadamard | subsample:1/4,key=client | hadamard:key=client | uniform | pack; '
          '* => concat | subsample:1/2 | float32')
  update = {n: measure.gaussian(64) for n in ('a1', 'b', 'c')}
  codec_lib(text).plan(codec_lib.Spec.of(update)).encode(numpy_ops, list(update.values()), Asked())
  assert asked == {
      ('round', 'a1', 'ROTATION', 0), ('client', 'a1', 'PRE_ROUNDING', 0),
      ('client', 'a1', 'MASK', 0),
      ('client', 'a1', 'ROTATION', 1 << 16), ('client', 'a1', 'PRE_ROUNDING', 1 << 16),
      ('client', 'a1', 'QUANTIZER', 0),
      ('round', '*', 'MASK', 0)}


def test_a_codec_knows_whether_decoding_needs_the_client():
  spec = codec_lib.Spec.of(MODEL)
  assert not codec_lib('hadamard | uniform | pack').plan(spec).uses_client_keys
  assert codec_lib('drive').plan(spec).uses_client_keys
  codec = codec_lib('hadamard | subsample:1/4 | uniform:bits=2 | pack')
  payload = codec.encode(MODEL, **KEYS)
  decoded = codec.decode(payload, MODEL, **KEYS)
  other = codec.decode(payload, MODEL, **{**KEYS, 'client': 99})
  assert all(np.array_equal(decoded[n], other[n]) for n in MODEL)


def test_the_sum_of_prefixes_rotates_back_once():
  """`hadamard | subsample` are the prefix of a sketch: sums of what lies behind them can be decoded."""
  pipeline = codec_lib('hadamard | subsample:1/4 | uniform:bits=2 | pack').rules[0].pipeline
  assert pipeline.prefix == 2
  assert codec_lib('hadamard:key=client | eden | pack').rules[0].pipeline.prefix == 0
  assert codec_lib('subsample:1/4 | hadamard:key=client | eden | pack').rules[0].pipeline.prefix == 1
  assert codec_lib('topk:1/4 | hadamard | float32').rules[0].pipeline.prefix == 0


def test_bounds_compose():
  """NMSE = (1 + q) / p - 1 for a quantizer of NMSE q on a fraction p."""
  pipeline = codec_lib('subsample:1/16 | uniform:bits=2,range=tensor | pack').rules[0].pipeline
  assert pipeline.nmse_bound(1600) == pytest.approx((1 + 100 / 18) * 16 - 1)
  assert codec_lib('float32').rules[0].pipeline.nmse_bound(5) == 0


def test_keys_of_one_message_are_checked_once_and_derived_from_its_numbers():
  keys = keys_lib.MessageKeys(42, 5, 7)
  assert keys.key('round', 'dense/kernel', 1, 0).view(np.uint32).tolist() == [0x3A1263C9, 0x44787DB8]
  assert keys.key('client', 'dense/kernel', 3, 0).view(np.uint32).tolist() == [0x2D9932F5, 0xA58ABADB]


@pytest.mark.parametrize('text, places', [
    ('hadamard:key=client | eden | pack', [(0, 2)]), ('eden:scale=least-error | pack', [(0, 2)]),
    ('hadamard:key=client | ternary | rice', [(4, 6)]), ('uniform | pack', [(0, 2), (2, 4)]),
    ('uniform:range=tensor | pack', [(0, 4), (4, 8)]), ('float32', [(0, 4), (36, 40)])])
def test_scales_that_no_encoder_writes_are_refused_where_they_are_read(text, places):
  """Not only by what they decode to: a graph on the server has sums in between."""
  plan = codec_lib(text).plan(codec_lib.Spec.of({'x': np.zeros(10, np.float32)}))
  payload = codec_lib(text).encode({'x': measure.gaussian(10)}, **KEYS)
  for start, stop in places:
    negative = (-1.0,) if 'eden' in text or 'ternary' in text else ()
    for value in (np.nan, np.inf, -np.inf, 2.0**100, -2.0**100) + negative:
      changed = bytearray(payload)
      changed[start:stop] = struct.pack('<f', value)[-(stop - start):]
      with pytest.raises(codec_lib.PayloadError):
        plan.decode_to_prefixes(numpy_ops, np.frombuffer(changed, np.uint8), keys_lib.MessageKeys(1, 2, 3))


def test_the_order_of_a_range_and_the_exponent_of_float16_are_checked():
  keys = keys_lib.MessageKeys(1, 2, 3)
  plan = codec_lib('uniform:range=tensor | pack').plan(codec_lib.Spec.of({'x': np.zeros(1, np.float32)}))
  with pytest.raises(codec_lib.PayloadError, match='in order'):
    plan.decode_to_prefixes(numpy_ops, np.frombuffer(struct.pack('<ffB', 2.0, 1.0, 0), np.uint8), keys)
  plan = codec_lib('float16').plan(codec_lib.Spec.of({'x': np.zeros(1, np.float32)}))
  for exponent, right in ((0, False), (62, False), (63, True), (214, True), (215, False), (255, False)):
    data = np.frombuffer(bytes([exponent, 0, 0x3C]), np.uint8)
    if right:
      plan.decode_to_prefixes(numpy_ops, data, keys)
    else:
      with pytest.raises(codec_lib.PayloadError, match='out of range'):
        plan.decode_to_prefixes(numpy_ops, data, keys)


@pytest.mark.parametrize('text, bits', [('sketch', 0.125), ('drive', 1), ('drive:bits=2', 2), ('int8', 8),
                                        ('rotated-ternary', 0.127),
                                        ('rotated-ternary:threshold=1.728', 0.503), ('shared-mask', 1 / 64)])
def test_presets_cost_what_they_say(text, bits):
  """Bits per value of a tensor of 2^17, with what ranges, scales and lengths add."""
  measured = measure.bits_per_value(text, measure.gaussian(1 << 17))
  assert bits <= measured * 1.001
  assert measured - bits < max(32 / 1024, 0.07 * bits) if text in ('sketch', 'int8') else measured - bits < 0.0079
