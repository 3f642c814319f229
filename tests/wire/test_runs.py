"""docs/wire-format.md, "A run's messages", is complete and true: a reader written from it leads to the same bits."""

import hashlib
import struct

import pytest

from tests.golden import runs
from tests.golden import test_runs
from tests.wire import reference_runs
from tests.wire.reference import Refused

RUNS = test_runs.manifest()['runs']


def _run(said):
  return reference_runs.Run(said['variables'], said['seed'], bytes.fromhex(said['fingerprint']), said['momentum'],
                            said['rule'], said['first'], said['key_frames'], said['sums'])


def _read(entry):
  return (runs.FOLDER / entry['file']).read_bytes()


def _check(run, copy, said):
  assert copy['round'] == said['version']
  assert copy['model'][:4] == [pytest.approx(value, rel=1e-6) for value in said['first']]
  assert hashlib.sha256(run.content(copy)).hexdigest() == said['sha256']


@pytest.mark.parametrize('name', RUNS)
def test_a_reader_written_from_the_document_comes_to_the_same_bits(name):
  run = _run(RUNS[name])
  copies = {-1: None}
  for entry in RUNS[name]['messages'].values():
    data = _read(entry)
    if entry['kind'] == 'way':
      if entry['from'] not in copies:  # Clients that took part before.
        copies.update(_on_the_way(run, copies[0], data_of_all(name)))
      kept, present = run.follow(data, copies[entry['from']])
      _check(run, kept, entry['keeps'])
      _check(run, present, entry['present'])
      copies.setdefault(kept['round'], kept)
    elif entry['kind'] == 'upload':
      placed = name.startswith('fixed')
      held = copies[0] if placed else None
      kept = run.kept(held, 0) if placed else entry['kept']
      found = run.upload(entry['round'], entry['client'], kept, data)
      assert kept == entry['kept']
      packed = struct.pack(f'<{len(found)}{"i" if run.integers else "f"}', *found)
      assert hashlib.sha256(packed).hexdigest() == entry['coordinates']['sha256']
    elif entry['kind'] == 'copy':
      _check(run, run.stored(data), entry['keeps'])


def data_of_all(name):
  """The way that has most changes, to one that has the first version."""
  return max((_read(entry) for entry in RUNS[name]['messages'].values()
              if entry['kind'] == 'way' and entry['from'] == 0), key=len)


def _on_the_way(run, copy, way):
  """{version: copy} of all versions on a way of changes."""
  reader, found = reference_runs.reference.Reader(way[5:]), {}
  while reader.data:
    copy = run.change(copy, reader.take(reader.count()))
    found[copy['round']] = copy
  return found


def test_the_number_of_coordinates_of_every_round_follows_from_the_copy():
  for name, said in RUNS.items():
    if name.startswith('fixed'):
      continue
    run = _run(said)
    copies = {0: run.follow(_read(said['messages']['way.0.from.nothing']), None)[0]}
    copies.update(_on_the_way(run, copies[0], data_of_all(name)))
    uploads = [entry for entry in said['messages'].values() if entry['kind'] == 'upload']
    # Within a block, k is that of the round it began with: of blocks of 1, 1, 2 and 3 rounds here.
    begins = {3: 2, 5: 4, 6: 4} if name == 'blocks' else {}
    anchors = [begins.get(entry['round'], entry['round']) for entry in uploads]
    assert [run.kept(copies[anchor], anchor) for anchor in anchors] == [entry['kept'] for entry in uploads]
    assert name != 'rule' or len({entry['kept'] for entry in uploads}) > 1


def test_what_is_damaged_is_refused_by_the_reader_too():
  for said in RUNS.values():
    run = _run(said)
    entry = next(entry for entry in said['messages'].values() if entry['kind'] == 'upload')
    data = _read(entry)
    for bad in (data[:-1], data + b'\0', bytes([data[0] ^ 4]) + data[1:]):
      with pytest.raises(Refused):
        run.upload(entry['round'], entry['client'], entry['kept'], bad)
    way = _read(said['messages']['way.0.from.nothing'])
    for bad in (way[:-1], way + b'\0', bytes([way[0] ^ 4]) + way[1:], way[:1] + bytes([way[1] ^ 1]) + way[2:]):
      with pytest.raises(Refused):
        run.follow(bad, None)
