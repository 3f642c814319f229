"""What a pre-pass costs, in which clients learn before the first round, and again where it is due."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

from tff_compress.processes.figures import Figure
from tff_compress.processes.figures import Total

_SENT = Total(
    'MB pre-pass', 120, 'What clients sent and received to learn, which MB up, down and both and × have in them and '
    'bits have not. The page lists it by round.',
    'MB pre-pass is what clients sent and received to learn, which MB up, down and both and × have in them and bits '
    'have not')

FIGURES = (
    Figure('prepass_clients', 'Clients that learned in a pre-pass before the round.', heading='learned before'),
    Figure('prepass_uplink_bytes', 'Bytes that they sent for it.', sent='uplink', heading='bytes up for it',
           total=_SENT),
    Figure('prepass_downlink_bytes', 'Bytes that they received for it.', sent='downlink', heading='bytes down for it',
           total=_SENT),
    Figure('prepass_seconds', 'How long it took.'),
)
"""Of the pre-pass before a round, over all clients that learned; 0 where there was none."""


def nothing() -> dict[str, float]:
  """The `FIGURES` of no pre-pass."""
  return dict.fromkeys((figure.name for figure in FIGURES), 0)


def costs(figures: Mapping[str, float], size: Callable[[float], str]) -> str:
  """'3.1 MB up, 12 MB down, 41 s'.

  Args:
    figures: {name: value} of `FIGURES`, of one pre-pass or of several together.
    size: makes a text of a number of bytes.
  """
  return (f'{size(figures["prepass_uplink_bytes"])} up, {size(figures["prepass_downlink_bytes"])} down, '
          f'{figures["prepass_seconds"]:.0f} s')


def progress(figures: Mapping[str, float], clients: int, size: Callable[[float], str]) -> str:
  """'5 of 10 clients learned', and in the end what it cost; arguments as for `costs`, and how many will learn."""
  learned = f'{figures["prepass_clients"]} of {clients} clients learned'
  return learned if figures['prepass_clients'] < clients else f'{learned}, {costs(figures, size)}'
