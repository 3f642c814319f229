"""`tff-compress fit-autoencoder`: an autoencoder learned from snapshots; and `--autoencoder FILE` of other commands."""

import argparse
from collections.abc import Iterable
from collections.abc import Sequence
import os
import stat
from typing import Any
import zipfile
import zlib

import numpy as np

from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress.autoencoders import rule as rule_lib
from tff_compress.autoencoders import SnapshotError
from tff_compress.cli import arguments
from tff_compress.cli import output
from tff_compress.cli import specs
from tff_compress.codec import artefacts
from tff_compress.codec import files
from tff_compress.codec import network
from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.codec.transforms.autoencoder import COSINE

MAX_VALUES = 1 << 28
"""Most values of all snapshots together."""

_MESSAGE = {'seed': 0, 'round': 0, 'client': 0}


def add_option(parser: argparse.ArgumentParser) -> None:
  """Gives a parser `--autoencoder`, for `load`."""
  parser.add_argument('--autoencoder', metavar='FILE', action='append', default=[],
                      help='file of an autoencoder that a codec names with weights=DIGEST; repeat it for each')


def load(options: argparse.Namespace) -> None:
  """Makes the files of `--autoencoder` known to codecs. Raises ArtefactError where one is none."""
  for path in options.autoencoder:
    artefacts.load(path)


