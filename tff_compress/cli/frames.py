"""`tff-compress inspect`: a frame taken apart."""

import argparse
import os
import stat
import sys
from typing import Any

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.cli import arguments
from tff_compress.cli import autoencoders
from tff_compress.cli import output
from tff_compress.cli import specs
from tff_compress.codec import counts
from tff_compress.codec import files
from tff_compress.codec.codec import Plan
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import TensorSpec

MAX_FRAME = 256 << 20
"""Larger files are refused, in bytes."""

MAX_VALUES = 1 << 28
"""Models with more parameters are not decoded, so that a frame of a few bytes cannot take all memory."""


def add_inspect(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `inspect` its options."""
  parser.set_defaults(function=_inspect)
  parser.description = (
      'Show what a file with one frame says. With the codec and the spec: also its segments; with the '
      'seed: also statistics of the decoded variables.')
  parser.epilog = """\
      The spec is {"variables": [{"name": "dense/kernel", "shape": [784, 10], "dtype": "float32"}]} in a .json file,
      an .npz file with one array per variable, or a Keras model in an .h5 file."""
  parser.add_argument('file', metavar='FILE', help='the frame; - for standard input')
  parser.add_argument('--codec', metavar='TEXT', help='codec the frame was made with')
  parser.add_argument('--spec', metavar='FILE', help='spec of the model: .json, .npz or .h5')
  autoencoders.add_option(parser)
  parser.add_argument('--seed', metavar='N', type=arguments.whole_number(0, 2**64 - 1),
                      help='session seed of the sender')
  parser.add_argument('--json', action='store_true', help='print JSON')


def _inspect(options: argparse.Namespace) -> None:
  autoencoders.load(options)
  inspect(options.file, options.codec, options.spec, options.seed, options.json)


def inspect(path: str, codec_text: str | None, spec_path: str | None, seed: int | None, as_json: bool) -> None:
  """Prints what a file says that should hold one frame.

  Args:
    path: the file, or '-' for standard input.
    codec_text: codec that the frame was made with, or None.
    spec_path: file with the model's spec, or None; see `specs.read_spec`.
    seed: session seed, or None: then the values are not shown, as they cannot be known.
    as_json: bool.

  Raises:
    CompressionError: the file cannot be read, is not a whole frame, or not one of this codec and spec.
  """
  if (codec_text is None) != (spec_path is None):
    raise CompressionError('--codec and --spec are needed together: segments depend on both.')
  if seed is not None and codec_text is None:
    raise CompressionError('--seed is of use only with --codec and --spec.')
  data = read_frame(path)
  frame = wire.read_header(data)
  result = {
      'file': path, 'bytes': len(data), 'version': data[3], 'fingerprint': frame.fingerprint.hex(),
      'round': frame.round,
      'client': None if frame.client == codec_lib.SHARED_CLIENT else frame.client,
      'payload_bytes': len(frame.payload), 'overhead_bytes': wire.FRAME_OVERHEAD, 'checksum': data[-4:][::-1].hex(),
  }
  if codec_text is not None and spec_path is not None:
    try:
      codec = codec_lib.parse(codec_text)
    except codec_lib.CodecError as error:
      raise codec_lib.CodecError(f'--codec: {error}') from None
    spec = specs.read_spec(spec_path)
    if spec.parameters > MAX_VALUES:
      raise CompressionError(f'the model has {spec.parameters:,} parameters; models of at most {MAX_VALUES:,} are '
                             'decoded here.')
    # Whether a payload is whole does not depend on the seed; what it says does.
    update, _ = wire.unpack(codec, data, spec, seed=seed or 0)
    result.update(codec=str(codec), parameters=spec.parameters,
                  bits_per_parameter=8 * len(data) / spec.parameters if spec.parameters else None,
                  ratio=spec.uncompressed_bytes / len(data), segments=segments(codec.plan(spec), frame.payload))
    if seed is not None:
      result.update(seed=seed, variables=[statistics(tensor, update[tensor.name]) for tensor in spec.tensors])
  if as_json:
    output.print_json(result)
  else:
    _print(result)


def read_frame(path: str) -> bytes:
  """The bytes of a file, or of standard input for '-'."""
  try:
    if path == '-':
      data = sys.stdin.buffer.read(MAX_FRAME + 1)
    else:
      # Checked before it is opened: opening a pipe would wait for its other end.
      if not stat.S_ISREG(os.stat(path).st_mode):
        raise wire.FrameError(f'{path} is not a file.')
      with open(path, 'rb') as file:
        data = file.read(MAX_FRAME + 1)
  except (OSError, ValueError) as error:
    if isinstance(error, CompressionError):
      raise
    raise wire.FrameError(f'{path} cannot be read: {files.reason(error)}.') from None
  if len(data) > MAX_FRAME:
    raise wire.FrameError(f'{path} has more than {MAX_FRAME} bytes, which is no frame of an update.')
  return data


def segments(plan: Plan, payload: bytes) -> list[dict[str, Any]]:
  """What the parts of a valid payload are: list of dicts with name, variables, values, bytes and codec."""
  bodies, rest = plan.bodies(numpy_ops, np.frombuffer(payload, np.uint8))
  names = [[plan.spec.tensors[i].name for i in segment.tensors] for segment in plan.segments]
  rows = [{'name': segment.name, 'variables': variables, 'values': segment.size, 'bytes': body.size, 'length_bytes': 0,
           'codec': 'as it is' if segment.pipeline is None else str(segment.pipeline)}
          for segment, variables, body in zip(plan.segments, names, bodies)]
  for row, body, size in zip(rows, bodies, plan.sizes):
    if size is None:
      row['length_bytes'] += int(counts.size(numpy_ops, numpy_ops.vector(body.size))[0])
  for group in plan.groups:
    together, sizes, behind = group.stream_sizes(numpy_ops, rest)
    taken = [rows[i] for i in group.segments]
    if together:
      taken = [{'name': 'symbols together', 'variables': [name for i in group.segments for name in names[i]],
                'values': sum(group.sizes), 'bytes': 0, 'length_bytes': 0, 'codec': str(group.coder)}]
      rows += taken
    for row, size in zip(taken, sizes.tolist()):
      row['bytes'] += size
    # Counts, and what says whether the streams are one.
    taken[0]['length_bytes'] += rest.size - behind.size - int(sizes.sum())
    rest = behind
  return rows


def statistics(tensor: TensorSpec, array: np.ndarray) -> dict[str, Any]:
  """What a decoded variable holds: a dict."""
  values = np.asarray(array, np.float64).reshape(-1)
  result = {'name': tensor.name, 'shape': list(tensor.shape), 'dtype': tensor.dtype,
            'norm': float(np.linalg.norm(values))}
  if values.size:
    result.update(mean=float(values.mean()), deviation=float(values.std()), smallest=float(values.min()),
                  largest=float(values.max()), zeros=float(np.mean(values == 0)))
  return result


def _print(result: dict[str, Any]) -> None:
  whose = 'server, to all clients' if result['client'] is None else str(result['client'])
  size = f'{result["bytes"]:,} bytes'
  if 'codec' in result and result['bits_per_parameter'] is not None:
    size += (f', {result["bits_per_parameter"]:.4g} bits per parameter, {result["ratio"]:.4g} times smaller than '
             'uncompressed')
  print(output.properties([
      ('file', result['file']), ('size', size), ('version', result['version']),
      ('fingerprint', result['fingerprint'] + (', of this codec and spec' if 'codec' in result else '')),
      ('round', result['round']), ('client', whose),
      ('payload', f'{result["payload_bytes"]:,} bytes, and {result["overhead_bytes"]} of the frame'),
      ('checksum', result['checksum'] + ', correct'), ('codec', result.get('codec')),
      ('parameters', f'{result["parameters"]:,}' if 'codec' in result else None),
  ]))
  if 'segments' in result:
    rows = []
    for part in result['segments']:
      sent = part['bytes'] + part['length_bytes']
      rows.append([part['name'], str(len(part['variables'])), f'{part["values"]:,}', f'{sent:,}',
                   f'{8 * sent / part["values"]:.4g}' if part['values'] else '-', part['codec']])
    print('\n' + output.table(['segment', 'variables', 'values', 'bytes', 'bits per value', 'codec'], rows, '<>>>><'))
  if 'variables' in result:
    columns = ('mean', 'deviation', 'smallest', 'largest', 'norm')
    rows = [[v['name'], 'x'.join(map(str, v['shape'])) or 'scalar', v['dtype'],
             *(f'{v[column]:.3g}' if column in v else '-' for column in columns),
             f'{v["zeros"]:.1%}' if 'zeros' in v else '-'] for v in result['variables']]
    print(f'\nDecoded with seed {result["seed"]} (another seed than the sender\'s gives other values, and no error):\n')
    print(output.table(['variable', 'shape', 'dtype', *columns, 'zeros'], rows, '<<<>>>>>>'))
  elif 'segments' in result:
    print('\nThe payload is whole. Give the session seed (--seed) to see what the decoded variables hold.')
