"""Entropy coders in a message: never more than a byte above the packed symbols, and one stream for several variables
where that is shorter.
"""

import tracemalloc

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import counts
from tff_compress.codec import stage as stage_lib
from tff_compress.codec import streams
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.stage import Integers

KEYS = dict(seed=1, round=2, client=3)
SIZES = [0, 1, 2, 3, *(2**k + i for k in (2, 5, 8) for i in (-1, 0, 1))]


def _entropy_coders():
  """Every registered coder whose bytes depend on the values, with each of its examples."""
  for name, kind in sorted(stage_lib.registry().items()):
    if kind.domain is stage_lib.Integers:
      for example in kind.examples:
        text = name + (f':{example}' if example else '')
        if codec_lib(f'uniform:bits=2 | {text}').rules[0].pipeline.entropy_coder:
          yield text


CODERS = list(_entropy_coders())


def _symbols(size, low, high, skew, seed=0):
  """From all alike (0) over skewed ones to any (1)."""
  rng = np.random.default_rng(seed)
  usual = rng.integers(low, high + 1)
  return np.where(rng.random(size) < skew, rng.integers(low, high + 1, size), usual).astype(np.int32)


def _coder(text):
  return codec_lib(f'uniform:bits=2 | {text}').rules[0].pipeline.stages[-1]


def _group(text, low, high, *sizes):
  return streams.Group(_coder(text), low, high, tuple(range(len(sizes))), sizes)


def _back(group, payload):
  symbols, rest = group.decode(xp, np.concatenate([payload, np.asarray([7, 7], np.uint8)]))
  assert rest.tolist() == [7, 7]
  return symbols


def test_there_are_entropy_coders():
  assert {text.partition(':')[0] for text in CODERS} >= {'rice', 'elias', 'rans', 'huffman'}


