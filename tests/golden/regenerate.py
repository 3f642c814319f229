"""Writes the golden frames: `python -m tests.golden.regenerate` from the repository's top, and nothing else does.

A golden frame is what a phone in the field sends. Regenerate only where a change of the format is meant, then raise the
version in tff_compress/wire/frame.py if a release has been made, and say in CHANGELOG.md what changed.

manifest.json has the keys (seed, round, client) and names every case: its codec, its update (size and seed for
`tests.contract.cases.update`, which is made of CRC-32 values and so is the same in every language, with the SHA-256 of
its variables' little-endian bytes in order), and its file with length and SHA-256.
Where a stage asks for shapes, the kernel is one of convolutions: see `Case.update`.
"""

import hashlib
import json
import os
import pathlib
import sys

from tests.contract import cases
from tff_compress import wire

FOLDER = pathlib.Path(__file__).resolve().parent
MANIFEST = 'manifest.json'
SUFFIX = '.tfc'
SIZE = 2100
"""Values in the kernel: two blocks of 1024 and a rest. Cases with rules about sizes have more."""


def update_of(case):
  return case.update(SIZE)


def frame_of(case):
  return wire.pack(case.codec, update_of(case), seed=cases.SEED, round=cases.ROUND, client=cases.CLIENT)


def digest_of_update(update):
  return hashlib.sha256(b''.join(v.astype(v.dtype.newbyteorder('<')).tobytes() for v in update.values())).hexdigest()


def contents():
  """{file name: bytes} of everything that belongs in the folder."""
  files, entries = {}, {}
  for case in cases.byte_cases():
    frame = frame_of(case)
    files[case.name + SUFFIX] = frame
    entries[case.name] = {
        'codec': str(case.codec),
        'file': case.name + SUFFIX,
        'update': {'size': max(SIZE, case.large), 'seed': 0, 'sha256': digest_of_update(update_of(case))},
        'bytes': len(frame),
        'sha256': hashlib.sha256(frame).hexdigest(),
    }
  manifest = {'format': 1, 'seed': cases.SEED, 'round': cases.ROUND, 'client': cases.CLIENT, 'cases': entries}
  files[MANIFEST] = (json.dumps(manifest, indent=1) + '\n').encode('utf-8')
  return files


def present(folder):
  """{file name: bytes} of the golden files in a folder."""
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (SUFFIX, '.json')}


def write(folder):
  """Makes the folder hold exactly `contents()`. Returns lines that say what changed."""
  wanted, found = contents(), present(folder)
  said = []
  for name, data in wanted.items():
    if found.get(name) != data:
      said.append(f'{"changed" if name in found else "new"}: {name}, {len(data)} bytes')
      temporary = folder / (name + '.tmp')
      temporary.write_bytes(data)
      os.replace(temporary, folder / name)
  for name in sorted(set(found) - set(wanted)):
    said.append(f'removed: {name}')
    (folder / name).unlink()
  return said


if __name__ == '__main__':
  print('\n'.join(write(FOLDER)) or 'Nothing changed.')
  sys.exit(0)
