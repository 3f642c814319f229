"""What a device and a server say to each other, and the states that they go through. No I/O: docs/protocol.md.

Numbers that do not fit a double (the session's seed) and all bytes are hexadecimal texts. Every time is in seconds from
the answer on, as no clock is trusted.
"""

from collections.abc import Mapping
import dataclasses
import enum
from typing import ClassVar
from typing import TypeAlias

from tff_compress.codec.errors import CompressionError
from tff_compress.serving import messages
from tff_compress.serving.messages import field
from tff_compress.serving.messages import hexadecimal
from tff_compress.serving.messages import Message
from tff_compress.serving.messages import nested
from tff_compress.serving.messages import number
from tff_compress.serving.messages import optional
from tff_compress.serving.messages import pattern
from tff_compress.serving.messages import several
from tff_compress.serving.messages import text
from tff_compress.serving.messages import whole
from tff_compress.serving.messages import word

PATH = '/v1'

FRAME_TYPE = 'application/vnd.tff-compress.frame'
"""Media type of an upload. Its parameter `fingerprint` has the 8 digits of the plan's uplink, so that what is for
another model is refused before its body is read; `examples` says how many the update is made of, where the assignment
asks for it."""

MOST_EXAMPLES = 2**31 - 1

PROBLEMS = 'urn:tff-compress:problem:'
"""What types of problems (RFC 9457) begin with, but for those of the draft of resumable uploads."""

OFFSET_PROBLEM = 'https://iana.org/assignments/http-problem-types#mismatching-upload-offset'
COMPLETED_PROBLEM = 'https://iana.org/assignments/http-problem-types#completed-upload'

MOST_ROUNDS = 10**6
MOST_SECONDS = 30 * 86400.0


class ProtocolError(CompressionError):
  """A step that the protocol does not have."""


# Words.


class Outcome(enum.StrEnum):
  """What became of an upload. It never changes."""
  ACCEPTED = 'accepted'
  REJECTED = 'rejected'
  GOAL_REACHED = 'goal-reached'
  TOO_LATE = 'too-late'


class Rejection(enum.StrEnum):
  """Why an upload is rejected."""
  NOT_A_FRAME = 'not-a-frame'
  OTHER_MODEL = 'other-model'
  OTHER_ROUND = 'other-round'
  OTHER_CLIENT = 'other-client'
  UNREADABLE = 'unreadable'
  TOO_LARGE = 'norm-too-large'


class Refusal(enum.StrEnum):
  """Why a device cannot take part."""
  RUNTIME_TOO_OLD = 'runtime-too-old'
  TOO_LITTLE_MEMORY = 'too-little-memory'
  FINISHED = 'finished'


class Event(enum.StrEnum):
  """What a device reports."""
  FAILED = 'failed'
  ABORTED = 'aborted'
  OUT_OF_MEMORY = 'out-of-memory'
  MEASURED = 'measured'


class Weighting(enum.StrEnum):
  """How much an update counts in the mean of a round."""
  EXAMPLES = 'examples'
  UNIFORM = 'uniform'


MEANING: Mapping[enum.StrEnum, str] = {
    Weighting.EXAMPLES: 'as the number of examples on the device, which it says, up to a limit of the task',
    Weighting.UNIFORM: 'as every other; how many examples there are is not said',
    Outcome.ACCEPTED: 'it is counted, under the number in the receipt: commit the residual',
    Outcome.REJECTED: 'it is never counted, for the reason in the receipt',
    Outcome.GOAL_REACHED: 'the round had all that it needs',
    Outcome.TOO_LATE: 'the round ended at its deadline',
    Rejection.NOT_A_FRAME: 'magic, version, length or checksum are not those of a frame',
    Rejection.OTHER_MODEL: 'the fingerprint is of another codec or model',
    Rejection.OTHER_ROUND: 'the frame is of another round than the lease',
    Rejection.OTHER_CLIENT: 'the frame is of another client than the lease',
    Rejection.UNREADABLE: 'the payload cannot be decoded, or decodes to what is not finite',
    Rejection.TOO_LARGE: 'the L2 norm of the update is above the limit of the task',
    Refusal.RUNTIME_TOO_OLD: 'the plan needs a newer TensorFlow Lite',
    Refusal.TOO_LITTLE_MEMORY: 'the plan needs more memory than the device has free',
    Refusal.FINISHED: 'the task has had all of its rounds',
    Event.FAILED: 'training or encoding failed; the lease is given back',
    Event.ABORTED: 'the device stopped by itself, such as off its charger; the lease is given back',
    Event.OUT_OF_MEMORY: 'the same, for want of memory',
    Event.MEASURED: 'nothing went wrong; the figures are those of a round',
}


# States.


