"""A model's history in which every version is sent whole: a base is a frame of the downlink's codec, and there are no
changes.

A copy is the frame itself, not what it decodes to: decoders may differ in the last bits between runtimes, and the
digest of frames does not.
"""

import collections
import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec import random
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.timeline import history
from tff_compress.timeline.timeline import Timeline
from tff_compress.wire import frame as frame_lib

FLOAT32 = 'float32'
"""The codec of a downlink that says none."""


@dataclasses.dataclass(frozen=True)
class WholeRules:
  """What such a history's records do with a copy: `copy.Rules`.

  Attributes:
    fingerprint: 4 bytes of the downlink's codec and the model's spec.
  """
  fingerprint: bytes

  def from_base(self, xp: Ops, record: Array) -> Any:
    """The copy that a frame (uint8[n]) is: `round`, int32, is its version, and `frame` itself."""
    found = frame_lib.read_header(bytes(record))
    if found.fingerprint != self.fingerprint:
      raise frame_lib.FrameError('the frame was made with another codec or for another model.')
    if found.client != random.SHARED_CLIENT:
      raise frame_lib.FrameError('the frame is of a client, and not a model that the server sent.')
    if found.round >= 2**31:
      raise frame_lib.FrameError('the frame is of a version that no history reaches.')
    return collections.OrderedDict(round=np.int32(found.round), frame=np.frombuffer(bytes(record), np.uint8))

  def move(self, xp: Ops, copy: Any, record: Array) -> Any:
    raise PayloadError('a message has changes, where every version of the model is sent whole.')

  def place(self, xp: Ops, copy: Any, record: Array) -> Any:
    if record.size:
      raise PayloadError('a message has a placement, where every version of the model is sent whole.')
    return copy

  def content(self, xp: Ops, copy: Any) -> Array:
    return copy['frame']

  def from_content(self, xp: Ops, content: Array) -> Any:
    return self.from_base(xp, content)

  def digest(self, xp: Ops, copy: Any) -> Array:
    return history.digest_of(xp, np.frombuffer(self.fingerprint, np.uint8), copy['frame'])

  def followed(self, timeline: Timeline | None, record: bytes) -> Timeline:
    """The history that goes on with the next version, or begins with version 0, from a frame of it.

    Raises:
      FrameError: the frame is not of the next version of this model.
    """
    copy = self.from_base(numpy_ops, np.frombuffer(record, np.uint8))
    due = 0 if timeline is None else timeline.version + 1
    if int(copy['round']) != due:
      raise frame_lib.FrameError(f'the frame is of version {copy["round"]}, and version {due} is next.')
    digest = self.digest(numpy_ops, copy)
    if timeline is None:
      return Timeline.begin(record, bytes(digest))
    return timeline.followed_by(history.renewed(numpy_ops, timeline.state, np.frombuffer(record, np.uint8), digest))
