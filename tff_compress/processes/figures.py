"""What a method measures in a round beyond what every method does: declared once, by the method, as its `figures`.

Training, `result.json`, the table and the page of a report and lines of progress go by these declarations, and know no
figure by its name; docs/adding-a-column.md has an example. Imports no methods and no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Total:
  """A column of the table that ends runs, of what figures add up to in a run; figures with the same one share it.

  Attributes:
    title: above it.
    position: where it stands; `tff_compress.simulation.report.columns` has the others, of which × both has 110 and
      s/round 150.
    meaning: what it shows, in words.
    sentence: what the caption below the table says of it, as there.
    share: whether it is the percentage of the clients of all rounds.
    last: whether it is what the last round has, and not the sum over rounds.
    scale: what it is divided by to be shown: 1e6 for megabytes.
  """
  title: str
  position: int
  meaning: str
  sentence: str = ''
  share: bool = False
  last: bool = False
  scale: float = 1e6


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number of a round.

  Attributes:
    name: in `result.json` and wherever else a round is a dict.
    meaning: what it says, in words.
    place: keys that lead to it in the metrics of the round; () where it is said of what came before the round, as by a
      pre-pass, and is 0 where nothing did.
    sent: 'uplink' or 'downlink' where these are bytes beside the messages of the round: they count in all totals.
    asks: whether a value other than 0 asks for a pre-pass before the next round.
    stops: what is wrong where the value is not 0, words to follow "training diverged in round 3: "; a run then stops.
    remark: what the line of a round says where the value is not 0, such as '{value} of {clients} clients are late'.
    heading: above it in the page's table of rounds; '' where it is not there.
    total: what it is in the table that ends runs; None where it is not there.
    total_name: of the total in `--json`; that of the figure by default.
  """
  name: str
  meaning: str
  place: tuple[str, ...] = ()
  sent: str = ''
  asks: bool = False
  stops: str = ''
  remark: str = ''
  heading: str = ''
  total: Total | None = None
  total_name: str = ''

  def read(self, metrics: Mapping[str, Any]) -> int | float:
    """Its value in the metrics of a round. Raises KeyError where `place` is not in them."""
    found: Any = metrics
    for key in self.place:
      found = found[key]
    value = np.asarray(found).item()
    return int(value) if isinstance(value, bool) else value


CLIENT_STATES = Figure(
    'client_states_bytes', 'Bytes that are stored of what clients remember, without copies for checkpoints.',
    place=('client_states', 'bytes'),
    total=Total('MB kept', 140, 'What is stored of what clients remember, in the end, over all clients that took part.',
                'MB kept is what is stored of what clients remember, in the end', last=True))
"""Of every process whose clients remember, whatever the method."""


def remarks(figures: Iterable[Figure], entry: Mapping[str, Any]) -> list[str]:
  """What the line of a round says of the figures in it.

  Args:
    figures: those that there may be.
    entry: the round, a dict with `clients`.
  """
  return [figure.remark.format(value=entry[figure.name], clients=entry['clients']) for figure in figures
          if figure.remark and entry.get(figure.name)]


def sent(figures: Iterable[Figure], direction: str, entry: Mapping[str, Any]) -> int:
  """Bytes that went in a direction beside the messages of a round."""
  return sum(entry.get(figure.name, 0) for figure in figures if figure.sent == direction)