@dataclasses.dataclass(frozen=True)
class Machine:
  """States and the events that lead from one to the next.

  Attributes:
    name: of what goes through them.
    states: {state: what it means}; the first is where it begins.
    steps: {(state, event): next state}; every other pair is an error.
  """
  name: str
  states: Mapping[str, str]
  steps: Mapping[tuple[str, str], str]

  def after(self, state: str, event: str) -> str:
    """The next state. Raises ProtocolError where there is none."""
    if (state, event) not in self.steps:
      raise ProtocolError(f'a {self.name} that is {state} knows no {event}.')
    return self.steps[state, event]

  @property
  def start(self) -> str:
    return next(iter(self.states))

  @property
  def final(self) -> frozenset[str]:
    """States that nothing leads out of."""
    return frozenset(self.states) - {state for state, _ in self.steps}


TASK = Machine('task', {
    'running': 'one of its rounds is under way',
    'finished': 'every round is committed',
}, {
    ('running', 'commit'): 'running',
    ('running', 'last commit'): 'finished',
})

ROUND = Machine('round', {
    'collecting': 'uploads are accepted',
    'closed': 'the list of accepted frames is final; nothing more is accepted',
    'committed': 'the next version of the model is made of it',
}, {
    ('collecting', 'accept'): 'collecting',
    ('collecting', 'extend'): 'collecting',
    ('collecting', 'goal'): 'closed',
    ('collecting', 'deadline'): 'closed',
    ('closed', 'commit'): 'committed',
})

LEASE = Machine('lease', {
    'held': 'a device has an assignment; asked again, it gets the same one',
    'expired': 'the time is over, and another device may get an assignment; an upload still counts while the round '
               'collects',
    'given back': 'the device reported that it will send nothing',
    'used': 'there is a receipt',
}, {
    ('held', 'expire'): 'expired',
    ('held', 'report'): 'given back',
    ('held', 'receipt'): 'used',
    ('expired', 'check in'): 'held',
    ('expired', 'report'): 'given back',
    ('expired', 'receipt'): 'used',
    ('used', 'receipt'): 'used',
    ('used', 'report'): 'used',
    ('given back', 'receipt'): 'used',
    ('given back', 'report'): 'given back',
})

UPLOAD = Machine('upload', {
    'none': 'nothing was sent',
    'partial': 'some bytes are there: HEAD says how many',
    'complete': 'all bytes are there, and not yet judged',
    'decided': 'there is a receipt, which never changes',
}, {
    ('none', 'part'): 'partial',
    ('none', 'last part'): 'complete',
    ('partial', 'part'): 'partial',
    ('partial', 'last part'): 'complete',
    ('partial', 'begin anew'): 'none',
    ('complete', 'decide'): 'decided',
    ('decided', 'last part'): 'decided',
    ('decided', 'begin anew'): 'decided',
})

MACHINES = (TASK, ROUND, LEASE, UPLOAD)


# Messages.

SECRET = pattern(r'[A-Za-z0-9_-]{22,64}', 'a secret of 22 to 64 letters, digits, - and _')
IDENTITY = pattern(r'[0-9a-f]{16,32}', '16 to 32 hexadecimal digits')
ROUNDS = whole(1, MOST_ROUNDS)
CLIENT = whole(0, 2**32 - 2)
SHA256 = hexadecimal(64)
SECONDS = number(0.0, MOST_SECONDS)
BYTES = whole(0, 2**40)


@dataclasses.dataclass(frozen=True)
class Enrolment(Message):
  """A device asks to be let in."""
  code: str = field(pattern('[A-Za-z0-9-]{4,64}', '4 to 64 letters, digits and -'), 'what the operator gave out')


@dataclasses.dataclass(frozen=True)
class Renewal(Message):
  """A device trades its refresh token for new tokens. An old one that is used again revokes all of its device."""
  refresh: str = field(SECRET, 'the newest refresh token')


@dataclasses.dataclass(frozen=True)
class Tokens(Message):
  """What a device shows from now on."""
  device: str = field(IDENTITY, 'its number')
  access: str = field(SECRET, 'for `Authorization: Bearer`')
  refresh: str = field(SECRET, 'for the next tokens')
  seconds: float = field(SECONDS, 'how long the access token is good')


@dataclasses.dataclass(frozen=True)
class CheckIn(Message):
  """A device has time."""
  runtime: str = field(pattern(r'[0-9]{1,4}(\.[0-9]{1,6}){1,3}', 'a version such as 2.14.0'),
                       'the version of TensorFlow Lite that it has')
  plan: str | None = field(optional(SHA256), 'the manifest that it holds', default=None)
  version: int = field(whole(-1, 2**31 - 1), 'the version of the model that it holds; -1: none', default=-1)
  digest: str | None = field(optional(hexadecimal(8)), 'the digest of that version', default=None)
  memory: int | None = field(optional(BYTES), 'free bytes', default=None)


