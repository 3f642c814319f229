"""A frame made in a TensorFlow graph is, byte for byte, the frame that NumPy makes; and both read it alike."""

import functools
import struct
import zlib

import numpy as np
import pytest

from tests.contract import cases
import tff_compress
from tff_compress import codec as codec_lib

SEED = 2**63 + 12345
ROUND = 2**31 + 7
CLIENTS = (0, 2**32 - 2)
MUTANTS = 18


@functools.lru_cache
def tf():
  import tensorflow
  return tensorflow


def functions(text, update):
  from tff_compress.tensorflow import messages
  made = messages.MessageFunctions(text, codec_lib.Spec.of(update), SEED)
  number = tf().TensorSpec([], tf().int32)
  signatures = [tf().TensorSpec(v.shape, tf().as_dtype(v.dtype)) for v in update.values()]
  encode = tf().function(lambda arrays, r, c: made.encode(arrays, r, c), input_signature=[signatures, number, number])
  decode = tf().function(lambda frame, r, c: made.decode(frame, r, c), autograph=False,
                         input_signature=[tf().TensorSpec([None], tf().uint8), number, number])
  return encode, decode, messages.signed


def spiky(update):
  """Adds what runtimes treat differently: denormals, negative zeros, zero blocks, huge and tiny values."""
  kernel = update['dense/kernel']
  flat = kernel.reshape(-1).copy()
  flat[:40] = 0
  flat[3] = -0.0
  flat[50:55] = [1e-44, -1e-41, 1e-30, -3e15, 2e15]
  return {**update, 'dense/kernel': flat.reshape(kernel.shape)}


@pytest.mark.parametrize('case', cases.all_cases(), ids=str)
def test_graphs_make_and_read_the_frames_of_numpy_and_refuse_what_it_refuses(case):
  update = case.update(700)
  encode, decode, signed = functions(case.text, update)
  spec = codec_lib.Spec.of(update)
  for client, values in zip(CLIENTS, (update, spiky(update))):
    expected = tff_compress.wire.pack(case.text, values, seed=SEED, round=ROUND, client=client)
    made = encode(list(values.values()), signed(ROUND), signed(client)).numpy().tobytes()
    assert made == expected
    known, _ = tff_compress.wire.unpack(case.text, expected, spec, seed=SEED)
    check_same(decode(np.frombuffer(expected, np.uint8), signed(ROUND), signed(client)), known)
    if client == CLIENTS[0]:
      check_verdicts(case, decode, signed, spec, expected)


def check_same(read, known):
  for array, (name, other) in zip(read, known.items()):
    assert array.dtype.name == other.dtype.name and array.shape == other.shape
    scale = np.max(np.abs(other.astype(np.float64)), initial=1e-30)
    np.testing.assert_allclose(array.numpy() / scale, other / scale, atol=3e-6, err_msg=name)


@pytest.mark.parametrize('coder', ['rans', 'huffman'])
def test_many_lanes_have_the_same_bytes(coder):
  """With a last row that is not full; NumPy goes through few lanes symbol by symbol."""
  update = {'a': cases.values(20_001), 'b': cases.values(30)}
  text = f'uniform:bits=3 | {coder}'
  encode, decode, signed = functions(text, update)
  expected = tff_compress.wire.pack(text, update, seed=SEED, round=ROUND, client=7)
  assert encode(list(update.values()), signed(ROUND), signed(7)).numpy().tobytes() == expected
  known, _ = tff_compress.wire.unpack(text, expected, codec_lib.Spec.of(update), seed=SEED)
  check_same(decode(np.frombuffer(expected, np.uint8), signed(ROUND), signed(7)), known)


