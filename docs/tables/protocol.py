"""The protocol of real devices."""

import dataclasses

from docs.tables import code
from docs.tables import Table
from tff_compress.serving import protocol

_MACHINES = {machine.name: machine for machine in protocol.MACHINES}
_WORDS = {'outcomes': protocol.Outcome, 'rejections': protocol.Rejection, 'refusals': protocol.Refusal,
          'events': protocol.Event, 'weightings': protocol.Weighting}


def messages():
  """Every message, with a table of its fields."""
  parts = []
  for message in protocol.MESSAGES:
    kind = f' Its `kind` is `{message.kind}`.' if message.kind else ''
    rows = [f'| `{item.name}` | {item.metadata["kind"].text} | {item.metadata["text"]} |'
            for item in dataclasses.fields(message)]
    parts.append('\n'.join([f'**{message.__name__}.** {message.__doc__}{kind}', '', '| field | value | what it is |',
                            '|---|---|---|', *rows]))
  return '\n\n'.join(parts) + '\n'


def words(which):
  """A closed list of words: outcomes, rejections, refusals, events or weightings."""
  return Table(('word', 'meaning'), [(code(str(word)), protocol.MEANING[word]) for word in _WORDS[which]])


def states(name):
  """The states of a task, round, lease or upload, and the events that each knows."""
  machine = _MACHINES[name]
  rows = [(state, meaning, '; '.join(f'{event} → {after}' for (before, event), after in machine.steps.items()
                                     if before == state) or 'final') for state, meaning in machine.states.items()]
  return Table(('state', 'meaning', 'event → next state'), rows)
