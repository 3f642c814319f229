"""docs/wire-format.md is complete and true: its example, and a decoder written from it that reads every frame."""

import pathlib
import re
import struct
import zlib

import numpy as np
import pytest

from tests.contract import cases
from tests.golden import regenerate
from tests.wire import reference
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.random import Purpose

DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs'
EXAMPLE = '*/kernel => hadamard:block=4 | uniform:bits=2 | pack; gate => topk:2/5 | float16; * => float32'
UPDATE = {
    'dense/kernel': np.asarray([[0.5, -1.25], [2, 0], [0.75, -0.375]], np.float32),
    'gate': np.asarray([0.1, -3, 0, 0.25, 1.5], np.float32),
    'bias': np.asarray(0.5, np.float32),
    'steps': np.asarray([3], np.int16),
}


def _spec(update):
  return [(t.name, t.dtype, t.shape) for t in codec_lib.Spec.of(update).tensors]


def _section():
  return (DOCS / 'wire-format.md').read_text(encoding='utf-8').partition('## A worked example')[2]


def test_the_examples_frame_is_the_one_in_the_document():
  frame = wire.pack(EXAMPLE, UPDATE, seed=42, round=5, client=7)
  section = _section()
  assert EXAMPLE in section
  dump = next(block for block in section.split('```') if '54 46 43 02' in block)
  pairs = [re.match(r'((?:[0-9a-f]{2} )*[0-9a-f]{2})  ', line)[1] for line in dump.strip().splitlines()]
  assert bytes.fromhex(' '.join(pairs)) == frame
  assert f'**Frame**, {len(frame)} bytes' in section


def test_the_examples_numbers_on_the_way_are_those_in_the_document():
  section = _section()
  keys = keys_lib.MessageKeys(42, 5, 7)
  draws = keys_lib.Draws(numpy_ops, keys, 'dense/kernel', 0)

  def words(scope, purpose, count):
    return ' '.join(f'{w:08x}' for w in draws.of(scope, purpose).words(count).view(np.uint32))
  for scope, purpose, count in (('round', 1, 1), ('client', 3, 2), ('client', 4, 3)):
    key = ' '.join(f'{k:08x}' for k in keys.key(scope, 'dense/kernel', purpose, 0).view(np.uint32))
    assert f'`{key}` | `{words(scope, purpose, count)}`' in section
  assert ' '.join(str(int(s < 0)) for s in draws.of('round', Purpose.ROTATION).signs(8)) in section
  assert ' '.join(f'{d * 131072:.0f}' for d in draws.client(Purpose.QUANTIZER).dither(6)) in section

  pipeline = codec_lib(EXAMPLE).rules[0].pipeline
  real, symbols = pipeline.signals(6)[:2]
  rotated, _ = pipeline.stages[0].encode(numpy_ops, UPDATE['dense/kernel'].reshape(-1), draws, real)
  assert ', '.join(f'{v:g}' for v in rotated) in section
  levels, side = pipeline.stages[1].encode(numpy_ops, rotated, draws, symbols)
  assert f'`{" ".join(map(str, levels))}`' in section
  assert all(f'`{int(side[name][0]) & 0xFFFF:04x}`' in section for name in ('low', 'high'))


def test_the_examples_result_is_the_one_in_the_document():
  frame = wire.pack(EXAMPLE, UPDATE, seed=42, round=5, client=7)
  decoded, _ = wire.unpack(EXAMPLE, frame, UPDATE, seed=42)
  table = _section().partition('It decodes to')[2]
  for name, value in decoded.items():
    row = re.search(rf'\| `{name}` \| (.*) \|', table)[1]
    np.testing.assert_allclose(np.asarray([float(v) for v in row.split(', ')]), value.reshape(-1), atol=5.1e-5)


@pytest.mark.parametrize('case', cases.all_cases(), ids=str)
def test_a_decoder_written_from_the_document_reads_every_codec(case):
  update = case.update(300)
  frame = wire.pack(case.codec, update, seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)
  expected, _ = wire.unpack(case.codec, frame, update, seed=cases.SEED)
  read = reference.read_frame(str(case.codec), _spec(update), frame, cases.SEED)
  assert set(read) == set(update)
  for name, value in expected.items():
    scale = np.max(np.abs(value.astype(np.float64)), initial=1e-30)
    given = np.asarray(read[name], np.float64)
    np.testing.assert_allclose(given / scale, value.reshape(-1) / scale, atol=2e-6, err_msg=name)


