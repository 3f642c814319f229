"""Writes the golden frames: `python -m tests.golden.regenerate` from the repository's top, and nothing else does.

A golden frame is what a phone in the field sends. Regenerate only where a change of the format is meant, then raise the
version in tff_compress/wire/frame.py if a release has been made, and say in CHANGELOG.md what changed.

README.md says what manifest.json holds: with it and docs/ alone another implementation can make every update, write
every frame and compare what it decodes.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import sys

import numpy as np

from tests.contract import cases
from tests.golden import runs
from tests.golden import updates
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import artefacts
from tff_compress.codec import files
from tff_compress.codec import stage as stage_lib

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST = 'manifest.json'
SUFFIX = '.tfc'
NETWORK = 'network.autoencoder'
"""The file of the learned encoder that a codec names."""
SIZE = 2100
"""Values in the kernel of heavy updates: two blocks of 1024 and a rest. Cases with rules about sizes have more."""
SHOWN = 4
"""Values of each variable that the manifest shows."""
TOLERANCE = 2.0**-20
"""How far decoded values may be off, as a share of a variable's largest magnitude, where sums of floats make them."""

# Their decoders add up floats, in any order.
INEXACT = ('hadamard', 'lowrank', 'autoencoder')

SPECIAL = {
    'learned': (f'concat | autoencoder:5,length=12,weights={artefacts.add(updates.network())} | float32', 'ordinary'),
    'joined.tensor': ('concat | sigma-clip:1.3 | symmetric:levels=5,per=tensor | elias', 'ordinary'),
    'joined.cluster': ('concat | cluster:centroids=5 | huffman', 'ordinary'),
    'joined.sparsify': ('concat | sparsify:1/9 | rice', 'ordinary'),
    'joined.sign': ('concat | sign | pack', 'ordinary'),
    'joined.sketch': ('concat | countsketch:1/7 | bound:0.02,limit=15 | rans', 'ordinary'),
    'cost.rans': ('uniform:bits=1,rounding=nearest,range=tensor | rans', 'ordinary'),
    'many.rans': ('uniform:bits=2,range=tensor | rans', 'many'),
    'lanes.rans': ('sparse-ternary:1/50 | rans', 'lanes'),
    'many.huffman': ('uniform:bits=3,range=tensor | huffman', 'many'),
    'long': ('subsample:1/70000 | float32', 'long'),
    'dtypes.float32': ('float32', 'dtypes'),
    'dtypes.uniform': ('uniform:bits=7,rounding=nearest | pack', 'dtypes'),
    'dtypes.joined': ('float* => concat | sign:per=block | pack; * => float16', 'dtypes'),
    'nearest': ('uniform:bits=2,rounding=nearest,range=tensor | pack', 'irregular'),
    'levels': ('symmetric:levels=255,norm=max,per=tensor | elias', 'irregular'),
    'boundary': ('eden:bits=4,scale=least-error | pack', 'irregular'),
    'step': ('bound:0.0078125,mode=relative | pack', 'irregular'),
    'joined.lowrank': ('concat | lowrank:1/3 | float32', 'ordinary'),
    'rules': ('Conv/* => float32; ????? => float16; Ü/[!a-z] => topk:3/7 | float16; *[t-z] & size>=4 & size<200 => '
              'concat | uniform | pack; [s]?a?[]ea-]* => bound:0.001,mode=relative | elias; */* => concat | '
              'subsample:1/3,key=client | float32; size>700 => hadamard:rotations=2,key=client | ternary:2 | rice; '
              '* => uniform:bits=5,range=tensor | pack', 'irregular'),
    'joined': ('concat | hadamard:rotations=2,block=4096,key=client | eden:bits=2,block=600 | pack', 'ordinary'),
    'joined.blocks': ('concat | symmetric:levels=7,block=100 | rice', 'ordinary'),
    'twice': ('subsample:1/2,key=client | hadamard:block=16 | subsample:2/3,key=client | hadamard:block=64,key=client '
              '| uniform:bits=3,block=50 | pack', 'ordinary'),
    'counts.huffman': ('uniform:bits=4,rounding=nearest,range=tensor | huffman', 'irregular'),
    'counts.rans': ('uniform:bits=4,rounding=nearest,range=tensor | rans', 'irregular'),
    'counts.rans.lanes': ('concat | uniform:bits=3,rounding=nearest,range=tensor | rans', 'ordinary'),
    'counts.symmetric': ('symmetric:levels=3,norm=max,block=64 | huffman', 'irregular'),
    'eden.least-error': ('concat | eden:bits=3,scale=least-error,block=100 | pack', 'ordinary'),
    'nonzero.sparse': ('topk:1/5 | nonzero', 'irregular'),
    'sparse.joined': ('concat | sparse-ternary:1/30 | rice', 'ordinary'),
}
"""{name: (codec, update)} of frames for rules that hold between stages, of coders and of whole messages."""


@dataclasses.dataclass(frozen=True)
class Golden:
  """One golden frame.

  Attributes:
    name: unique, and fit for a file name.
    text: its codec.
    update: name of its update in the manifest.
  """
  name: str
  text: str
  update: str

  def __str__(self):
    return self.name

  @property
  def file(self):
    return self.name + SUFFIX

  @property
  def codec(self):
    return codec_lib(self.text)

  @property
  def exact(self):
    """Whether every implementation decodes the same bits."""
    return not any(stage.name in INEXACT for rule in self.codec.rules for stage in rule.pipeline.stages)

  def frame(self):
    return wire.pack(self.codec, update_of(self), seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)


