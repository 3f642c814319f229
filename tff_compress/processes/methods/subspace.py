"""A subspace that clients and server share, both ways."""

import dataclasses
import fractions
from typing import Any
from typing import ClassVar

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import meaning
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.figures import Figure
from tff_compress.processes.figures import Total
from tff_compress.processes.methods import Method
from tff_compress.subspace import levels
from tff_compress.subspace.coordinates import UNIT
from tff_compress.subspace.rate import Rate
from tff_compress.timeline.start import Start

KEPT = Figure(
    'kept', 'Coordinates that every message of the round holds, of all that the model has.',
    place=('aggregator', 'kept'), heading='coordinates',
    total=Total('coordinates', 143, 'Coordinates that every message of the last round holds.',
                'coordinates are those in a message of the last round: with auto, more of them the more training moved '
                'the model in the last block', last=True, scale=1.0))
NOISE = Figure(
    'noise', "Energy of the noise that compression put into the weights so far, in units of the first weights' energy.",
    place=('aggregator', 'noise'),
    total=Total('noise', 145, "Energy of the noise of compression in the weights, in units of the first weights'.",
                "noise is the energy that compression put into the weights, in units of the first weights'", last=True,
                scale=1.0))
GAP = Figure('gap', 'Rounds that clients missed, a moving average of means over the clients of a round.',
             place=('aggregator', 'gap'))
GROWTH = Figure('growth', "Energy of the weights, in units of the first weights' energy.",
                place=('aggregator', 'growth'))
ALARMED = Figure(
    'alarm', 'Whether training is about to diverge: a round moved the weights, or all rounds made them grow, by many '
    "times the first weights' energy (`subspace.rate.LARGEST_ROUNDS`, `ALARM`).", place=('aggregator', 'alarm'),
    stops='it moves the weights by so much more than they were at first as the noise of compression does when it '
    'outgrows training: keep more coordinates, or lower the learning rate')


@dataclasses.dataclass(frozen=True)
class Subspace(Method):
  """Updates, their mean and the model's changes are sent in the same few coordinates: two rotations and a choice of
  places that follow from the key of a round, and are held for as many rounds as clients are away. A client that was
  away receives one change for each time that they were held.

  Attributes:
    rate: share of the coordinates that is kept, at least 512 of them.
    up, down: bits per coordinate from and to the clients, 1 … 4; 0: 1 while clients miss fewer than 4 rounds on
      average, then 2.
    hold: rounds that coordinates are held for; 0: as many as clients miss on average, at most 25.
    start: codec of the first model; '' for int8, or for weights from a seed where a run makes them.
    key_frames: codec of whole models for clients that were away for long, or none: changes fill 256 MiB then, at most.
  """
  name: ClassVar[str] = 'subspace'
  summary: ClassVar[str] = 'a few coordinates that all share, both ways; absent clients receive the changes they missed'
  source: ClassVar[str] = 'EDEN (Vargaftik et al. 2022) on the coordinates of Konecny et al. 2016, both ways'
  page: ClassVar[str] = 'methods/subspace.md'
  memory: ClassVar[str] = 'server'
  downlink: ClassVar[str] = 'subspace'
  both_ways: ClassVar[bool] = True
  figures: ClassVar[tuple[Figure, ...]] = (KEPT, GAP, NOISE, GROWTH, ALARMED)
  examples: ClassVar[tuple] = ('', 'rate=1/20,key_frames=none,start=float32', 'rate=1/10,up=3,down=3,hold=1')

  rate: fractions.Fraction = fractions.Fraction(1, 50)
  up: int = 0
  down: int = 0
  hold: int = 0
  start: str = ''
  key_frames: str = 'int8'

  def check(self):
    for name in ('up', 'down'):
      checks.whole_number(f'{self.name}: {name}', getattr(self, name), ProcessError, least=0, most=levels.MOST_BITS)
    checks.whole_number(f'{self.name}: hold', self.hold, ProcessError, least=0, most=10**6)
    if not 0 < self.rate <= 1:
      raise ProcessError(f'{self.name}: rate must be above 0 and at most 1, not {self.rate}.')
    for name, none in (('start', ''), ('key_frames', 'none')):
      text = getattr(self, name)
      if text != none:
        meaning.of_whole_models(text, f'give {self.name} another {name}')

  @property
  def rule(self) -> Rate:
    """The rule for k."""
    return Rate(noise=None, first=float(self.rate))

  @property
  def uplink(self):
    return (f'concat | hadamard:rotations=2 | subsample:{self.rate} | hadamard:key=client,block={UNIT} | '
            f'eden:bits={self.up or 1} | pack')

  def other_arguments(self, model):
    return {'rate': self.rule, 'uplink_bits': self.up or None, 'downlink_bits': self.down or None,
            'hold': self.hold or None,
            'start': codec_lib(self.start or 'int8'),
            'key_frames': None if self.key_frames == 'none' else codec_lib(self.key_frames)}

  def arguments_of_start(self, start: Start, model: Any) -> dict[str, Any]:
    del model
    return {} if self.start else {'start': start}

  def build(self, model_fn, *, uplink=None, error_feedback=None, **arguments):
    """As `Method.build`; uplink and error feedback follow from the method itself."""
    del uplink, error_feedback
    from tff_compress.processes.subspace.build import build_subspace_fed_avg
    return build_subspace_fed_avg(model_fn, **arguments)
