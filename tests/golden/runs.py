"""The golden messages of runs in the shared subspace: `python -m tests.golden.regenerate` writes them to timeline/.

A run here has one client a round, so that its mean is what the client sent. README.md says what manifest.json holds.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np

from tests.golden import updates
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.fixed_form import FixedForm
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.server import Server
from tff_compress.subspace.session import Session
from tff_compress.subspace.sums import SUMS
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.start import Start

FOLDER = pathlib.Path(__file__).resolve().parent / 'timeline'
MANIFEST = 'manifest.json'
VARIABLES = [['dense/kernel', [36, 40]], ['dense/bias', [40]], ['gate', []]]
"""1481 values: 2048 with those that fill up."""


@dataclasses.dataclass(frozen=True)
class GoldenRun:
  """Settings of a run, and what happens in it.

  Attributes:
    seed, momentum, rule, first, key_frames: as in the manifest.
    start: whether a start draws the first model.
    rounds: (bits of the change, bits of the next messages) for each round; None for a round without messages.
    asks: {round: versions of clients that ask before it}; the last is behind all rounds.
    key_frame_bytes: about how long one is.
    fixed: bits of placements; None for changes.
    hold: rounds that a subspace is held for; with `fixed`. None: for good.
    sums: a name of `subspace.sums`.
    bits: of the first messages.
    saved: rounds before which the server is stored, besides that behind all.
  """
  seed: int
  rule: dict
  rounds: tuple
  asks: dict
  momentum: float = 0.0
  first: str = 'float32'
  key_frames: str = 'uniform | pack'
  start: bool = False
  key_frame_bytes: int | None = None
  fixed: int | None = None
  hold: int | None = None
  sums: str = 'private'
  bits: int = 1
  saved: tuple = ()

  @functools.cached_property
  def session(self):
    spec = Spec.of({name: np.zeros(shape, np.float32) for name, shape in VARIABLES})
    runtime = NumpyRuntime(spec, self.seed, codec_lib(self.key_frames), codec_lib(self.first))
    return Session(spec.parameters, self.seed, Rate(**self.rule), self.momentum, runtime, SUMS[self.sums])


RULE = {'noise': None, 'rounds': 300, 'first': 0.25, 'most': 1.0, 'floor': 1}
RUNS = {
    # Every number of bits both ways, an empty round, and a client that holds any version.
    'bits': GoldenRun(2**64 - 3, RULE, ((1, 2), (2, 3), (3, 4), None, (4, 1)), {0: (-1, 0), 5: (-1, 0, 2, 4, 5)},
                      start=True),
    # k by the rule, momentum, a key frame, a first model that is not exact.
    'rule': GoldenRun(7, {**RULE, 'noise': 1.5, 'rounds': 9, 'floor': 256}, ((1, 1),) * 8,
                      {0: (-1,), 3: (-1, 1), 8: (-1, 0, 7)}, momentum=0.75, first='float16', key_frame_bytes=500),
    'fixed': GoldenRun(11, {**RULE, 'first': 0.13}, ((1, 2), (1, 1), None), {0: (-1,), 2: (-1, 0), 3: (0,)}, fixed=6),
    # A scale for all, in changes and in placements.
    'integers': GoldenRun(5, {**RULE, 'first': 0.13}, ((1, 2), (2, 8), (4, 5), None, (1, 4)),
                          {0: (-1,), 5: (-1, 0, 3)}, sums='integers', bits=3),
    'fixed-integers': GoldenRun(3, {**RULE, 'first': 0.13}, ((1, 4), (1, 7)), {0: (-1,), 2: (-1, 0)}, fixed=8,
                                sums='integers', bits=6),
    # Blocks of 1, 1, 2 and 3 rounds.
    'blocks': GoldenRun(17, {**RULE, 'signal': 0.7, 'floor': 256},
                        ((1, 1), (3, 2), (1, 1), (2, 1), None, (1, 3), (4, 1)),
                        {0: (-1,), 3: (-1, 0, 2), 6: (0,), 7: (-1, 0, 4)}, fixed=2, hold=3, saved=(6,)),
}


def update_of(number):
  """Rule of the update of a round: d values."""
  return {'normal': [100 + number, -22]}


def _made(rule, size):
  return updates.make([{'name': 'x', 'dtype': 'float32', 'shape': [size], 'values': rule}])['x']


MODEL = {'normal': [99, -20]}


def _server(run):
  model = _made(MODEL, run.session.size)
  if not run.start:
    return Server.begin(run.session, model, bits=run.bits, form=form_of(run)), None
  start = Start.like(np.split(model, [1440, 1480])[:1] + [np.repeat(np.float32([0, 1]), 20), np.float32([0.5])], 12)
  drawn = start.vector(run.session.runtime.spec)
  return Server.begin(run.session, drawn, start=start.to_bytes(), form=form_of(run)), start


def form_of(run):
  """What a run's rounds end with."""
  if run.hold is not None:
    return BlockForm(run.hold, placement_bits=run.fixed)
  return RoundForm(run.key_frame_bytes) if run.fixed is None else FixedForm(bits=run.fixed)