@dataclasses.dataclass(frozen=True)
class Item(Message):
  """Something to fetch."""
  role: str = field(text(40), '`plan`, a role of the plan\'s files such as `training`, or `model`')
  sha256: str = field(SHA256, 'for `/v1/blobs/`')
  bytes: int = field(BYTES, 'its length')


@dataclasses.dataclass(frozen=True)
class Assignment(Message):
  """Train, and send the update."""
  kind: ClassVar[str] = 'assignment'
  task: str = field(IDENTITY, 'the task')
  round: int = field(ROUNDS, "the round: of the frame's header, and of the keys")
  client: int = field(CLIENT, "the device's number in this round: of the same")
  seed: str = field(hexadecimal(16), "the session's seed, of the keys")
  plan: str = field(SHA256, 'the manifest')
  version: int = field(whole(0, 2**31 - 1), 'the version of the model to train from')
  fetch: tuple[Item, ...] = field(several(nested(Item), 16), 'what to fetch: the files of the plan, and `model`, the '
                                  'message that leads from the version held to this one')
  fingerprint: str = field(hexadecimal(8), 'of the uplink')
  epochs: int = field(whole(1, 10**4), 'passes over the examples')
  weighting: Weighting = field(word(Weighting), 'how much the update counts')
  lease: str = field(SECRET, 'the right to send one update')
  seconds: float = field(SECONDS, 'how long the lease is held')
  upload: str = field(pattern(r'/v1/uploads/[A-Za-z0-9_-]{22,64}', 'a path under `/v1/uploads/`'),
                      'where to send the frame')
  learning_rate: float | None = field(optional(number(0.0, 1e6)), "of training; null: the plan's", default=None)


@dataclasses.dataclass(frozen=True)
class ComeBack(Message):
  """There is nothing to do now. The device draws a time between the two, all alike."""
  kind: ClassVar[str] = 'come-back'
  not_before: float = field(SECONDS, 'seconds from now')
  not_after: float = field(SECONDS, 'seconds from now')


@dataclasses.dataclass(frozen=True)
class CannotTakePart(Message):
  """There will be nothing to do for this device."""
  kind: ClassVar[str] = 'cannot-take-part'
  reason: Refusal = field(word(Refusal), 'from a closed list')


Answer: TypeAlias = Assignment | ComeBack | CannotTakePart

ANSWERS: tuple[type[Answer], ...] = (Assignment, ComeBack, CannotTakePart)
"""To a check-in."""


@dataclasses.dataclass(frozen=True)
class Receipt(Message):
  """What became of an upload; the same for ever."""
  task: str = field(IDENTITY, 'the task')
  round: int = field(ROUNDS, 'the round')
  client: int = field(CLIENT, "the device's number in it")
  outcome: Outcome = field(word(Outcome), 'from a closed list')
  reason: Rejection | None = field(optional(word(Rejection)), 'of a rejection')
  number: int | None = field(optional(whole(1, 2**31 - 1)), 'of an accepted one: its place in the order of the sum')
  sha256: str = field(SHA256, 'of what was sent')


@dataclasses.dataclass(frozen=True)
class Report(Message):
  """How it went, with figures where there are some."""
  event: Event = field(word(Event), 'from a closed list')
  lease: str | None = field(optional(SECRET), 'of the assignment that it is about', default=None)
  loss: float | None = field(optional(number(-1e30, 1e30)), 'mean loss of the last pass', default=None)
  examples: int | None = field(optional(whole(0, 2**40)), 'examples on the device', default=None)
  seconds: float | None = field(optional(SECONDS), 'of training and encoding', default=None)
  down: int | None = field(optional(BYTES), 'bytes received for this round', default=None)
  up: int | None = field(optional(BYTES), 'bytes of the frame', default=None)


@dataclasses.dataclass(frozen=True)
class Problem(Message):
  """An error: RFC 9457, `application/problem+json`."""
  type: str = field(text(200), 'which one')
  title: str = field(text(1000), 'a sentence')
  status: int = field(whole(400, 599), 'the status of the answer')


MESSAGES: tuple[type[Message], ...] = (
    Enrolment, Renewal, Tokens, CheckIn, Item, Assignment, ComeBack, CannotTakePart, Receipt, Report, Problem)


def answer(data: bytes) -> Answer:
  """The answer to a check-in in bytes of JSON. Raises MessageError."""
  value = messages.parse(data)
  for kind in ANSWERS:
    if isinstance(value, dict) and value.get('kind') == kind.kind:
      return kind.of(value)
  raise messages.MessageError('the answer to a check-in is of a kind that this release does not know.')


def newer(version: str, than: str) -> bool:
  """Whether a version such as '2.14.0' is after another."""
  def parts(text: str) -> list[int]:
    found = [int(part) for part in text.split('.')]
    return found + [0] * (4 - len(found))
  return parts(version) > parts(than)
