"""What the parts of a process must be able to do: one protocol for each kind of option of `build_fed_avg`.

    option                        protocol        who has it
    error_feedback                ClientMemory    `ErrorFeedback`
    server                        ServerMemory    `FetchSgd`, `PowerSgd`
    both, the same                JointMemory     `Ef21`, `Marina`
    structured                    Confinement     `Structured`, `FederatedDropout`
    relevance                     UploadRule      `Relevance`

A class that is given for an option inherits from its protocol, and so gets what the protocol has to say where nothing
else is said. Options are frozen dataclasses: their fields are their settings, and their `repr` is a part of a process's
fingerprint, so that states of other settings are refused.

Functions that take `xp` are written over the operation table of `tff_compress.codec.ops`, and work in NumPy as in a
graph; all others are called while a graph is built.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar
from typing import Protocol
from typing import runtime_checkable

from tff_compress.codec.spec import Spec
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.processes.needs import Need


@dataclasses.dataclass(frozen=True)
class ClientRound:
  """A round as the client sees it that takes part.

  Attributes:
    missed: int32 scalar, rounds since the client last took part, those two not counted; 0 if it never did.
    number: int32 scalar, the round's number, from 0.
    published: uint8[n], what the server published in this round beside the model (`ServerFunctions.publish`).
    coin: function of a probability that gives a boolean scalar, True with that probability: of one round the same for
      all clients and for the server (`coins.coin`), independent of other rounds.
  """
  missed: Array
  number: Array | None = None
  published: Array | None = None
  coin: Callable[[float], Array] | None = None


@runtime_checkable
class ClientMemory(Protocol):
  """What a client remembers of its updates between rounds, and what it sends in the place of an update.

  A memory is {slot: list of float32 arrays of the update's shapes}, of zeros before a client takes part for the first
  time. Of a client without examples, or whose update is not finite, it stays as it is. With u the update (the weights
  before training less those after), a round is

      memory = accumulate(memory, u)
      send encode(signal(memory, u))                                   unless a rule says to keep it back
      memory = settle(memory, u, decode(what was sent))                only where it was sent

  Attributes:
    slots: names of what is remembered, each of the update's shapes.
    run_settings: those of 'decay', 'drop_after' and 'momentum' that a run may set, which are fields of the dataclass.
    conflicts: {other option of `build_fed_avg`, or 'changes': a sentence that says why both at once make no sense}.
    needs: what a run must fulfil for it to be what it is.
  """
  run_settings: ClassVar[tuple[str, ...]] = ()
  conflicts: ClassVar[Mapping[str, str]] = {}
  needs: ClassVar[tuple[Need, ...]] = ()

  @property
  def slots(self) -> tuple[str, ...]:
    ...

  def accumulate(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array],
                 turn: ClientRound) -> Mapping[str, Sequence[Array]]:
    """The memory with the update in it, of the same slots: what to keep if nothing is sent."""
    del xp, update, turn
    return memory

  def signal(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array],
             turn: ClientRound) -> Sequence[Array]:
    """What is encoded: list of arrays of the update's shapes; `memory` is what `accumulate` gave."""
    ...

  def settle(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array], decoded: Sequence[Array],
             turn: ClientRound) -> Mapping[str, Sequence[Array]]:
    """What to keep after a message was sent, of the same slots: `memory` is what `accumulate` gave, `decoded` what the
    server decodes."""
    ...


@runtime_checkable
class ServerMemory(Protocol):
  """What the server remembers of the updates.

  Attributes:
    conflicts, needs: as for `ClientMemory`.
  """
  needs: ClassVar[tuple[Need, ...]] = ()
  conflicts: ClassVar[Mapping[str, str]] = {'structured': 'structured updates are sent as they are trained: leave '
                                                          'structured or server out.'}

  def build(self, steps: Sequence[tuple[int, Any]], spec: Spec, seed: int) -> ServerFunctions:
    """What server and clients compute.

    Args:
      steps: the uplink, ((first round, `Codec`), …) as `steps.schedule` gives it.
      spec: `Spec` of the update.
      seed: session seed.

    Raises:
      ProcessError, CodecError: the uplink or the model is not such that it can.
    """
    ...


@runtime_checkable
class JointMemory(ServerMemory, ClientMemory, Protocol):
  """What clients and server remember together, so that neither makes sense alone: the same one is given as
  `error_feedback` and as `server`."""


