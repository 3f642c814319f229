"""What a process with memory is, whatever its clients remember."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.codec import checks
from tff_compress.processes import coins
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ClientRound
from tff_compress.runtime import compat
from tff_compress.timeline import history

MAX_CLIENT = (1 << 32) - 2
"""Largest number of a client."""

_NEVER = -1


class ClientStateProcess(tff.templates.IterativeProcess):
  """An iterative process whose clients remember.

      next(server_state@SERVER, client_data@CLIENTS, client_states@CLIENTS)
          -> (server_state, metrics, client_states@CLIENTS)

  With several workers the clients' results may come back in another order: a client's state says whose it is, in
  `client`.

  Attributes:
    client_state_type: TFF type of a client's state: `client`, its number; `seen`, the round in which it last took part,
      from 0, and -1 for never; `version` of its model, -1 for none; and as lists of one vector per dtype, with the
      variables one behind the other, `residual`, `velocity` and `model` where the process has them.
    fingerprint: 16 bytes that differ, nearly surely, where states do not fit: another model, codec or way to remember.
    get_model_weights, set_model_weights: computations as those of `tff.learning.templates.LearningProcess`. After
      the weights were set, every client's copy of the model is out of date.
    prepass: computation with the arguments and results of `next` by which clients learn before the rounds; None where
      there is no such.
    needs: `needs.Need`s, what a run must fulfil.
  """
  prepass = None

  def __init__(self, initialize: tff.Computation, next_fn: tff.Computation, *, client_state_type: tff.Type,
               fingerprint: bytes, get_model_weights: tff.Computation, set_model_weights: tff.Computation,
               needs: Sequence[Any] = (), on_files: Callable[[], tuple[Any, Any]] | None = None) -> None:
    super().__init__(initialize, next_fn, next_is_multi_arg=True)
    self.client_state_type, self.fingerprint = client_state_type, fingerprint
    self.get_model_weights, self.set_model_weights = get_model_weights, set_model_weights
    self.needs = needs
    self._on_files: Any = on_files

  @functools.cached_property
  def on_files(self):
    """(process, `memory.Files`): the same, but that TFF's workers read and write the slots of clients themselves."""
    return self._on_files()

  def initialize_client(self, client: int) -> collections.OrderedDict[str, Any]:
    """The state of a client that has not taken part yet.

    Args:
      client: its number, 0 … `MAX_CLIENT`; no two of a round may have the same.

    Raises:
      ProcessError: it is no such number.
    """
    client = checks.whole_number('client', client, ProcessError, least=0, most=MAX_CLIENT)
    nothing = lambda spec: b'' if spec.dtype == tf.string else np.zeros(spec.shape, spec.dtype.as_numpy_dtype)
    state = tf.nest.map_structure(nothing, compat.tensor_specs(self.client_state_type))
    return collections.OrderedDict(state, client=np.int64(client), seen=np.int32(_NEVER),
                                   version=np.int32(history.UNKNOWN))

  def knows(self, state: Any, memory: Mapping[str, Any]) -> bool:
    """Whether the server has all that it needs to decode messages of a client with this state."""
    del self, state, memory
    return True

  @property
  def client_state_bytes(self) -> int:
    """Size of one client's state."""
    specs = tf.nest.flatten(compat.tensor_specs(self.client_state_type))
    return sum(spec.shape.num_elements() * spec.dtype.size for spec in specs)


def missed_rounds(memory, round_number):
  """How many rounds the client missed since it last took part: int32 scalar, 0 if it never did."""
  return tf.where(memory['seen'] < 0, 0, tf.maximum(round_number - memory['seen'] - 1, 0))


def number_of(memory):
  """The client's number in frames and keys: int32 scalar with its 32 bits."""
  return tf.bitcast(memory['client'], tf.int32)[0]


def client_round(memory, round_number, published, seed):
  """The `ClientRound` of a client in a graph.

  Args:
    memory: the small fields of its state when the round began.
    round_number: int32 scalar.
    published: uint8[n], what the server sent beside the model.
    seed: session seed.
  """
  return ClientRound(missed_rounds(memory, round_number), round_number, published,
                     functools.partial(coins.coin_in_graph, seed, round_number))
