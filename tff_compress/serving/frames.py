"""What an upload must be before it is counted."""

import dataclasses
import functools

import numpy as np

from tff_compress import wire
from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.spec import Spec
from tff_compress.serving.protocol import Rejection


@dataclasses.dataclass(frozen=True)
class Rules:
  """What the frames of a task are.

  Attributes:
    codec: of the uplink.
    spec: of the model's variables.
    seed: the session's.
    norm: largest L2 norm of an update; None: any.
  """
  codec: Codec
  spec: Spec
  seed: int
  norm: float | None = None

  @functools.cached_property
  def fingerprint(self) -> str:
    """8 hexadecimal digits."""
    return self.codec.fingerprint(self.spec).hex()

  @functools.cached_property
  def largest(self) -> int:
    """Bytes of the longest frame: that of the codec where its length is fixed. An entropy coder makes no more of an
    update than twice what it is uncompressed."""
    size = self.codec.plan(self.spec).payload_size
    return wire.FRAME_OVERHEAD + (2 * self.spec.uncompressed_bytes + (1 << 16) if size is None else size)

  def decode(self, frame: bytes, round: int, client: int) -> dict[str, np.ndarray]:
    """{variable: array} of a frame that `judge` has nothing against. Raises PayloadError for others."""
    return wire.unpack(self.codec, frame, self.spec, seed=self.seed, round=round, client=client)[0]

  def judge(self, data: bytes, round: int, client: int) -> Rejection | None:
    """Why an upload is not accepted; None where nothing is wrong with it.

    Args:
      data: bytes, of any content.
      round, client: of the lease that it was sent for.
    """
    try:
      found = wire.read_header(data)
    except wire.FrameError:
      return Rejection.NOT_A_FRAME
    if found.fingerprint.hex() != self.fingerprint:
      return Rejection.OTHER_MODEL
    if found.round != round:
      return Rejection.OTHER_ROUND
    if found.client != client:
      return Rejection.OTHER_CLIENT
    try:
      update = self.decode(data, round, client)  # Refuses what is not finite.
    except PayloadError:
      return Rejection.UNREADABLE
    if self.norm is not None:
      squares = sum(float(np.sum(np.square(array, dtype=np.float64))) for array in update.values())
      if not squares <= self.norm**2:
        return Rejection.TOO_LARGE
    return None