class ServerFunctions(Protocol):
  """What server and clients compute where the server remembers.

  What is not said otherwise is as without a memory: nothing is published, messages are those of `messages`, and `step`
  is given their decoded mean.

  Attributes:
    messages: `MessageFunctions` of the uplink, or another object with its `prefix_types`, `encode`, `decode`,
      `decode_to_prefixes` and `decode_prefixes`, such as `up.messages.messages` or `up.messages.ChosenMessages` makes.
  """
  messages: Any

  def initial(self) -> Mapping[str, Any]:
    """OrderedDict of tensors, or of structures of such: what the server remembers before the first round."""
    ...

  def step(self, state: Mapping[str, Any], mean: Sequence[Array],
           round_number: Array) -> tuple[Mapping[str, Any], Sequence[Array]]:
    """(state after a round, what the server's optimizer moves the model by: list of tensors of the update's shapes).

    Args:
      state: as `initial` gives it.
      mean: what `mean` gave.
      round_number: int32 scalar.
    """
    ...

  def mean(self, total: Any, accumulator: Mapping[str, Any], round_number: Array) -> Sequence[Array]:
    """What `step` is given of a round: by default the weighted mean of what the messages decode to, tensors in the
    order, shapes and dtypes of the spec; 0 where nobody sent.

    Args:
      total: `FrameSum`; `total.prefixes_mean` is the mean before the codec's linear part is undone.
      accumulator: as `FrameSum.zero` describes it.
      round_number: int32 scalar.
    """
    return total.mean(accumulator, self.message_round(round_number))

  def mean_of_all(self, total: Any, accumulator: Mapping[str, Any], round_number: Array) -> Sequence[Array]:
    """Another `mean`, where all clients weigh the same: that over all of the round, of which those that sent nothing
    count with 0. So sums of clients and server stay the same where a client fails."""
    import tensorflow as tf
    share = tf.cast(accumulator['sent'], tf.float32) / tf.cast(accumulator['clients'], tf.float32)
    return [share * x for x in total.mean(accumulator, self.message_round(round_number))]

  def message_round(self, round_number: Array) -> Array:
    """The round whose number, and whose keys, the messages of a round have: int32 scalar."""
    return round_number

  def publish(self, state: Mapping[str, Any], round_number: Array) -> Array:
    """uint8[n], what all clients receive in a round beside the model; its bytes count as downlink."""
    import tensorflow as tf
    del state, round_number
    return tf.zeros([0], tf.uint8)

  def encode(self, arrays: Sequence[Array], published: Array, round_number: Array, client: Array) -> Array:
    """uint8[n], a client's frame.

    Args:
      arrays: what `ClientMemory.signal` gave, or the update: list of tensors in the order of the spec.
      published: what `publish` gave in this round.
      round_number, client: int32 scalars.
    """
    del published
    return self.messages.encode(arrays, self.message_round(round_number), client)

  def decode(self, frame: Array, published: Array) -> Sequence[Array]:
    """What a frame by itself decodes to: list of tensors in the order and shapes of the spec."""
    del published
    return self.messages.decode(frame)


@runtime_checkable
class Confinement(Protocol):
  """What confines the training of clients to a part of the model.

  Attributes:
    conflicts: as for `ClientMemory`.
    own_downlink: whether clients receive their part alone: the downlink is then the codec of its variables.
  """
  conflicts: ClassVar[Mapping[str, str]] = {}
  own_downlink: ClassVar[bool] = False

  def confine(self, spec: Spec, trainable: int, steps: Sequence[tuple[int, Any]], downlink: Any,
              seed: int) -> ConfinedTraining:
    """What server and clients compute.

    Args:
      spec: `Spec` of all variables, the trainable ones first.
      trainable: number of trainable variables.
      steps: the uplink, as for `ServerMemory.build`.
      downlink: `Codec` of the downlink.
      seed: session seed.

    Raises:
      ProcessError, CodecError: the uplink or the model is not such that it can.
    """
    ...


class ConfinedTraining(Protocol):
  """What server and clients compute where training is confined.

  Attributes:
    messages: of the uplink, as for `ServerFunctions`.
    coverage: where frames hold some of the coordinates and each is averaged over those that hold it: function of a
      frame that gives vectors such as `messages.decode_to_prefixes` gives, 1 for what it holds and 0 elsewhere. None:
      the mean is one over all frames.
    download: with `Confinement.own_downlink`, function of (list of the model's tensors, round number, client) that
      gives (what the client receives, list of the same shapes; number of bytes, int64 scalar).
  """
  messages: Any
  coverage: Callable[[Array], Sequence[Array]] | None = None
  download: Callable[..., tuple[Sequence[Array], Array]] | None = None

  def optimizer(self, optimizer: Any, round_number: Array, client: Array) -> Any:
    """The `tff.learning.optimizers.Optimizer` of a client, around another one."""
    ...

  def signal(self, update: Sequence[Array]) -> Sequence[Array]:
    """What is encoded of an update: list of tensors of its shapes."""
    return update


@runtime_checkable
class UploadRule(Protocol):
  """What says which clients upload. A client that never took part always does.

  Attributes:
    conflicts: as for `ClientMemory`.
  """
  conflicts: ClassVar[Mapping[str, str]] = {}

  def holds(self, xp: Ops, update: Sequence[Array], before: Sequence[Array], now: Sequence[Array],
            round_number: Array) -> Array:
    """Whether a client uploads: boolean scalar.

    Args:
      update: list of arrays, by how much training changed the client's weights.
      before, now: lists of arrays, the trainable weights when the client last took part, and now.
      round_number: int32 scalar, from 0.
    """
    ...
