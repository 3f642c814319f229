"""What a session in NumPy takes keys and models from."""

import dataclasses

import numpy as np

from tff_compress import wire
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import Spec
from tff_compress.codec.table import Array
from tff_compress.codec.table import Scalar
from tff_compress.subspace.session import KEY_FRAME
from tff_compress.timeline.start import Start


@dataclasses.dataclass(frozen=True)
class NumpyRuntime:
  """`session.Runtime` in NumPy.

  Attributes:
    spec: `Spec` of the model's variables, of float32.
    seed: session seed.
    key_frames, first: `Codec` of key frames, and of a first model.
  """
  spec: Spec
  seed: int
  key_frames: Codec
  first: Codec

  def keys(self, round: Scalar, client: Scalar) -> MessageKeys:
    return MessageKeys(self.seed, int(round) & 0xFFFFFFFF, int(client) & 0xFFFFFFFF)

  def draw(self, start: Array) -> Array:
    return Start.from_bytes(np.asarray(start, np.uint8).tobytes(), self.spec).vector(self.spec)

  def encode_model(self, model: Array, round: Scalar, kind: int) -> Array:
    arrays = self.spec.split(numpy_ops, np.asarray(model, np.float32))
    update = {tensor.name: array for tensor, array in zip(self.spec.tensors, arrays)}
    frame = wire.pack(self._codec(kind), update, seed=self.seed, round=int(round), client=random.SHARED_CLIENT)
    return np.frombuffer(frame, np.uint8)

  def decode_model(self, frame: Array, kind: int) -> Array:
    update, _ = wire.unpack(self._codec(kind), np.asarray(frame, np.uint8).tobytes(), self.spec, seed=self.seed,
                            client=random.SHARED_CLIENT)
    return self.spec.join(numpy_ops, (update[tensor.name] for tensor in self.spec.tensors))

  def _codec(self, kind: int) -> Codec:
    return self.key_frames if kind == KEY_FRAME else self.first