@pytest.mark.thorough
@pytest.mark.parametrize('text', CODERS)
@pytest.mark.parametrize('low, high', [(0, 0), (0, 1), (-1, 1), (0, 15), (-7, 7), (0, 255), (3, 9)])
def test_a_stream_is_at_most_a_byte_longer_than_its_symbols_packed(text, low, high):
  for size in SIZES[1:]:
    packed = streams.packed_size(Integers(size, low, high))
    assert packed == -(-size * max(1, (high - low).bit_length()) // 8)
    for skew in (0, 0.05, 1):
      symbols = _symbols(size, low, high, skew, size)
      group = _group(text, low, high, size)
      payload = group.encode(xp, [symbols])
      assert payload.size <= packed + 1
      np.testing.assert_array_equal(_back(group, payload)[0], symbols)


@pytest.mark.thorough
@pytest.mark.parametrize('text', CODERS)
@pytest.mark.parametrize('bits', [1, 4, 8])
def test_messages_are_at_most_a_byte_a_variable_longer_than_packed_ones(text, bits):
  rng = np.random.default_rng(0)
  for shapes in ([()], [(4,)], [(0,)], [(n,) for n in SIZES], [(50 + n,) for n in range(40)]):
    update = {f'v{i}': rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}
    sent = codec_lib(f'uniform:bits={bits} | {text}').encode(update, **KEYS)
    packed = codec_lib(f'uniform:bits={bits} | pack').encode(update, **KEYS)
    assert len(sent) <= len(packed) + sum(v.size > 0 for v in update.values())


def test_a_scalar_and_four_values_are_as_small_as_their_scales_allow():
  """Range or step of 4 and 2 bytes, a symbol each of 1 byte, and one that says that they are packed."""
  assert len(codec_lib('uniform:bits=8 | rans').encode({'x': np.float32(0.3)}, **KEYS)) == 4 + 1 + 1
  x = np.asarray([0.5, -0.25, 0.125, 1], np.float32)
  # The length of the segment, the step, no outliers; 103 + 1 symbols are of 7 bits.
  assert len(codec_lib('bounded').encode({'x': x}, **KEYS)) == 1 + 2 + 1 + 1 + 4


@pytest.mark.parametrize('text', CODERS)
def test_forty_small_layers_are_smaller_than_float32_and_one_table_serves_all(text):
  """Dense layers of 8 x 8 and 8 values: tables of their own would cost more than they save."""
  rng = np.random.default_rng(0)
  update = {f'layer_{i // 2}/{"bias" if i % 2 else "kernel"}':
                (0.01 * rng.standard_normal(8 if i % 2 else (8, 8))).astype(np.float32)
            for i in range(80)}
  values = sum(v.size for v in update.values())
  payload = codec_lib(f'symmetric:levels=20,block=64 | {text}').encode(update, **KEYS)
  assert len(payload) < 80 * 2 + values
  if text.partition(':')[0] in ('rans', 'huffman'):
    plan = codec_lib(f'symmetric:levels=20,block=64 | {text}').plan(codec_lib.Spec.of(update))
    _, rest = plan.bodies(xp, np.frombuffer(payload, np.uint8))
    assert plan.groups[0].stream_sizes(xp, rest)[0]  # Together.
    assert rest.size < 0.75 * sum(streams.packed_size(Integers(v.size, -20, 20)) for v in update.values())


@pytest.mark.parametrize('text', ['rans', 'huffman', 'elias', 'rice'])
def test_symbols_stand_together_only_where_that_is_shorter(text):
  """Variables of one distribution share a table; of distributions that exclude each other they do not."""
  alike = [_symbols(3000, 0, 255, 0.3, 7) for _ in range(4)]
  apart = [np.where(np.arange(3000) % 7 == 0, i, 250 - i).astype(np.int32) for i in range(4)]
  for symbols in (alike, apart):
    group = _group(text, 0, 255, *[3000] * 4)
    payload = group.encode(xp, symbols)
    for part, back in zip(symbols, _back(group, payload)):
      np.testing.assert_array_equal(back, part)
    one = _group(text, 0, 255, 12000).encode(xp, [np.concatenate(symbols)])
    each = [_group(text, 0, 255, 3000).encode(xp, [part]) for part in symbols]
    # What rans goes by is an estimate, good to a few bytes.
    assert payload.size <= 1 + min(one.size, sum(map(len, each))) + (8 if text == 'rans' else 0)
    if text in ('rans', 'huffman'):
      assert payload[0] == (symbols is alike)


def test_the_cost_of_rans_is_near_what_it_writes():
  for size, skew in ((300, 0.2), (5000, 0.5), (40_000, 0.05), (100_000, 1)):
    symbols = _symbols(size, 0, 63, skew)
    coder, signal = _coder('rans'), Integers(size, 0, 63)
    written = coder.encode(xp, symbols, None, signal)[0].size
    lanes = max(1, 1 << ((size // 4096).bit_length() - 1)) if size >= 4096 else 1
    assert abs(coder.cost(xp, symbols, signal) - written) <= 2 + lanes


@pytest.mark.parametrize('text', CODERS)
def test_streams_that_no_encoder_writes_are_refused(text):
  group = _group(text, 0, 15, 100)
  symbols = np.full(100, 8 if text == 'elias' else 0, np.int32)
  symbols[[3, 50]] = 1, 9
  payload = group.encode(xp, [symbols])
  number, stream = counts.decode_one(xp, payload)
  assert number == stream.size < 50
  long = np.concatenate([stream, np.zeros(50 - stream.size, np.uint8)])
  for wrong, what in ((np.concatenate([counts.encode(xp, xp.vector(50)), long]), 'longer way'),
                      (payload[:-1], 'cut short'), (np.zeros(50, np.uint8), 'cut short'),
                      (np.zeros(0, np.uint8), 'cut short'),
                      (np.concatenate([np.asarray([0x80 | number, 0], np.uint8), stream]), 'longer than it need be'),
                      (np.asarray([255] * 5, np.uint8), 'above 2|cut short'),
                      (np.asarray([128] * 5 + [1], np.uint8), 'above 2|cut short')):
    with pytest.raises(codec_lib.PayloadError, match=what):
      group.decode(xp, wrong)
  two = _group(text, 0, 15, 100, 100)
  with pytest.raises(codec_lib.PayloadError, match='neither 0 nor 1'):
    two.decode(xp, np.concatenate([np.asarray([2], np.uint8), payload, payload]))


@pytest.mark.thorough
@pytest.mark.parametrize('text', ['rans', 'rans:lanes=1', 'huffman'])
def test_coding_takes_at_most_four_times_the_memory_of_the_symbols(text):
  """Beside the symbols, which as int32 are as large as the float32 they stand for; the result is counted."""
  size = 300_001
  symbols = np.clip(np.random.default_rng(0).normal(128, 30, size), 0, 255).astype(np.int32)
  coder, signal = _coder(text), Integers(size, 0, 255)

  def peak(function):
    tracemalloc.start()
    result = function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, most
  payload, encoding = peak(lambda: coder.encode(xp, symbols, None, signal)[0])
  back, decoding = peak(lambda: coder.decode(xp, payload, {}, None, signal))
  np.testing.assert_array_equal(back, symbols)
  assert max(encoding, decoding) < 4 * symbols.nbytes, (encoding / symbols.nbytes, decoding / symbols.nbytes)


def test_a_length_that_the_spec_does_not_allow_is_refused_before_it_is_read():
  """A frame of 60 MB for a thousand symbols: nothing of its size is made."""
  group = _group('huffman', 0, 255, 1000)
  payload = np.concatenate([counts.encode(xp, xp.vector(60_000_000)), np.zeros(60_000_000, np.uint8)])
  tracemalloc.start()
  with pytest.raises(codec_lib.PayloadError, match='longer way'):
    group.decode(xp, payload)
  assert tracemalloc.get_traced_memory()[1] < 1_000_000
  tracemalloc.stop()


@pytest.mark.parametrize('numbers, written', [
    ([], ''), ([0], '00'), ([5], '05'), ([127, 128], '7f8001'), ([300], 'ac02'), ([2**31 - 1], 'ffffffff07'),
    ([1 << 28], '8080808001')])
def test_counts_are_leb128(numbers, written):
  coded = counts.encode(xp, np.asarray(numbers, np.int32))
  assert coded.tobytes().hex() == written
  decoded, rest = counts.decode(xp, np.concatenate([coded, np.asarray([9], np.uint8)]), len(numbers))
  assert decoded.tolist() == numbers and rest.tolist() == [9]


def test_alphabets_that_cannot_be_packed_have_no_entropy_coder():
  with pytest.raises(codec_lib.CodecError, match='too wide'):
    streams.packed_size(Integers(5, 0, 65536))