# Of learned encoders it knows the cosines alone.
GOLDENS = [golden for golden in regenerate.goldens() if not golden.update.startswith('heavy')
           and golden.name not in ('special.long', 'special.learned')]


@pytest.mark.thorough
@pytest.mark.parametrize('golden', GOLDENS, ids=str)
def test_it_reads_golden_frames_of_irregular_values_to_the_same_bits(golden):
  update = regenerate.update_of(golden)
  frame = (regenerate.FOLDER / golden.file).read_bytes()
  read = reference.read_frame(str(golden.codec), _spec(update), frame, cases.SEED)
  arrays = [np.asarray(read[name]).astype(value.dtype) if value.dtype.kind != 'u'
            else np.asarray(read[name], value.dtype)
            for name, value in update.items()]
  expected, said = regenerate.decoded(golden, frame)
  if golden.exact:
    assert regenerate.sha256(map(regenerate.unsigned_zeros, arrays)) == said['sha256']
  for array, (name, value) in zip(arrays, expected.items()):
    wide = value.reshape(-1).astype(np.float64)
    np.testing.assert_allclose(array.astype(np.float64), wide, rtol=0, err_msg=name,
                               atol=said.get('tolerance', 0) * np.max(np.abs(wide), initial=0))


def test_its_words_behind_the_2_to_the_24th_are_those_of_the_product():
  """The mask over more values than that, of which it would take minutes to draw all one by one."""
  theirs = reference.Stream(42, 5, reference.SHARED, 'long', reference.SUBSET, 0)
  ours = keys_lib.Draws(numpy_ops, keys_lib.MessageKeys(42, 5, 7), 'long', 0).of('round', Purpose.MASK)
  for start in (0, (1 << 24) - 3, (1 << 24) + (1 << 20), 3 * (1 << 24) - 1):
    assert [theirs.word(start + i) for i in range(6)] == ours.words(6, start).view(np.uint32).tolist()


def test_it_reads_larger_messages_too():
  """Several lanes, blocks of 4096 with a rest, and rotations across them."""
  for case in [case for case in cases.byte_cases() if case not in cases.all_cases()]:
    update = case.update()
    frame = wire.pack(case.codec, update, seed=1, round=2, client=3)
    expected, _ = wire.unpack(case.codec, frame, update, seed=1)
    read = reference.read_frame(str(case.codec), _spec(update), frame, 1)
    for name, value in expected.items():
      np.testing.assert_allclose(read[name], value.reshape(-1), atol=2e-6)


@pytest.mark.thorough
@pytest.mark.parametrize('case', [case for case in cases.all_cases()
                                  if case.name.startswith(('larger', 'rans', 'rice', 'elias', 'huffman', 'bound'))],
                                  ids=str)
def test_both_decoders_refuse_the_same_payloads(case):
  """Flipped bits and cuts behind a new checksum: what one refuses the other does, so the document says all checks."""
  update = case.update(40)
  frame = wire.pack(case.codec, update, seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)
  rng = np.random.default_rng(0)
  bodies = [frame[:-4][:length] for length in rng.integers(16, len(frame) - 4, 8)] + [frame[:-4] + b'\0']
  for bit in rng.integers(8 * 16, 8 * (len(frame) - 4), 60):
    changed = bytearray(frame[:-4])
    changed[bit // 8] ^= 1 << bit % 8
    bodies.append(bytes(changed))
  for body in bodies:
    sealed = body + struct.pack('<I', zlib.crc32(body))
    try:
      reference.read_frame(str(case.codec), _spec(update), sealed, cases.SEED)
      refused = False
    except reference.Refused:
      refused = True
    except OverflowError:  # A float16 or float32 that the struct module does not take.
      refused = True
    try:
      wire.unpack(case.codec, sealed, update, seed=cases.SEED)
      assert not refused
    except codec_lib.PayloadError as error:
      assert refused or 'infinite' in str(error), error
