"""What a run leaves in its folder, and how a run that was cut short goes on from there.

    result.json    settings, status and every round so far: the truth, replaced as a whole after each round
    metrics.csv    the rounds as a table
    tensorboard/   the same for TensorBoard
    checkpoints/   the server's state (tff.program.FileProgramStateManager)
    clients/       the states of clients that remember (tff_compress.processes.ClientStore)

Before the first round there may be a pre-pass: then result.json says what it cost, and a checkpoint of round 0 follows.

A round is written in this order, so whatever round the last checkpoint belongs to is complete in everything else, and
what lies beyond it is dropped and trained again. Every file is written under another name and then renamed: a process
that is killed leaves nothing half-written, only files under temporary names, which the next one removes.

Importing this module does not import TensorFlow.
"""

import asyncio
import concurrent.futures
import contextlib
import csv
import fcntl
import glob
import io
import json
import math
import os
import re
import shutil
import time

from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError

RESULT, METRICS, TENSORBOARD, CHECKPOINTS, CLIENTS = (
    'result.json', 'metrics.csv', 'tensorboard', 'checkpoints', 'clients')
FORMAT = 1
MAX_RESULT = 64 << 20
"""Largest result.json that is read, in bytes."""

RUNNING, FINISHED, DIVERGED = 'running', 'finished', 'diverged'

_CHECKPOINT_SECONDS = 10
_CHECKPOINTS_KEPT = 2

# Settings that change neither the clients nor, but for rounding, the numbers: a run may go on with others. More rounds
# are a longer run.
_FREE = ('output', 'data_dir', 'workers', 'checkpoint_every', 'rounds')


class FolderError(CompressionError):
  """An output folder that cannot be used."""


class Folder:
  """The folder of one run.

  Args:
    path: it is made if it is not there.
    settings: dict of the run's settings, in JSON's types.
    method: text of the uplink's method as it was settled; None for a baseline.

  Raises:
    FolderError: it cannot be made, or holds something else than a run.
  """

  def __init__(self, path, settings, method=None):
    self.path, self._settings, self._method = path, settings, method
    with _naming(path, 'used as output folder'):
      os.makedirs(path, exist_ok=True)
      entries = os.listdir(path)
    known = (RESULT, METRICS, TENSORBOARD, CHECKPOINTS, CLIENTS, files.UNFINISHED)
    if entries and not any(entry.startswith(known) for entry in entries):
      raise FolderError(f'{path} is not empty and holds no run: use another output folder.')

  @contextlib.contextmanager
  def locked(self):
    """A block in which no other process runs in this folder. Raises FolderError if one does."""
    with _naming(self.path, 'used as output folder'):
      descriptor = os.open(self.path, os.O_RDONLY)
    try:
      try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise FolderError(
            f'another process is running in {self.path}: wait for it, or use another output folder.') from None
      yield
    finally:
      os.close(descriptor)

  def read(self):
    """The result so far: None if there is none, else the dict of result.json.

    Raises:
      FolderError: it cannot be used, or is of a run with other settings.
    """
    try:
      result = read_result(self.path)
    except FolderError as error:
      raise FolderError(f'{str(error).rstrip(".")}: remove it to begin again, or use another output folder.') from None
    if result is None:
      return None
    for name, value in self._settings.items():
      before = result['config'].get(name, value)
      if name == 'rounds' and before > value and len(result['rounds']) > value:
        raise FolderError(
            f'{self.path} holds a run of {len(result["rounds"])} rounds, more than {value}: use another output '
            'folder.')
      if name not in _FREE and before != value:
        raise FolderError(f'{self.path} holds a run with {name}={before!r}, not {value!r}: use another output folder.')
    planned, method = result.get('method'), self._method
    if planned is not None and planned != method:
      raise FolderError(f'{self.path} holds a run whose uplink was planned for its rounds, as {planned}: give that as '
                        'uplink, with another output folder, or as many rounds as it was for.')
    return result

  def clear(self):
    """Removes the run that is there. Raises FolderError if it cannot be removed."""
    for name in (TENSORBOARD, CHECKPOINTS, CLIENTS, METRICS, RESULT):
      _remove(os.path.join(self.path, name))
    self.remove_leftovers()

  def remove_leftovers(self):
    """Removes what a process that was killed left under temporary names.

    Raises:
      FolderError: nothing can be removed from the folder, or written into it.
    """
    for pattern in (f'{files.UNFINISHED}*', os.path.join(CHECKPOINTS, '*_temp*')):
      for path in glob.glob(os.path.join(glob.escape(self.path), pattern)):
        _remove(path)

  def check_writable(self):
    """Raises FolderError if nothing can be written into the folder, before time is spent on what is to be."""
    probe = os.path.join(self.path, files.UNFINISHED + 'probe')
    files.write(probe, b'', FolderError)
    _remove(probe)

  def write_result(self, status, rounds, **more):
    """Replaces result.json."""
    content = {'format': FORMAT, 'status': status, 'config': self._settings, 'method': self._method, **more,
               'rounds': rounds}
    text = json.dumps(finite(content), indent=1, allow_nan=False) + '\n'
    files.write(os.path.join(self.path, RESULT), text.encode(), FolderError)


