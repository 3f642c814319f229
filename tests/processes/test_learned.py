"""A client's message: latent values and other variables as one ordinary frame, or the fallback, whichever is right."""

import numpy as np
import pytest

from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import network

SPEC = codec_lib.Spec.of({'kernel': np.zeros((8, 6), np.float32), 'bias': np.zeros(6, np.float32)})
RULES = 'size>=10 => concat | autoencoder:2,length=8,order=columns | {}; * => float16'
KEYS = dict(seed=1, round=3, client=5)


def update(inside=1.0, seed=0):
  """A kernel whose columns are the given share of lowest cosines, the rest noise, and a bias."""
  rng = np.random.default_rng(seed)
  columns = np.cos(np.pi / 8 * (np.arange(8) + 0.5))[:, None] * rng.standard_normal(6) + 1
  kernel = inside * columns + (1 - inside) * rng.standard_normal((8, 6))
  return [kernel.astype(np.float32), rng.standard_normal(6).astype(np.float32)]


def messages(behind='float32', target='delta', fallback='float32', tolerance=0.3):
  from tff_compress.processes.autoencoder.messages import LearnedMessages
  rule = autoencoders.LearnedRule(RULES.format(behind), SPEC)
  return LearnedMessages(rule, target, fallback, tolerance, KEYS['seed'])


def encode(made, arrays, usable=True, received=None):
  import tensorflow as tf
  memory = {'client': tf.constant(KEYS['client'], tf.int64), 'decoder': tf.constant(0x01020304)}
  received = [np.zeros(t.shape, np.float32) for t in SPEC.tensors] if received is None else received
  return made.encode([tf.constant(x) for x in arrays], received, network.cosine(8, 2), tf.constant(usable), memory,
                     tf.constant(KEYS['round']))


def decode(made, message, weights=None):
  import tensorflow as tf
  weights = [np.zeros(t.shape, np.float32) for t in SPEC.tensors] if weights is None else weights
  return [x.numpy() for x in made.decode(message, lambda: network.cosine(8, 2), weights, tf.constant(KEYS['round']),
                                          tf.constant(KEYS['client']))]


def test_the_frame_is_an_ordinary_one():
  """The bytes are those of the codec behind the autoencoder, for latent values and the other variables."""
  made, x = messages('uniform:bits=8 | rans'), update()
  message = encode(made, x).numpy().tobytes()
  assert message[:5] == bytes([1, 4, 3, 2, 1])
  codec, spec = autoencoders.LearnedRule(RULES.format('uniform:bits=8 | rans'), SPEC).behind
  from tff_compress.codec.ops import numpy_ops as xp
  latents = network.cosine(8, 2).encode(xp, x[0].T.ravel(), 48)
  values = dict(zip((t.name for t in spec.tensors), (latents, x[1])))
  assert message[5:] == wire.pack(codec, values, **KEYS)


@pytest.mark.parametrize('behind', ['float32', 'hadamard | uniform:bits=8,rounding=nearest | rans',
                                    'hadamard:rotations=2,key=client | subsample:1/2,key=client | eden:bits=4 | pack'])
@pytest.mark.parametrize('target', ['delta', 'weights'])
def test_any_chain_may_follow(behind, target):
  made, x = messages(behind, target, tolerance=2), update()
  received = update(seed=9)
  message = encode(made, x, received=received)
  assert message[0] == 1
  decoded = decode(made, message, received)
  np.testing.assert_allclose(decoded[1], x[1], atol=2e-3)
  reach = np.linalg.norm(x[0]) + (np.linalg.norm(received[0]) if target == 'weights' else 0)
  assert np.linalg.norm(decoded[0] - x[0]) <= {'f': 0.02, 'h': 1.5}[behind[0]] * reach


def test_what_is_too_far_off_is_sent_with_the_fallback():
  made = messages()
  assert encode(made, update(0.95))[0] == 1
  for wrong in (encode(made, update(0.0)), encode(made, update(), usable=False)):
    assert wrong[0] == 0
  for a, b in zip(decode(made, encode(made, update(0.0))), update(0.0)):
    np.testing.assert_array_equal(a, b)


def test_latent_values_that_cannot_be_encoded_are_not():
  made, x = messages(tolerance=1e9, fallback='float32'), update()
  x[0] = x[0] * np.float32(2.0**61)
  assert encode(made, [a / 4 for a in x])[0] == 1 and encode(made, [a * 4 for a in x])[0] == 0


def test_without_a_tolerance_the_better_is_sent():
  """Learned: about 80 bytes. float32 is better and larger; the cheap one is worse and smaller, or better and
  smaller."""
  free = lambda fallback, inside: encode(messages(fallback=fallback, tolerance=None), update(inside))[0].numpy()
  cheap = 'concat | topk:1/3 | float32'
  assert free('float32', 0.7) == 1 and free('float32', 0.0) == 1  # Larger, so never instead.
  assert free('concat | uniform:bits=1 | pack', 1.0) == 1
  assert free('int8', 0.3) == 0 and free(cheap, 1.0) == 1
  # An update outside of what the network can say, with a bias of 0: no better than nothing.
  outside = [np.cos(np.pi / 8 * 5 * (np.arange(8) + 0.5))[:, None].astype(np.float32) * np.ones((1, 6), np.float32),
             np.zeros(6, np.float32)]
  assert encode(messages(tolerance=None), [1e-3 * x for x in outside])[0] == 0
