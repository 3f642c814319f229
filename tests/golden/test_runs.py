"""Messages of runs are, byte for byte, the golden ones, and the manifest says what each leads to."""

import hashlib
import json

import pytest

from tests.golden import regenerate
from tests.golden import runs
from tff_compress.codec import counts
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace.server import Server

HOW = 'if the format was meant to change, run `python -m tests.golden.regenerate`'


def manifest():
  return json.loads((runs.FOLDER / runs.MANIFEST).read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', runs.RUNS)
def test_messages_are_the_golden_ones(name):
  said = manifest()['runs'].get(name)
  assert said, f'{name} has no golden messages yet: run `python -m tests.golden.regenerate`'
  made = runs.messages(runs.RUNS[name])
  assert [message for message, _, _ in made] == list(said['messages']), HOW
  for message, data, entry in made:
    golden = (runs.FOLDER / said['messages'][message]['file']).read_bytes()
    assert data == golden, f'{message}: {HOW}'
    assert said['messages'][message] == {
        'file': f'{name}.{message}.bin', 'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest(), **entry}, HOW
  assert said['fingerprint'] == runs.RUNS[name].session.fingerprint.hex(), HOW


@pytest.mark.parametrize('name', runs.RUNS)
def test_servers_that_were_stored_go_on(name):
  run, said = runs.RUNS[name], manifest()['runs'][name]['messages'].values()
  servers = [entry for entry in said if entry['kind'] == 'server']
  for entry in servers:
    data = (runs.FOLDER / entry['file']).read_bytes()
    server = Server.from_bytes(run.session, data, form=runs.form_of(run))
    assert (server.round, server.timeline.version) == (entry['round'], entry['version'])
    assert server.to_bytes() == data
  assert servers


def test_every_file_is_of_a_message():
  assert regenerate.present(runs.FOLDER).keys() == runs.contents().keys(), HOW
  assert (runs.FOLDER / runs.MANIFEST).read_bytes() == runs.contents()[runs.MANIFEST], HOW


def test_messages_of_all_kinds_are_among_them():
  """Starts, first models, key frames, changes of 1 to 4 bits, one that codes the model, an empty one, a placement."""
  bases, changes, placements = set(), set(), 0
  for run in manifest()['runs'].values():
    for entry in run['messages'].values():
      if entry['kind'] != 'way':
        continue
      data = (runs.FOLDER / entry['file']).read_bytes()
      flags, rest = data[0], xp.constant(list(data[5:]), 'uint8')
      if flags & 1:
        base, rest = counts.take(xp, rest)
        bases.add(int(base[0]))
      if flags & 2:
        _, rest = counts.take(xp, rest)
        placements += 1
      while rest.size:
        change, rest = counts.take(xp, rest)
        changes |= {f'{change[0] & 7} bits', f'{change[0] >> 7} coded'} if change.size else {'empty'}
  assert bases == {0, 1, 2} and placements
  assert changes == {'1 bits', '2 bits', '3 bits', '4 bits', '0 coded', '1 coded', 'empty'}
