"""Pooling of kernels: counts of the published networks, the projection, and what only the shape tells."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops

KEYS = dict(seed=1, round=2, client=3)


def pooled_count(shapes):
  """Values that the codec sends for variables of these shapes."""
  stages = codec_lib('rpn').rules[0].pipeline
  return sum(stages.of_shapes([shape]).signals(int(np.prod(shape)))[1].size for shape in shapes)


def convolutions(*layers):
  """Kernel shapes of (size, inputs, outputs) layers."""
  return [(size, size, inputs, outputs) for size, inputs, outputs in layers]


def yolov3_kernels():
  """The 75 convolution kernels of YOLOv3 with the head for 80 classes, by stage of the network."""
  layers = [(3, 3, 32)]
  for width, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
    layers += [(3, width // 2, width)] + [(1, width, width // 2), (3, width // 2, width)] * blocks
  for width, inputs in ((512, 1024), (256, 512 + 256), (128, 256 + 128)):
    layers += [(1, inputs, width), (3, width, 2 * width), (1, 2 * width, width), (3, width, 2 * width),
               (1, 2 * width, width)]
    layers += [(3, width, 2 * width), (1, 2 * width, 255)]
    if width > 128:
      layers.append((1, width, width // 2))
  return convolutions(*layers)


def test_the_example_network_for_mnist_sends_1183242_of_1199882_values():
  shapes = [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (9216, 128), (128,), (128, 10), (10,)]
  assert sum(int(np.prod(s)) for s in shapes) == 1_199_882
  assert pooled_count(shapes) == 1_183_242
  update = {str(i): np.zeros(s, np.float32) for i, s in enumerate(shapes)}
  assert len(codec_lib('rpn').encode(update, **KEYS)) == 4 * 1_183_242


def test_yolov3_sends_12382560_of_its_61895776_kernel_values():
  shapes = yolov3_kernels()
  assert len(shapes) == 75 and sum(int(np.prod(s)) for s in shapes) == 61_895_776
  assert pooled_count(shapes) == 12_382_560


def decoded(update, text='rpn'):
  return codec_lib(text).decode(codec_lib(text).encode(update, **KEYS), update, **KEYS)


def test_it_is_the_projection_on_kernels_that_are_constant_in_space():
  rng = np.random.default_rng(0)
  x = {'k': rng.standard_normal((5, 3, 4, 6)).astype(np.float32), 'b': rng.standard_normal(6).astype(np.float32)}
  once = decoded(x)
  np.testing.assert_allclose(once['k'], np.broadcast_to(x['k'].mean(axis=(0, 1)), (5, 3, 4, 6)), atol=1e-6)
  np.testing.assert_array_equal(once['b'], x['b'])
  np.testing.assert_allclose(decoded(once)['k'], once['k'], atol=1e-6)  # Twice is once.
  assert np.sum((x['k'] - once['k']) * once['k']) == pytest.approx(0, abs=1e-3)  # Orthogonal.


def test_missed_rounds_are_made_good_by_one_message_of_the_same_size():
  """Lemma 2: the sum of what was pooled, decoded once, is the sum of all updates that were missed."""
  rng = np.random.default_rng(1)
  updates = [{'k': rng.standard_normal((3, 3, 2, 4)).astype(np.float32)} for _ in range(20)]
  plan = codec_lib('rpn').plan(codec_lib.Spec.of(updates[0]))
  keys = keys_lib.MessageKeys(1, 2, 3)
  sent = [np.frombuffer(codec_lib('rpn').encode(u, **KEYS), np.uint8) for u in updates]
  total = sum(plan.decode_to_prefixes(numpy_ops, payload, keys)[0] for payload in sent)
  assert total.size == 8
  recovered, = plan.decode_prefixes(numpy_ops, [total], keys)
  np.testing.assert_allclose(recovered, sum(decoded(u)['k'] for u in updates), atol=1e-5)


def test_variables_that_are_not_kernels_of_convolutions_stay():
  for shape in ((7,), (4, 5), (3, 4, 5), (2, 2, 2, 2, 2), (1, 1, 4, 4)):
    x = {'v': np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}
    np.testing.assert_array_equal(decoded(x)['v'], x['v'])


def test_joined_variables_are_pooled_each_in_its_shape():
  rng = np.random.default_rng(2)
  x = {'a': rng.standard_normal((3, 3, 2, 2)).astype(np.float32), 'b': rng.standard_normal(5).astype(np.float32),
       'c': rng.standard_normal((2, 2, 1, 3)).astype(np.float32)}
  joined = decoded(x, 'concat | pool | float32')
  for name, value in decoded(x).items():
    np.testing.assert_array_equal(joined[name], value)
  assert len(codec_lib('concat | pool | float32').encode(x, **KEYS)) == 4 * (4 + 5 + 3)


def test_variables_of_one_size_and_different_shapes_are_told_apart():
  x = {'kernel': np.ones((3, 3, 2, 2), np.float32), 'dense': np.ones((6, 6), np.float32)}
  assert len(codec_lib('rpn').encode(x, **KEYS)) == 4 * (4 + 36)


def test_it_can_only_stand_first():
  with pytest.raises(codec_lib.CodecError, match='put it first'):
    codec_lib('hadamard | pool | float32')


def test_kernels_whose_elements_sum_to_no_more_than_the_threshold_are_not_sent():
  """The paper's contribution of a filter: |sum of the kernel's elements|. What is not sent is 0, and costs one bit."""
  rng = np.random.default_rng(3)
  x = {'k': rng.standard_normal((3, 3, 10, 16)).astype(np.float32), 'd': rng.standard_normal((7, 8)).astype(np.float32)}
  sums = x['k'].sum(axis=(0, 1), dtype=np.float64)
  chosen = np.abs(sums) > 3.0
  assert 20 < chosen.sum() < 100
  once = decoded(x, 'rpn:threshold=3')
  np.testing.assert_allclose(once['k'], np.broadcast_to(np.where(chosen, sums / 9, 0), x['k'].shape), atol=1e-6)
  np.testing.assert_array_equal(once['d'], x['d'])
  lengths = 2 * len(x)  # Sizes depend on the values, so the message says them: 128 and above take two bytes.
  assert len(codec_lib('rpn:threshold=3').encode(x, **KEYS)) == lengths + 160 / 8 + 4 * chosen.sum() + 4 * 56


def test_a_threshold_of_0_sends_all_and_costs_nothing():
  assert codec_lib('rpn:threshold=0') == codec_lib('rpn') == codec_lib('pool | float32')


def test_where_every_kernel_is_sent_there_are_no_bits_that_say_so():
  x = {'k': np.ones((3, 3, 4, 4), np.float32)}
  assert len(codec_lib('rpn:threshold=8.9').encode(x, **KEYS)) == 1 + 4 * 16
  assert len(codec_lib('rpn:threshold=9').encode(x, **KEYS)) == 1 + 2


@pytest.mark.parametrize('threshold', ['-1', 'nan', 'inf', '1e30'])
def test_bad_thresholds_are_refused(threshold):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(f'rpn:threshold={threshold}')