@functools.cache
def goldens():
  """Every golden frame, in the order of the manifest: the contract's codecs, then stages with irregular values."""
  found = [Golden(case.name, case.text, _update_name(case)) for case in cases.byte_cases()]
  for _, kind in sorted(stage_lib.registry().items()):
    found += [Golden(f'irregular.{case.name}', case.text, 'irregular') for case in cases.of_stage(kind)]
  found += [Golden(f'special.{name}', text, update) for name, (text, update) in SPECIAL.items()]
  return tuple(found)


def _needs_shapes(case):
  return any(stage.needs_shapes for rule in case.codec.rules for stage in rule.pipeline.stages)


def _update_name(case):
  return f'heavy.{max(SIZE, case.large)}' + ('.convolution' if _needs_shapes(case) else '')


@functools.cache
def descriptions():
  """{name of an update: its description}."""
  found = {}
  for case in cases.byte_cases():
    found[_update_name(case)] = updates.heavy(max(SIZE, case.large), SIZE if _needs_shapes(case) else None)
  return {**found, 'irregular': updates.irregular(), 'ordinary': updates.ordinary(),
          'many': updates.many(), 'lanes': updates.lanes(), 'dtypes': updates.dtypes(), 'long': updates.long()}


@functools.cache
def _update(name):
  return updates.make(descriptions()[name])


def update_of(golden):
  """dict of name to array."""
  return _update(golden.update)


def of_case(case):
  """The golden frame of one of `tests.contract.cases.byte_cases`."""
  return next(golden for golden in goldens() if golden.name == case.name)


def sha256(arrays):
  """Of the little-endian bytes of arrays, one after the other."""
  return hashlib.sha256(b''.join(map(updates.little_endian, arrays))).hexdigest()


def first(array):
  """The first values of an array as the manifest shows them: the shortest decimals of the same float32."""
  flat = array.reshape(-1)[:SHOWN]
  return [int(v) for v in flat] if flat.dtype.kind in 'iub' else [float(str(np.float32(v))) for v in flat]


def unsigned_zeros(array):
  """The array with +0 for -0: no implementation need have the same."""
  return array if array.dtype.kind in 'iub' else np.where(array == 0, np.zeros([], array.dtype), array)


def decoded(golden, frame):
  """What a frame decodes to, and what the manifest says about that."""
  made, _ = wire.unpack(golden.codec, frame, codec_lib.Spec.of(update_of(golden)), seed=cases.SEED)
  made = {name: unsigned_zeros(value) for name, value in made.items()}
  entry = {'sha256': sha256(made.values())} if golden.exact else {'tolerance': TOLERANCE}
  return made, {**entry, 'first': {name: first(value) for name, value in made.items() if value.size}}


def contents():
  """{file name: bytes} of everything that belongs in the folder."""
  result, entries = {NETWORK: updates.network().packed}, {}
  for golden in goldens():
    frame = result[golden.file] = golden.frame()
    entries[golden.name] = {
        'codec': str(golden.codec), 'update': golden.update, 'file': golden.file, 'bytes': len(frame),
        'sha256': hashlib.sha256(frame).hexdigest(), 'decoded': decoded(golden, frame)[1],
    }
  manifest = {'format': 2, 'seed': cases.SEED, 'round': cases.ROUND, 'client': cases.CLIENT, 'updates': {},
              'cases': entries}
  for name, description in descriptions().items():
    made = _update(name)
    arrays = [made[variable['name']] for variable in description]
    manifest['updates'][name] = [{**variable, 'first': first(array), 'sha256': sha256([array])}
                                 for variable, array in zip(description, arrays)]
  result[MANIFEST] = (_json(manifest) + '\n').encode('utf-8')
  return result


def _json(manifest):
  """JSON with a line for each variable of an update and for each entry of a case."""
  def line(value):
    return json.dumps(value, ensure_ascii=False)

  def block(items, pad):
    return '{\n' + ',\n'.join(f'{pad} {line(name)}: {text}' for name, text in items) + f'\n{pad}}}'
  parts = [(name, line(value)) for name, value in manifest.items() if name not in ('updates', 'cases')]
  described = [(name, '[\n' + ',\n'.join(f'   {line(v)}' for v in variables) + '\n  ]')
               for name, variables in manifest['updates'].items()]
  entries = [(name, block([(key, line(value)) for key, value in entry.items()], '  '))
             for name, entry in manifest['cases'].items()]
  return block([*parts, ('updates', block(described, ' ')), ('cases', block(entries, ' '))], '')


def present(folder):
  """{file name: bytes} of the golden files in a folder."""
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())
          if path.suffix in (SUFFIX, '.json', '.autoencoder', '.bin')}


def write(folder, wanted=None):
  """Makes the folder hold exactly what is wanted, or `contents()`. Returns lines that say what changed."""
  wanted, found = contents() if wanted is None else wanted, present(folder)
  said = []
  for name, data in wanted.items():
    if found.get(name) != data:
      said.append(f'{"changed" if name in found else "new"}: {name}, {len(data)} bytes')
      files.write(str(folder / name), data)
  for name in sorted(set(found) - set(wanted)):
    said.append(f'removed: {name}')
    (folder / name).unlink()
  return said


if __name__ == '__main__':
  print('\n'.join(write(FOLDER) + write(runs.FOLDER, runs.contents())) or 'Nothing changed.')
  sys.exit(0)