class Journal:
  """Writes rounds into a folder while the next round trains: one background thread, at most one round behind.

  Args:
    folder: `Folder`.
    checkpoint_every: rounds between checkpoints; None: as many as pass in ten seconds.
    details: what else result.json holds, a dict.

  Attributes:
    checkpoints: rounds that a later process may go on from: those of all checkpoints that are there, and of one that is
      being written.
    learned: what the pre-pass before round 1 cost, a dict of numbers; None where there was none.
  """

  def __init__(self, folder, checkpoint_every, details):
    import tensorflow_federated as tff
    self._folder, self._every, self._details = folder, checkpoint_every, details
    self._open = contextlib.ExitStack()
    self._root = self._open.enter_context(files.readable(folder.path))
    with self._naming(CHECKPOINTS):
      self._states = tff.program.FileProgramStateManager(
          os.path.join(self._root, CHECKPOINTS), prefix='round_', keep_total=_CHECKPOINTS_KEPT, keep_first=False)
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='journal')
    self._pending = None
    self._board = None
    self._saved = time.monotonic()
    self.checkpoints: tuple[int, ...] = (0,)
    self.learned = None

  def resume(self, before, structure):
    """Goes back to the last checkpoint.

    Args:
      before: the dict of result.json; None if there is none.
      structure: a state like those that were saved.

    Returns:
      (rounds that are kept, saved state); ([], None) to start at the beginning.

    Raises:
      FolderError: there are checkpoints, and none can be read.
    """
    rounds = before['rounds'] if before else []
    self.learned = before.get('prepass') if before else None
    problem = None
    with self._naming(CHECKPOINTS, 'read'):
      versions = [v for v in asyncio.run(self._states.get_versions()) or [] if v <= len(rounds)]
    for number, version in reversed(list(enumerate(versions, 1))):
      try:
        state = asyncio.run(self._states.load(version, structure))
      except Exception as error:  # TensorFlow has no one type for files that a failing disk or machine left behind.
        problem = error
        continue
      self._prepare(rounds[:version])
      self.checkpoints = tuple(versions[:number])
      return rounds[:version], state
    if problem is not None:
      raise FolderError(
          f'no checkpoint in {self._folder.path} can be read: remove the folder, or use another.') from problem
    self._prepare([])
    return [], None

  def _naming(self, name, what='written'):
    return _naming(os.path.join(self._folder.path, name), what)

  def _prepare(self, rounds):
    """Makes the tables say what `rounds` says."""
    # Events of rounds that are trained again would be there twice.
    _remove(os.path.join(self._folder.path, TENSORBOARD))
    self._write_tables(rounds, rounds)

  def _write_tables(self, rounds, new):
    """Writes the table of all rounds, and those that are new for TensorBoard."""
    import tensorflow as tf
    files.write(os.path.join(self._folder.path, METRICS), _table(rounds).encode(), FolderError)
    with self._naming(TENSORBOARD):
      if self._board is None:
        self._board = tf.summary.create_file_writer(os.path.join(self._root, TENSORBOARD))
      with self._board.as_default():
        for entry in new:
          for name, value in _numbers(entry).items():
            tf.summary.scalar(name, value, step=entry['round'])
      self._board.flush()  # What cannot be written is known now, and not when the writer goes.

  def begin(self, state, learned):
    """Starts to write that the pre-pass before round 1 is done.

    Args:
      state: what to save.
      learned: what it cost, a dict of numbers.
    """
    self.wait()
    self.learned = learned
    self._pending = self._thread.submit(self._write, [], state)

  def write(self, rounds, state, last):
    """Starts to write the last of `rounds`, and the state behind it where a checkpoint is due.

    Args:
      rounds: all rounds so far.
      state: what to save.
      last: whether no more rounds follow; then a checkpoint is due.
    """
    self.wait()
    if self._every is None:
      due = time.monotonic() - self._saved >= _CHECKPOINT_SECONDS
    else:
      due = len(rounds) % self._every == 0
    if due or last:
      self._saved = time.monotonic()
      self.checkpoints = (*self.checkpoints[-_CHECKPOINTS_KEPT:], len(rounds))
    self._pending = self._thread.submit(self._write, list(rounds), state if due or last else None)

  def _write(self, rounds, state):
    number = len(rounds)
    self._folder.write_result(RUNNING, rounds, **self._details_so_far())
    if rounds:
      self._write_tables(rounds, rounds[-1:])
    if state is not None:
      try:
        with self._naming(os.path.join(CHECKPOINTS, f'round_{number}')):
          asyncio.run(self._save(state, number))
      except FolderError:
        with contextlib.suppress(FolderError):
          self._folder.remove_leftovers()
        raise

  async def _save(self, state, number):
    if number not in (await self._states.get_versions() or []):
      await self._states.save(state, number)

  def end(self, status, rounds, reason):
    """Says in result.json how the run ended, and if it did not finish why, when everything else is written."""
    self.wait()
    reasons = {'reason': reason} if reason else {}
    self._folder.write_result(status, rounds, **self._details_so_far(), **reasons)

  def _details_so_far(self):
    return self._details if self.learned is None else {**self._details, 'prepass': self.learned}

  def wait(self):
    """Waits until what was started is written, and raises what went wrong."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def close(self):
    """Waits, and closes the files."""
    try:
      self.wait()
    finally:
      self._thread.shutdown()
      self._board = None
      self._open.close()


@contextlib.contextmanager
def _naming(path, what='written'):
  """A block in which what the operating system refuses is a FolderError that names the file and the reason."""
  try:
    yield
  except FolderError:
    raise
  except Exception as error:
    if isinstance(error, OSError) or 'tensorflow' in type(error).__module__:  # tf.errors, which is not imported here.
      raise FolderError(f'{path} cannot be {what}: {files.reason(error)}.') from error
    raise


def _remove(path):
  """Removes a file or folder, if there is one. Raises FolderError if it cannot be removed."""
  with _naming(path, 'removed'), contextlib.suppress(FileNotFoundError):
    if os.path.isdir(path) and not os.path.islink(path):
      shutil.rmtree(path)
    else:
      os.remove(path)


def goes_on(path):
  """Whether a folder has a checkpoint that a run would go on from; the last round of a run always has one."""
  try:
    return any(re.fullmatch(r'round_[0-9]+', name) for name in os.listdir(os.path.join(path, CHECKPOINTS)))
  except OSError:
    return False


def read_result(path):
  """The dict of the result.json in a folder; None if there is none.

  Raises:
    FolderError: it cannot be read, or is not one.
  """
  path = os.path.join(path, RESULT)
  try:
    with open(path, 'rb') as file:
      data = file.read(MAX_RESULT + 1)
  except FileNotFoundError:
    return None
  except OSError as error:
    raise FolderError(f'{path} cannot be read: {files.reason(error)}.') from None
  if len(data) > MAX_RESULT:
    raise FolderError(f'{path} has more than {MAX_RESULT} bytes, too many for a result.')
  try:
    result = json.loads(data)
  except (ValueError, RecursionError):
    raise FolderError(f'{path} is damaged.') from None
  rounds = result.get('rounds') if isinstance(result, dict) else None
  if (not isinstance(rounds, list) or not isinstance(result.get('config'), dict) or result.get('format') != FORMAT
      or not isinstance(result.get('parameters'), int)
      or result.get('status') not in (RUNNING, FINISHED, DIVERGED) or not _are_numbers(result.get('prepass', {}))
      or not isinstance(result.get('reason', ''), str)
      or [entry.get('round') if isinstance(entry, dict) else None
          for entry in rounds] != list(range(1, len(rounds) + 1))):
    raise FolderError(f'{path} is not the result of a run of this version.')
  return result


def _are_numbers(values):
  return isinstance(values,
                    dict) and all(type(value) in (int, float) and 0 <= value < 1e18 for value in values.values())


def finite(value):
  """The value with every NaN and infinity in it, for which JSON has no word, replaced by None."""
  if isinstance(value, dict):
    return {key: finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(entry):
  """The numbers of a round, which is what tables have of it."""
  return {name: value for name, value in entry.items() if name != 'round' and isinstance(value, (int, float))}


def _table(rounds):
  """The rounds as CSV: a column for each number that any of them has."""
  names = list(dict.fromkeys(['round', *(name for entry in rounds for name in _numbers(entry))]))
  file = io.StringIO(newline='')
  writer = csv.DictWriter(file, names)
  writer.writeheader()
  writer.writerows({'round': entry['round'], **_numbers(entry)} for entry in rounds)
  return file.getvalue()
