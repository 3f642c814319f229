"""Processes with a pre-pass."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_federated as tff

from tff_compress.processes.process import ClientStateProcess


class AutoencoderProcess(ClientStateProcess):
  """A `ClientStateProcess` with a pre-pass.

  Attributes:
    prepass: computation with the arguments and results of `next`. Clients train alone, learn from what they saw, and
      send their decoders; the model stays as it is. May be run again later, for all clients or some: their new decoders
      replace the old ones.
    decoder_bytes: length of the frame with a client's decoder.
  """

  def __init__(self, *args: Any, prepass: tff.Computation, decoder_bytes: int, **kwargs: Any) -> None:
    super().__init__(*args, **kwargs)
    self.prepass, self.decoder_bytes = prepass, decoder_bytes

  def knows(self, state: Any, memory: Mapping[str, Any]) -> bool:
    """Whether the server has the decoder of the autoencoder in a client's state, or that has none."""
    if memory['learned'] != memory['client'] + 1:
      return True
    book = state.aggregator['book']
    rows = np.asarray(book['rows'])[np.asarray(book['clients']) == memory['client']]
    return any(np.asarray(book['frames'])[row, -4:].tobytes() == np.int32(memory['decoder']).tobytes() for row in rows)
