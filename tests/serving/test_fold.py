"""The aggregate is a function of the frames, in order."""

import numpy as np
import pytest

from tests.serving import tasks
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec.errors import PayloadError
from tff_compress.serving import fold as fold_lib
from tff_compress.serving.fold import Fold
from tff_compress.serving.frames import Rules

RULES = Rules(codec_lib(tasks.UPLINK), tasks.SPEC, tasks.SEED)


def folded(count):
  fold = Fold(RULES, 1)
  for client in range(count):
    fold.add(tasks.frame(client=client), client)
  return fold


def test_the_mean_is_that_of_the_decoded_updates():
  count = 2 * fold_lib.BLOCK + 3
  exact = np.mean([RULES.decode(tasks.frame(client=client), 1, client)['w'].astype(np.float64)
                   for client in range(count)], 0)
  np.testing.assert_allclose(folded(count).mean()['w'], exact, rtol=1e-6)
  assert folded(0).mean()['w'].shape == (6, 10) and not folded(0).mean()['w'].any()


def test_weights_are_those_of_a_mean():
  fold, frames = Fold(RULES, 1), [tasks.frame(client=client) for client in range(3)]
  for client, (frame, weight) in enumerate(zip(frames, (1, 10_000, 3))):
    fold.add(frame, client, weight)
  exact = np.average([RULES.decode(frame, 1, client)['w'].astype(np.float64) for client, frame in enumerate(frames)], 0,
                     weights=(1, 10_000, 3))
  np.testing.assert_allclose(fold.mean()['w'], exact, rtol=1e-6)


def test_blocks_that_others_folded_add_up_to_the_same_bits():
  count = 2 * fold_lib.BLOCK + 3
  parts = []
  for start in range(0, count, fold_lib.BLOCK):
    total = np.zeros((6, 10))
    for client in range(start, min(count, start + fold_lib.BLOCK)):
      total += RULES.decode(tasks.frame(client=client), 1, client)['w']
    parts.append(total)
  assert np.array_equal(folded(count).mean()['w'], (((parts[0] + parts[1]) + parts[2]) / count).astype(np.float32))


def test_a_frame_of_another_round_or_client_is_not_added():
  fold = Fold(RULES, 1)
  for round, client, says in ((2, 0, 0), (1, 1, 0)):
    with pytest.raises(PayloadError):
      fold.add(tasks.frame(round=round, client=client), says)
  assert fold.count == 0


def test_no_frame_is_longer_than_the_largest():
  assert len(tasks.frame()) == RULES.largest
  for text in ('topk:1/4 | uniform:bits=4 | pack', 'hadamard | uniform:bits=8 | rice', 'sign | rans', 'float32'):
    rules = Rules(codec_lib(text), tasks.SPEC, 1)
    for scale in (1e-30, 1.0, 1e15):
      assert len(wire.pack(rules.codec, tasks.update(1, scale), seed=1, round=1, client=1)) <= rules.largest
