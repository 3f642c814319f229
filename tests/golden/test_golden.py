"""Frames are, byte for byte, the golden ones; none is missing and none is left over."""

import hashlib
import json

import numpy as np
import pytest

from tests.contract import cases
from tests.golden import regenerate
from tff_compress import codec as codec_lib
from tff_compress import wire

HOW = 'if the format was meant to change, run `python -m tests.golden.regenerate`'


def _manifest():
  return json.loads((regenerate.FOLDER / regenerate.MANIFEST).read_text(encoding='utf-8'))


def test_every_case_has_a_file_and_every_file_a_case():
  manifest = _manifest()
  names = [case.name for case in cases.byte_cases()]
  assert list(manifest['cases']) == names, HOW
  files = {entry['file'] for entry in manifest['cases'].values()}
  assert set(regenerate.present(regenerate.FOLDER)) == files | {regenerate.MANIFEST}, HOW
  assert (manifest['seed'], manifest['round'], manifest['client']) == (cases.SEED, cases.ROUND, cases.CLIENT)


@pytest.mark.parametrize('case', cases.byte_cases(), ids=str)
def test_frames_are_the_golden_ones(case):
  entry = _manifest()['cases'][case.name]
  golden = (regenerate.FOLDER / entry['file']).read_bytes()
  assert (len(golden), hashlib.sha256(golden).hexdigest()) == (entry['bytes'], entry['sha256'])
  assert str(case.codec) == entry['codec'], HOW
  update = regenerate.update_of(case)
  assert regenerate.digest_of_update(update) == entry['update']['sha256'], 'the update itself changed'
  made = regenerate.frame_of(case)
  if made != golden:
    differing = next((i for i, (a, b) in enumerate(zip(made, golden)) if a != b), min(len(made), len(golden)))
    raise AssertionError(f'{len(made)} bytes, golden {len(golden)}; the first difference is byte {differing}: {HOW}')
  # And they are still read, with the codec as the manifest writes it.
  decoded, _ = wire.unpack(entry['codec'], golden, codec_lib.Spec.of(update), seed=cases.SEED)
  assert all(np.array_equal(decoded[n], v) for n, v in update.items() if v.dtype.kind != 'f')


def test_an_empty_folder_is_filled_with_the_same_files(tmp_path):
  said = regenerate.write(tmp_path)
  assert regenerate.present(tmp_path) == regenerate.present(regenerate.FOLDER)
  assert len(said) == len(cases.byte_cases()) + 1 and all(line.startswith('new') for line in said)
  (tmp_path / 'left.over.tfc').write_bytes(b'')
  (tmp_path / 'float32.tfc').write_bytes(b'')
  size = len(regenerate.frame_of(cases.Case('float32', 'float32')))
  assert regenerate.write(tmp_path) == [f'changed: float32.tfc, {size} bytes', 'removed: left.over.tfc']
  assert regenerate.write(tmp_path) == []
