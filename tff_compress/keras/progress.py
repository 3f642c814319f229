"""How training shows that it goes on: a bar on a terminal, a line per round anywhere else."""

import os
import sys

from tff_compress.processes import figures as figures_lib
from tff_compress.processes import methods
from tff_compress.processes import prepass


class Progress:
  """Shows the rounds of one training.

  Args:
    rounds: how many there will be.
    enabled: False shows nothing.
  """

  def __init__(self, rounds: int, enabled: bool = True):
    self._rounds, self._enabled = rounds, enabled
    self._bar = None
    if enabled and _is_terminal(sys.stderr):
      import tqdm
      self._bar = tqdm.tqdm(total=rounds, unit='round', dynamic_ncols=True)

  def say(self, text: str) -> None:
    """What is being done before the first round."""
    if self._bar is not None:
      self._bar.set_description_str(text)

  def tell(self, text: str) -> None:
    """Something to know about the training: a line of its own."""
    if self._bar is not None:
      self._bar.write(text)
    elif self._enabled:
      print(text, flush=True)

  def show(self, record: dict) -> None:
    """One more round is done; `record` is what `Trainer.next` returns, with `val_` entries where there are any."""
    if not self._enabled:
      return
    if self._bar is not None:
      self._bar.set_description_str('', refresh=False)
      self._bar.set_postfix_str(summary(record), refresh=False)
      self._bar.update()
    else:
      print(f'round {record["round"]}/{self._rounds}: {summary(record)}', flush=True)

  def learn(self, learned: dict, clients: int) -> None:
    """Some more clients learned in a pre-pass; `learned` is what it cost so far, of so many clients in all."""
    text = f'pre-pass: {prepass.progress(learned, clients, size)}'
    if self._bar is not None:
      self._bar.set_description_str(text)
    elif self._enabled:
      print(text, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def _is_terminal(file):
  """Whether a bar would be seen: some programs offer a terminal without a size."""
  try:
    return file.isatty() and min(os.get_terminal_size(file.fileno())) > 0
  except (OSError, ValueError):
    return False


def summary(record: dict) -> str:
  """The figures of a round in one line."""
  measured = methods.figures()
  skipped = ('round', 'clients', 'failed_clients', 'examples', 'seconds', *(figure.name for figure in measured))
  parts = [f'{record["seconds"]:.1f} s']
  parts += [f'{name} {value:.4f}' for name, value in record.items()
            if name not in skipped and not name.startswith(('uplink_', 'downlink_')) and isinstance(value, float)]
  parts += [f'{word} {size(record[name])}' for word, name in (('up', 'uplink_bytes'), ('down', 'downlink_bytes'))
            if name in record]
  parts += figures_lib.remarks(measured, record)
  if record['failed_clients']:
    parts.append(f'{record["failed_clients"]} clients failed')
  return ', '.join(parts)


def size(count: float) -> str:
  """Bytes as people read them; powers of ten."""
  for unit, factor in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if count >= factor:
      return f'{count / factor:.3g} {unit}'
  return f'{count} B'