def _sha256(data):
  return hashlib.sha256(bytes(data)).hexdigest()


def _first(values):
  return [float(str(np.float32(value))) for value in values[:4]]


def messages(run):
  """[(name, bytes, what the manifest says besides)] of a run, in the order in which they come."""
  session, found = run.session, []
  server, _ = _server(run)
  copies = {-1: Copy(session)}

  def ask(number):
    for version in run.asks.get(number, ()):
      way = server.timeline.way(version)
      there = copies[version].follow(way)
      assert there.digest == bytes(session.digest(xp, there.held))
      copies.setdefault(there.version, Copy(session, there.held))
      found.append((f'way.{number}.from.{"nothing" if version < 0 else version}', way, {
          'kind': 'way', 'round': number, 'from': version, 'keeps': _said(session, there.held),
          'present': _said(session, there.present)}))

  def save(number):
    found.append((f'server.{number}', server.to_bytes(), {
        'kind': 'server', 'round': number, 'version': server.timeline.version, 'present': _said(session, server.copy)}))

  copies[0] = Copy(session).follow(server.timeline.way())
  for number, bits in enumerate(run.rounds):
    ask(number)
    if number in run.saved:
      save(number)
    mean = scale = None
    change, following = bits or (1, run.bits)
    if bits is not None:
      client = 1000 * number + 3
      update = _made(update_of(number), session.size)
      upload = bytes(session.upload(xp, server.copy, update, client))
      sent = server.read(upload, client)
      mean = session.sums.mean(xp, server.copy, sent, np.float32(1))
      scale = session.next_scale(xp, server.copy, sent, np.float32(1), following)
      found.append((f'upload.{number}', upload, {
          'kind': 'upload', 'round': number, 'client': client, 'update': update_of(number), 'kept': len(mean),
          'coordinates': {'sha256': _sha256(sent.astype(sent.dtype.newbyteorder('<')).tobytes()),
                          'first': _first(sent)}}))
    before = server
    server = server.after(mean, learning_rate=0.5, bits=change, next_bits=following, next_scale=scale)
    if server.timeline.version != before.timeline.version:
      held = {name: value for name, value in server.copy.items() if name != 'anchor'}
      copies[server.timeline.version] = Copy(session, held)
  ask(len(run.rounds))
  save(len(run.rounds))
  newest = copies[server.timeline.version]
  found.append(('copy', newest.to_bytes(), {'kind': 'copy', 'keeps': _said(session, newest.held)}))
  return found


def _said(session, copy):
  """What the manifest says of a copy."""
  return {'version': int(copy['round']), 'sha256': _sha256(session.content(xp, copy)), 'first': _first(copy['model'])}


@functools.cache
def contents():
  """{file name: bytes} of everything that belongs in the folder."""
  result, runs = {}, {}
  for name, run in RUNS.items():
    entries = {}
    for message, data, said in messages(run):
      file = f'{name}.{message}.bin'
      result[file] = data
      entries[message] = {'file': file, 'bytes': len(data), 'sha256': _sha256(data), **said}
    runs[name] = {
        'variables': VARIABLES, 'seed': run.seed, 'fingerprint': run.session.fingerprint.hex(),
        'momentum': run.momentum, 'sums': run.sums, 'rule': run.rule, 'first': str(codec_lib(run.first)),
        'key_frames': str(codec_lib(run.key_frames)), 'model': None if run.start else MODEL, 'learning_rate': 0.5,
        'messages': entries}
  result[MANIFEST] = _json(runs).encode('utf-8')
  return result


def _json(runs):
  """JSON with a line for each setting and each message of a run."""
  def block(items, pad):
    return '{\n' + ',\n'.join(f'{pad} {json.dumps(name)}: {text}' for name, text in items) + f'\n{pad}}}'

  def lines(run):
    messages = [(name, json.dumps(entry)) for name, entry in run['messages'].items()]
    settings = [(name, json.dumps(value)) for name, value in run.items() if name != 'messages']
    return block([*settings, ('messages', block(messages, '   '))], '  ')

  described = block([(name, lines(run)) for name, run in runs.items()], ' ')
  return block([('format', '1'), ('runs', described)], '') + '\n'