def add_fit_autoencoder(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `fit-autoencoder` its options."""
  parser.set_defaults(function=_fit)
  parser.description = (
      "Learn an autoencoder from snapshots of a model's updates or weights, write it into a file, and "
      'say what it does to snapshots that it was not learned from.')
  parser.epilog = """\
      A snapshot is an .npz file with one array per variable. An .npy file holds several: one row each, all values of
      the model one after the other; --spec then says which variables these are.

      examples:
        tff-compress fit-autoencoder round*.npz -o updates.autoencoder
        tff-compress fit-autoencoder round*.npz -o updates.autoencoder --codec \\
          'size>=1000 => concat | autoencoder:8,length=784,order=columns | uniform:bits=8 | rans; * => float16'
        tff-compress run --autoencoder updates.autoencoder --uplink 'concat | autoencoder:8,length=784,weights=… | …'"""
  parser.add_argument('files', metavar='FILE', nargs='+', help='snapshots: .npz or .npy, in order')
  parser.add_argument('-o', '--output', metavar='FILE', required=True, help='file to write the autoencoder into')
  parser.add_argument('--codec', metavar='TEXT', default=rule_lib.EXAMPLE,
                      help=f'codec with an autoencoder without weights, which is the one to learn ({rule_lib.EXAMPLE})')
  parser.add_argument('--spec', metavar='FILE', help='spec of the model, for .npy files: .json, .npz or .h5')
  parser.add_argument('--changes', action='store_true', help='learn what changes from each snapshot to the next')
  parser.add_argument('--held-out', metavar='N', type=arguments.whole_number(1, 2**20), default=1,
                      help='the last N are not learned from but measured on (1)')
  parser.add_argument('--architecture', metavar='NAME', choices=tuple(autoencoders.ARCHITECTURES), default='linear',
                      help=f'{", ".join(autoencoders.ARCHITECTURES)} (linear)')
  parser.add_argument('--epochs', metavar='N', type=arguments.whole_number(1, 10**6), default=30,
                      help='passes over the snapshots, but for linear (30)')
  parser.add_argument('--learning-rate', metavar='X', type=arguments.number(above=0), default=1e-3,
                      help='of Adam, but for linear (0.001)')
  parser.add_argument('--no-center', action='store_true',
                      help='without means: for linear, what clients send may then be added up before it is decoded')
  parser.add_argument('--seed', metavar='N', type=arguments.whole_number(0, 2**31 - 1), default=0,
                      help='of the initial weights (0)')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _fit(options: argparse.Namespace) -> None:
  if not os.path.isdir(os.path.dirname(os.path.abspath(options.output))):
    raise CompressionError(f'{options.output} cannot be written: there is no such folder.')
  spec, rows = read_snapshots(options.files, None if options.spec is None else specs.read_spec(options.spec))
  rule = _rule(options.codec, spec)
  architecture = autoencoders.ARCHITECTURES[options.architecture](rule.length, rule.stage.latent)
  if architecture.parameters > network.MAX_BYTES:
    raise CompressionError(f'an autoencoder of {architecture.parameters:,} parameters is too large for a file: give '
                           'the stage a smaller length.')
  if options.changes:
    rows = np.diff(rows, axis=0)
  learned_from, held_out = rows[:-options.held_out], rows[-options.held_out:]
  if len(learned_from) < 2:
    raise SnapshotError(f'there are {len(learned_from)} snapshots to learn from besides {options.held_out} held out: '
                        'give at least 2.')
  taken = np.stack([rule.take(xp, _arrays(row, spec)) for row in learned_from])
  found = autoencoders.fit(architecture, taken, rule.sizes, epochs=options.epochs, learning_rate=options.learning_rate,
                           center=not options.no_center, seed=options.seed, progress=_progress)
  artefacts.save(found, options.output)
  codec = rule.learned(found)
  stage = str(rule.stage)
  cosines = codec_lib(str(rule.codec).replace(stage, f'{stage},weights={COSINE}'))
  error, sent = _measured(codec, rule, held_out)
  _show({'file': options.output, 'digest': found.digest, 'architecture': options.architecture,
         'parameters': architecture.parameters, 'file_bytes': len(found.packed), 'decoder_bytes': found.decoder_bytes,
         'values': rule.size, 'snapshots': len(learned_from), 'held_out': len(held_out), 'error': error,
         'error_cosines': _measured(cosines, rule, held_out)[0], 'error_nothing': 1.0, 'message_bytes': sent,
         'bits_per_parameter': 8 * sent / spec.parameters, 'codec': str(codec)}, options.json)


def _rule(text: str, spec: Spec) -> autoencoders.LearnedRule:
  try:
    return autoencoders.LearnedRule(text, spec)
  except codec_lib.CodecError as error:
    raise codec_lib.CodecError(f'--codec: {error}') from None


def _progress(done: int, epochs: int, loss: float) -> None:
  if done == epochs or not done % max(1, epochs // 10):
    output.say(f'epoch {done}/{epochs}: mean squared error {loss:.4g} of normalised values')


def _measured(codec: Codec, rule: autoencoders.LearnedRule, rows: np.ndarray) -> tuple[float, float]:
  """(||decoded - x||^2 / ||x||^2 of what the autoencoder takes, bytes of a message), means over snapshots."""
  errors, sizes = [], []
  for row in rows:
    arrays = _arrays(row, rule.spec)
    update = {tensor.name: array for tensor, array in zip(rule.spec.tensors, arrays)}
    payload = codec.encode(update, **_MESSAGE)
    decoded = codec.decode(payload, rule.spec, **_MESSAGE)
    x = rule.take(xp, arrays).astype(np.float64)
    back = rule.take(xp, [decoded[tensor.name] for tensor in rule.spec.tensors])
    errors.append(np.sum((back - x)**2) / max(np.sum(x**2), 1e-300))
    sizes.append(len(payload))
  return float(np.mean(errors)), float(np.mean(sizes))


def _show(result: dict[str, Any], as_json: bool) -> None:
  if as_json:
    output.print_json(result)
    return
  print(output.properties([
      ('file', f'{result["file"]}, {result["file_bytes"]:,} bytes, of which a receiver needs '
               f'{result["decoder_bytes"]:,}'),
      ('digest', result['digest']),
      ('learned',
       f'{result["parameters"]:,} parameters ({result["architecture"]}) from {result["snapshots"]} snapshots '
                  f'of {result["values"]:,} values'),
      ('message', f'{result["message_bytes"]:,.0f} bytes, {result["bits_per_parameter"]:.3g} bits per parameter'),
      ('codec', result['codec'])]))
  print(f'\nMean of ||decoded - x||^2 / ||x||^2 on {result["held_out"]} held out, of what the autoencoder encodes:\n')
  rows = [[name, f'{result[key]:.3g}'] for name, key in (
      ('this autoencoder', 'error'), ('the first cosines, not learned', 'error_cosines'),
      ('sending nothing', 'error_nothing'))]
  print(output.table(['what is sent', 'error'], rows, '<>'))


# ---- snapshots -------------------------------------------------------------------------------------------------------


def read_snapshots(paths: Sequence[str], spec: Spec | None) -> tuple[Spec, np.ndarray]:
  """Reads snapshots of one model. Files are hostile.

  Args:
    paths: .npz files, each one snapshot with an array per variable; or .npy files of float[d] or float[n, d].
    spec: `Spec` of the model; None: that of the first .npz file, or one variable of all values where there is none.

  Returns:
    (Spec, float32[n, d] with the variables in the spec's order).

  Raises:
    SnapshotError, SpecError: a file cannot be read, or they do not belong together.
  """
  rows: list[np.ndarray] = []
  for path in paths:
    kind = os.path.splitext(path)[1].lower()
    if kind not in ('.npz', '.npy'):
      raise SnapshotError(f'{path} does not end in .npz or .npy: save snapshots with numpy.savez or numpy.save.')
    try:
      if not stat.S_ISREG(os.stat(path).st_mode):
        raise SnapshotError(f'{path} is not a file.')
      if kind == '.npz':
        found, values = _from_npz(path)
      else:
        values = _from_npy(path)
        found = spec or codec_lib.Spec((codec_lib.TensorSpec('values', values.shape[1:]),))
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
            zlib.error) as error:
      if isinstance(error, CompressionError):
        raise
      raise SnapshotError(f'{path} cannot be read: {files.reason(error)}.') from None
    spec = spec or found
    if found != spec or values.shape[1] != spec.parameters:
      raise SnapshotError(f'{path} holds other variables than {paths[0] if rows else "the model"}: give snapshots of '
                          'one model.')
    rows.append(values)
    if sum(row.size for row in rows) > MAX_VALUES:
      raise SnapshotError(f'the snapshots have more than {MAX_VALUES:,} values together: give fewer.')
  assert spec is not None, 'there is at least one file'
  return spec, np.concatenate(rows)


def _from_npz(path: str) -> tuple[Spec, np.ndarray]:
  spec = specs.read_spec(path)  # Of the headers alone: now it is known how much memory the arrays take.
  _check(path, spec.parameters, [np.dtype(tensor.dtype) for tensor in spec.tensors])
  with np.load(path, allow_pickle=False) as archive:
    arrays = [archive[tensor.name].astype(np.float32).reshape(-1) for tensor in spec.tensors]
  return spec, np.concatenate(arrays)[None]


def _from_npy(path: str) -> np.ndarray:
  values = np.load(path, mmap_mode='r', allow_pickle=False)
  _check(path, values.size, [values.dtype])
  if values.ndim not in (1, 2):
    raise SnapshotError(f'{path} holds an array of shape {values.shape}: write one row for each snapshot.')
  return np.atleast_2d(np.asarray(values, np.float32))


def _check(path: str, count: int, dtypes: Iterable[np.dtype]) -> None:
  if count > MAX_VALUES:
    raise SnapshotError(f'{path} has {count:,} values; snapshots have at most {MAX_VALUES:,} together.')
  if not count or any(dtype.kind not in 'fiu' for dtype in dtypes):
    raise SnapshotError(f'{path} has no values, or values that are not numbers.')


def _arrays(row: np.ndarray, spec: Spec) -> list[np.ndarray]:
  """A row as the model's variables."""
  return [array.astype(tensor.dtype) for array, tensor in zip(spec.split(xp, row), spec.tensors)]
