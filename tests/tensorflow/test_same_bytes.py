"""A frame made in a TensorFlow graph is, byte for byte, the frame that NumPy makes; and both read it alike."""

import functools

import numpy as np
import pytest

import tff_compress
from tff_compress import codec as codec_lib
from tests.contract import cases

SEED = 2**63 + 12345
ROUND = 2**31 + 7
CLIENTS = (0, 2**32 - 2)


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
  return encode, lambda frame: made.decode(tf().constant(frame)), messages.signed


def spiky(update):
  """Adds what runtimes treat differently: denormals, negative zeros, zero blocks, huge and tiny values."""
  kernel = update['dense/kernel']
  flat = kernel.reshape(-1).copy()
  flat[:40] = 0
  flat[3] = -0.0
  flat[50:55] = [1e-44, -1e-41, 1e-30, -3e15, 2e15]
  return {**update, 'dense/kernel': flat.reshape(kernel.shape)}


@pytest.mark.parametrize('case', cases.all_cases(), ids=str)
def test_graphs_make_and_read_the_frames_of_numpy(case):
  update = case.update(700)
  encode, decode, signed = functions(case.text, update)
  spec = codec_lib.Spec.of(update)
  for client, values in zip(CLIENTS, (update, spiky(update))):
    expected = tff_compress.wire.pack(case.text, values, seed=SEED, round=ROUND, client=client)
    made = encode(list(values.values()), signed(ROUND), signed(client)).numpy().tobytes()
    assert made == expected
    read = decode(np.frombuffer(expected, np.uint8))
    known, _ = tff_compress.wire.unpack(case.text, expected, spec, seed=SEED)
    for array, (name, other) in zip(read, known.items()):
      assert array.dtype.name == other.dtype.name and array.shape == other.shape
      scale = np.max(np.abs(other.astype(np.float64)), initial=1e-30)
      np.testing.assert_allclose(array.numpy() / scale, other / scale, atol=3e-6, err_msg=name)


def test_low_rank_of_matrices_with_large_blocks_has_the_same_bytes():
  update = {'a': cases.values(300 * 290).reshape(300, 290), 'b': 1e-3 * cases.values(90 * 70, 1).reshape(3, 3, 10, 70)}
  text = 'concat | lowrank:1/8,key=client | float32'
  encode, _, signed = functions(text, update)
  made = encode(list(update.values()), signed(ROUND), signed(7)).numpy().tobytes()
  assert made == tff_compress.wire.pack(text, update, seed=SEED, round=ROUND, client=7)


def test_many_keys_and_long_names_are_derived_as_on_the_host():
  from tff_compress.codec import random
  from tff_compress.tensorflow import keys, messages
  requests = [('round', 'a' * n, 1 + n % 5, n << 10) for n in (0, 1, 22, 23, 24, 31, 32, 33, 87, 88, 300)]
  requests += [('client', 'größe/kernel', 4, 0)]
  made = keys.GraphKeys(requests, SEED, tf().constant(messages.signed(ROUND)), tf().constant(messages.signed(2**32 - 2)))
  for scope, name, purpose, chunk in requests:
    client = 2**32 - 2 if scope == 'client' else random.SHARED_CLIENT
    row = made.rows(name, [(scope, purpose, chunk)]).numpy()[0]
    np.testing.assert_array_equal(row, random.derive_key(SEED, ROUND, client, name, purpose, chunk))


@pytest.mark.parametrize('size', [4, 5, 63, 64, 65, 4096, 4097, 70_001])
def test_checksum_is_that_of_zlib(size):
  import zlib
  from tff_compress.tensorflow.ops import TensorFlowOps
  data = np.random.Generator(np.random.Philox(size)).integers(0, 256, size).astype(np.uint8)
  assert int(TensorFlowOps().crc32(tf().constant(data)).numpy()) & 0xFFFFFFFF == zlib.crc32(data.tobytes())


@pytest.mark.parametrize('damage', ['short', 'codec', 'behind', 'inside'])
def test_graphs_refuse_frames_that_do_not_fit(damage):
  update = cases.update(100)
  _, decode, _ = functions('uniform:bits=3 | pack', update)
  frame = tff_compress.wire.pack('uniform:bits=3 | pack', update, seed=SEED, round=1, client=2)
  frame = {'short': frame[:30], 'codec': frame[:5] + b'\0' + frame[6:], 'behind': frame + b'\0', 'inside': frame[:60] + frame[61:]}[damage]
  with pytest.raises(tf().errors.InvalidArgumentError):
    decode(np.frombuffer(frame, np.uint8))


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf, 1e30])
def test_graphs_refuse_updates_that_are_not_finite(bad):
  update = cases.update(100)
  encode, _, signed = functions('float32', update)
  update['dense/bias'][3] = bad
  with pytest.raises(tf().errors.InvalidArgumentError, match='NaN'):
    encode(list(update.values()), signed(1), signed(2))
