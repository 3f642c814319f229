"""Frames are, byte for byte, the golden ones; none is missing, none is left over, and the manifest says what each
holds.
"""

import functools
import hashlib
import json
import re

import numpy as np
import pytest

from tests.contract import cases
from tests.golden import regenerate
from tests.golden import updates
from tff_compress.codec import artefacts

HOW = 'if the format was meant to change, run `python -m tests.golden.regenerate`'
NEW = 'has no golden frame yet: run `python -m tests.golden.regenerate`, which must say "new" and never "changed"'

GOLDENS = [pytest.param(golden, id=str(golden), marks=[pytest.mark.thorough] if golden.update == 'long' else [])
           for golden in regenerate.goldens()]


@functools.cache
def _manifest():
  return json.loads((regenerate.FOLDER / regenerate.MANIFEST).read_text(encoding='utf-8'))


def test_every_case_has_a_file_and_every_file_a_case():
  manifest = _manifest()
  new = [golden.name for golden in regenerate.goldens() if golden.name not in manifest['cases']]
  assert not new, f'{", ".join(new)} {NEW}'
  assert list(manifest['cases']) == [golden.name for golden in regenerate.goldens()], HOW
  files = {entry['file'] for entry in manifest['cases'].values()}
  assert set(regenerate.present(regenerate.FOLDER)) == files | {regenerate.MANIFEST, regenerate.NETWORK}, HOW
  assert (manifest['seed'], manifest['round'], manifest['client']) == (cases.SEED, cases.ROUND, cases.CLIENT)
  assert set(manifest['updates']) == {entry['update'] for entry in manifest['cases'].values()}


@pytest.mark.parametrize('golden', GOLDENS)
def test_frames_are_the_golden_ones(golden):
  entry = _manifest()['cases'].get(golden.name)
  assert entry, f'{golden} {NEW}'
  frame = (regenerate.FOLDER / entry['file']).read_bytes()
  assert (len(frame), hashlib.sha256(frame).hexdigest()) == (entry['bytes'], entry['sha256'])
  assert (str(golden.codec), golden.update) == (entry['codec'], entry['update']), HOW
  made = golden.frame()
  if made != frame:
    differing = next((i for i, (a, b) in enumerate(zip(made, frame)) if a != b), min(len(made), len(frame)))
    raise AssertionError(f'{len(made)} bytes, golden {len(frame)}; the first difference is byte {differing}: {HOW}')
  # And they are still read, with the codec as the manifest writes it.
  update, said = regenerate.update_of(golden), entry['decoded']
  decoded, found = regenerate.decoded(golden, frame)
  assert all(np.array_equal(decoded[n], v) for n, v in update.items() if v.dtype.kind in 'iub')
  if golden.exact:
    assert found == said, HOW
  for name, values in said['first'].items():
    largest = np.max(np.abs(decoded[name].astype(np.float64)))
    assert np.allclose(found['first'][name], values, rtol=0, atol=said.get('tolerance', 0) * largest), (name, HOW)


def test_the_manifest_is_enough_to_make_every_update():
  """From what it says alone: no name of a codec or of a case is looked at."""
  for name, description in _manifest()['updates'].items():
    made = updates.make(description)
    for variable in description:
      array = made[variable['name']]
      assert regenerate.sha256([array]) == variable['sha256'], (name, variable['name'])
      assert regenerate.first(array) == variable['first'], (name, variable['name'])


@pytest.mark.parametrize('case', cases.byte_cases(), ids=str)
def test_the_contracts_updates_are_described_as_they_are(case):
  expected, described = case.update(regenerate.SIZE), regenerate.update_of(regenerate.of_case(case))
  assert list(expected) == list(described)
  for name, array in expected.items():
    other = described[name]
    assert (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_the_learned_encoder_is_the_one_in_the_folder():
  digest = artefacts.load(str(regenerate.FOLDER / regenerate.NETWORK))
  assert digest == updates.network().digest
  assert digest in next(entry['codec'] for name, entry in _manifest()['cases'].items() if name == 'special.learned')


def test_normal_values_are_as_irregular_as_they_are_meant_to_be():
  described = {'name': 'x', 'dtype': 'float32', 'shape': [4000], 'values': {'normal': [1, -17]}}
  values = updates.make([described])['x'].astype(np.float64)
  # All 24 bits are used, and the moments are those of a normal distribution.
  assert np.mean(values.astype(np.float32).view(np.uint32) & 1) == pytest.approx(0.5, abs=0.03)
  z = (values - values.mean()) / values.std()
  assert abs(np.mean(z**3)) < 0.1 and np.mean(z**4) == pytest.approx(3, abs=0.25)


def test_the_readme_states_every_rule():
  text = (regenerate.FOLDER / 'README.md').read_text(encoding='utf-8')
  assert set(re.findall(r'^\| `(\w+)` \|', text, re.MULTILINE)) >= set(updates.RULES)
  assert all(f'`{key}`' in text for entry in _manifest()['cases'].values() for key in (*entry, *entry['decoded']))


@pytest.mark.thorough
def test_a_long_stream_is_among_them():
  """Its last positions come from words behind the 2^24-th."""
  golden = next(golden for golden in regenerate.goldens() if golden.update == 'long')
  decoded, _ = regenerate.decoded(golden, golden.frame())
  assert np.count_nonzero(decoded['long'][1 << 24:]) > 5


def test_an_empty_folder_is_filled_with_the_same_files(tmp_path, monkeypatch):
  few = regenerate.goldens()[:3] + regenerate.goldens()[-3:]
  monkeypatch.setattr(regenerate, 'goldens', lambda: few)
  said = regenerate.write(tmp_path)
  present, kept = regenerate.present(tmp_path), regenerate.present(regenerate.FOLDER)
  assert all(present[golden.file] == kept[golden.file] for golden in few)
  assert len(said) == len(few) + 2 and all(line.startswith('new') for line in said)
  (tmp_path / 'left.over.tfc').write_bytes(b'')
  (tmp_path / few[0].file).write_bytes(b'')
  assert regenerate.write(tmp_path) == [f'changed: {few[0].file}, {len(few[0].frame())} bytes',
                                        'removed: left.over.tfc']
  assert regenerate.write(tmp_path) == []
