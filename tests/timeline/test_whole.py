"""A history of whole models: every version is a frame."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tff_compress.codec.errors import PayloadError
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.timeline import Timeline
from tff_compress.timeline.whole import WholeRules

CODEC = codec_lib('int8')


def weights(version):
  return {'w': np.linspace(-1 - version, 1, 60, dtype=np.float32).reshape(6, 10)}


def frame(version, client=random.SHARED_CLIENT, codec=CODEC):
  return wire.pack(codec, weights(version), seed=7, round=version, client=client)


RULES = WholeRules(CODEC.fingerprint(codec_lib.Spec.of(weights(0))))


def timeline(versions):
  found = None
  for version in range(versions):
    found = RULES.followed(found, frame(version))
  return found


def test_every_client_gets_the_newest_frame_and_who_has_it_gets_nothing():
  found = timeline(3)
  new = Copy(RULES).follow(found.way())
  assert new.version == 2 and bytes(new.held['frame']) == frame(2)
  old = Copy(RULES).follow(timeline(1).way())
  assert old.version == 0
  assert bytes(old.follow(found.way(old.version, old.digest)).held['frame']) == frame(2)
  assert found.cost(2) == history.HEADER_BYTES == len(found.way(2, new.digest))
  assert new.follow(found.way(2, new.digest)).held == new.held


def test_history_and_copy_survive_as_bytes():
  found = Timeline.from_bytes(timeline(3).to_bytes())
  copy = Copy(RULES).follow(found.way())
  again = Copy.from_bytes(RULES, copy.to_bytes())
  assert again.version == 2 and again.digest == copy.digest
  assert RULES.followed(found, frame(3)).version == 3


@pytest.mark.parametrize('record, sentence', [
    (frame(5), 'version 1 is next'), (frame(1, client=3), 'of a client'), (frame(1)[:-1], 'checksum'),
    (frame(1, codec=codec_lib('float32')), 'another codec')])
def test_what_is_not_the_next_version_is_refused(record, sentence):
  with pytest.raises(wire.FrameError, match=sentence):
    RULES.followed(timeline(1), record)


def test_changes_and_placements_are_refused():
  begun = timeline(1)
  copy = Copy(RULES).follow(begun.way())
  digest = copy.digest
  for message in (begun.with_change(b'x', digest).way(0), begun.with_placement(b'x', digest).way(0)):
    with pytest.raises(PayloadError, match='sent whole'):
      copy.follow(message)