@pytest.mark.parametrize('text', ['uniform:bits=4 | rans', 'topk:1/4 | float32'])
def test_a_graph_grows_with_what_differs_and_hardly_with_the_number_of_variables(text):
  graphs = []
  for count in (6, 60):
    update = {f'{i}/{kind}': cases.values(size, i)
              for i in range(count // 2) for kind, size in (('kernel', 300), ('bias', 9))}
    encode, decode, signed = functions(text, update)
    frame = tff_compress.wire.pack(text, update, seed=SEED, round=ROUND, client=7)
    assert encode(list(update.values()), signed(ROUND), 7).numpy().tobytes() == frame
    known, _ = tff_compress.wire.unpack(text, frame, update, seed=SEED)
    check_same(decode(np.frombuffer(frame, np.uint8), signed(ROUND), 7), known)
    graphs.append([function.get_concrete_function().graph.as_graph_def() for function in (encode, decode)])
  for few, many in zip(*graphs):
    inside = [sorted(len(f.node_def) for f in graph.library.function) for graph in (few, many)]
    # The branches of a choice between one stream and many take the streams apart.
    assert len(inside[0]) == len(inside[1]) and sum(inside[1]) - sum(inside[0]) < 54 * 5
    assert len(many.node) - len(few.node) < 54 * 20


def test_low_rank_of_matrices_with_large_blocks_has_the_same_bytes():
  update = {'a': cases.values(300 * 290).reshape(300, 290), 'b': 1e-3 * cases.values(90 * 70, 1).reshape(3, 3, 10, 70)}
  text = 'concat | lowrank:1/8,key=client | float32'
  encode, _, signed = functions(text, update)
  made = encode(list(update.values()), signed(ROUND), signed(7)).numpy().tobytes()
  assert made == tff_compress.wire.pack(text, update, seed=SEED, round=ROUND, client=7)


def test_many_keys_and_long_names_are_derived_as_on_the_host():
  from tff_compress.codec import random
  from tff_compress.tensorflow import keys
  from tff_compress.tensorflow import messages
  requests = [('round', 'a' * n, 1 + n % 5, n << 10) for n in (0, 1, 22, 23, 24, 31, 32, 33, 87, 88, 300)]
  requests += [('client', 'größe/kernel', 4, 0)]
  made = keys.GraphKeys(requests, SEED, tf().constant(messages.signed(ROUND)),
                        tf().constant(messages.signed(2**32 - 2)))
  for scope, name, purpose, chunk in requests:
    client = 2**32 - 2 if scope == 'client' else random.SHARED_CLIENT
    row = made.key(scope, name, purpose, chunk).numpy()
    np.testing.assert_array_equal(row, random.derive_key(SEED, ROUND, client, name, purpose, chunk))
    np.testing.assert_array_equal(row, keys.GraphKeys.of_words(requests, made.words).key(scope, name, purpose, chunk))


@pytest.mark.parametrize('size', [4, 5, 63, 64, 65, 4096, 4097, 70_001])
def test_checksum_is_that_of_zlib(size):
  from tff_compress.tensorflow.ops import TensorFlowOps
  data = np.random.Generator(np.random.Philox(size)).integers(0, 256, size).astype(np.uint8)
  assert int(TensorFlowOps().crc32(tf().constant(data)).numpy()) & 0xFFFFFFFF == zlib.crc32(data.tobytes())


def test_checksum_takes_few_bytes_of_a_graph():
  from tff_compress.tensorflow.ops import TensorFlowOps
  with tf().Graph().as_default() as graph:
    TensorFlowOps().crc32(tf().zeros([10_000], tf().uint8))
  assert graph.as_graph_def().ByteSize() < 1 << 17


def with_checksum(body):
  return body + struct.pack('<I', zlib.crc32(body))


def mutants(frame, seed, count):
  """Frames that are nearly this one. Most have a right checksum, so that readers look further."""
  rng = np.random.Generator(np.random.Philox(seed))
  body = frame[:-4]
  where = lambda: min(int(rng.choice([rng.integers(0, 16), 16 + rng.geometric(0.1), rng.integers(16, len(body))],
                                     p=(.2, .5, .3))),
                      len(body) - 1)
  for number in range(count):
    data, place = bytearray(body), where()
    kind = number % 6
    if kind == 0:
      data[place] ^= 1 << rng.integers(8)
    elif kind == 1:
      data[place] = rng.choice([0, 1, 127, 128, 255])
    elif kind == 2:  # Denormals, infinities, NaN, large lengths, in 2 or 4 bytes.
      word = rng.choice([0x8001, 0x0001, 0x7F80, 0xFF80, 0x7FC0, 0x8000, 0x80000001, 0x00000001, 0x7F800000, 0x80000000,
                         0xFFFFFFFF])
      data[place:place + 4] = struct.pack('<I', word)[:2 if word < 1 << 16 else 4]
    elif kind == 3:
      del data[place:place + int(rng.integers(1, 5))]
    elif kind == 4:
      data[place:place] = rng.bytes(int(rng.integers(1, 5)))
    else:
      data[place] ^= 1 << rng.integers(8)
      yield bytes(data) + frame[-4:]
      continue
    yield with_checksum(bytes(data))


def check_verdicts(case, decode, signed, spec, frame):
  """The verdict on damaged frames is the same, and what both accept they decode alike."""
  refused = 0
  for mutant in mutants(frame, zlib.crc32(case.name.encode()), MUTANTS):
    read = lambda mutant=mutant: decode(tf().constant(np.frombuffer(mutant, np.uint8)),
                                          signed(ROUND), signed(CLIENTS[0]))
    try:
      known, _ = tff_compress.wire.unpack(case.text, mutant, spec, seed=SEED, round=ROUND, client=CLIENTS[0])
    except codec_lib.PayloadError as error:
      refused += 1
      with pytest.raises(tf().errors.InvalidArgumentError):
        print(error, mutant.hex(), read())
      continue
    check_same(read(), known)
  assert MUTANTS // 4 < refused <= MUTANTS


DAMAGES = {
    'cut short': lambda f: f[:19], 'does not start with': lambda f: with_checksum(b'TFX' + f[3:-4]),
    'another version': lambda f: with_checksum(f[:3] + b'\7' + f[4:-4]),
    'checksum': lambda f: f[:30] + bytes([f[30] ^ 1]) + f[31:],
    'another codec or for another model': lambda f: with_checksum(f[:4] + b'\0\0\0\0' + f[8:-4]),
    'another round': lambda f: with_checksum(f[:8] + b'\2' + f[9:-4]),
    'another client': lambda f: with_checksum(f[:12] + b'\7' + f[13:-4]),
    'behind the end': lambda f: with_checksum(f[:-4] + b'\0')}


@pytest.mark.parametrize('says', DAMAGES)
def test_the_first_thing_that_is_wrong_with_a_frame_is_said(says):
  update = cases.update(100)
  _, decode, _ = functions('uniform:bits=3 | pack', update)
  frame = DAMAGES[says](tff_compress.wire.pack('uniform:bits=3 | pack', update, seed=SEED, round=1, client=2))
  with pytest.raises(tf().errors.InvalidArgumentError, match=says):
    decode(np.frombuffer(frame, np.uint8), 1, 2)


@pytest.mark.parametrize('bits', [0x80000001, 0x807FFFFF, 0x80000000, 1])
def test_denormal_amounts_and_ranges_are_told_apart_by_their_bits(bits):
  """TensorFlow takes denormals for zero, NumPy does not; -0 is not below 0."""
  update = {'x': np.ones(3, np.float32)}
  for text, front in (('sign | pack', b''), ('uniform:range=tensor | pack', b'\0\0\0\0'),
                      ('uniform:range=tensor | pack', b'\1\0\0\0')):
    frame = tff_compress.wire.pack(text, update, seed=SEED, round=1, client=2)
    body = frame[:16] + front + struct.pack('<I', bits)
    frame = with_checksum(body + bytes(len(frame) - 4 - len(body)))
    value = struct.unpack('<f', struct.pack('<I', bits))[0]
    right = value >= struct.unpack('<f', front or bytes(4))[0]
    _, decode, _ = functions(text, update)
    if right:
      tff_compress.wire.unpack(text, frame, update, seed=SEED)
      decode(np.frombuffer(frame, np.uint8), 1, 2)
    else:
      with pytest.raises(codec_lib.PayloadError):
        tff_compress.wire.unpack(text, frame, update, seed=SEED)
      with pytest.raises(tf().errors.InvalidArgumentError):
        decode(np.frombuffer(frame, np.uint8), 1, 2)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 1e30])
def test_graphs_refuse_updates_that_are_not_finite(bad):
  update = cases.update(100)
  encode, _, signed = functions('float32', update)
  update['dense/bias'][3] = bad
  with pytest.raises(tf().errors.InvalidArgumentError, match='NaN'):
    encode(list(update.values()), signed(1), signed(2))
