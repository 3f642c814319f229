"""A history of a model: everybody comes to the same present, by the shortest way there is, whatever was missed."""

import collections
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.timeline import toy
from tff_compress.codec import counts
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.timeline import Timeline

FIRST = collections.OrderedDict(round=np.int32(0), value=np.int32(77))
LENGTHS = st.integers(0, 200)


class Run:
  """A server with toy records, which also remembers everything that it ever sent."""

  def __init__(self, filling=20):
    self.copy = FIRST
    base = toy.base_of(self.copy, filling)
    self.timeline = Timeline.begin(base, toy.digest_of(self.copy))
    self.changes, self.bases = [], {0: base}

  def round(self, length, key_frame=None):
    """A change, and a key frame that is filled up so much, if there is to be one."""
    record = toy.change(length, len(self.changes))
    self.copy = toy.RULES.move(xp, self.copy, record)
    self.changes.append(record)
    self.timeline = self.timeline.with_change(record, toy.digest_of(self.copy))
    if key_frame is not None:
      base = toy.base_of(self.copy, key_frame)
      self.bases[len(self.changes)] = min(base, self.bases.get(len(self.changes), base), key=len)
      self.timeline = self.timeline.with_key_frame(base, toy.digest_of(self.copy))

  def _behind(self, version):
    return sum(counted(record) for record in self.changes[version:])

  def by_changes(self, version):
    """Bytes of the way by changes alone."""
    return history.HEADER_BYTES + self._behind(version)

  def by_a_base(self):
    """Bytes of the shortest way from any base that ever was."""
    return history.HEADER_BYTES + min(counted(base) + self._behind(version) for version, base in self.bases.items())

  def shortest(self, version):
    """Bytes of the shortest of all ways."""
    return self.by_a_base() if version == history.UNKNOWN else min(self.by_changes(version), self.by_a_base())


def counted(record):
  return len(counts.encode(xp, np.asarray([len(record)], np.int32))) + len(record)


rounds = st.lists(st.tuples(LENGTHS, st.none() | LENGTHS), max_size=12)
few = hypothesis.settings(max_examples=40)


@few
@hypothesis.given(LENGTHS, rounds)
def test_every_prefix_of_a_history_leads_every_version_to_the_same_bits_by_the_shortest_way(filling, happenings):
  run = Run(filling)
  copies = {history.UNKNOWN: Copy(toy.RULES)}
  for happening in [None, *happenings]:
    if happening:
      run.round(*happening)
    timeline = run.timeline
    for version, copy in copies.items():
      way = timeline.way(version, copy.digest)
      assert len(way) == timeline.cost(version) == run.shortest(version)
      there = copy.follow(way)
      assert toy.RULES.content(xp, there.held).tobytes() == toy.RULES.content(xp, run.copy).tobytes()
      assert (there.version, there.digest) == (timeline.version, toy.digest_of(run.copy))
    copies[timeline.version] = there


@few
@hypothesis.given(LENGTHS, rounds)
@hypothesis.example(0, [(8, 0), (0, None)])
@hypothesis.example(0, [(9, 0), (0, None)])
def test_a_change_is_dropped_exactly_where_no_shortest_way_uses_it(filling, happenings):
  run = Run(filling)
  for happening in happenings:
    run.round(*happening)
    kept = len(run.timeline.state['ends'])
    newest = run.timeline.version
    useful = [version for version in range(newest + 1) if run.by_changes(version) <= run.by_a_base()]
    assert useful == list(range(newest - kept, newest + 1))
    assert len(run.timeline.digests) == kept + 1


@few
@hypothesis.given(LENGTHS, st.integers(20, 100), st.lists(LENGTHS, max_size=60))
def test_what_is_kept_is_bounded_where_key_frames_come_when_due(filling, key_frame, lengths):
  """At most the changes that are as long as a key frame, those behind it, and one more; and no way is longer than two
  key frames and a change."""
  run, size = Run(filling), 8 + key_frame
  longest, most = max([1, *map(len, [toy.change(n, 0) for n in lengths])]) + 2, max(size, 8 + filling) + 2
  for length in lengths:
    run.round(length, key_frame if run.timeline.key_frame_due(size) else None)
    timeline = run.timeline
    assert history.behind_base(xp, timeline.state) <= most + longest
    assert timeline.cost() <= history.HEADER_BYTES + 2 * most + longest
    assert timeline.state['log'].size <= 2 * most + longest
    assert timeline.size <= 3 * most + longest + 8 * len(timeline.digests)


def test_key_frames_are_as_rare_as_the_changes_are_short():
  """A key frame of 100 bytes comes after eleven changes of 10: those before the last one count no more."""
  run = Run()
  frames = []
  for number in range(400):
    due = run.timeline.key_frame_due(100)
    if due:
      frames.append(number)
    run.round(9, 92 if due else None)
  assert set(np.diff(frames)) == {12}


@pytest.mark.parametrize('limit, most', [('MOST_CHANGES', 7), ('MOST_BYTES', 7 * 10)])
def test_at_a_limit_a_key_frame_comes_even_if_changes_would_be_shorter(monkeypatch, limit, most):
  monkeypatch.setattr(history, limit, most)
  run, frames = Run(), []
  for number in range(30):
    due = run.timeline.key_frame_due(1000)
    run.round(9, 992 if due else None)
    if due:
      frames.append(number)
      assert run.timeline.cost() == history.HEADER_BYTES + 2 + 1000 > run.by_a_base()
    for copy in (Copy(toy.RULES), Copy(toy.RULES, FIRST)):
      assert copy.follow(run.timeline.way(copy.version, copy.digest)).digest == toy.digest_of(run.copy)
    # Who has any model still receives changes: they are shorter than the key frame.
    assert run.timeline.cost(0) == run.by_changes(0)
  assert frames == [7, 15, 23]


@pytest.mark.parametrize('version', [-2, 4, 5, 2**31, -2**31, 2**40, 1.0, '0', None, True])
def test_a_version_that_never_was_is_refused(version):
  run = Run()
  for _ in range(3):
    run.round(10)
  for ask in (run.timeline.check, run.timeline.way, run.timeline.cost):
    with pytest.raises(history.VersionError):
      ask(version)
  run.timeline.check(3)


def test_a_version_of_another_run_is_refused_as_long_as_it_may_be_led_by_changes():
  run, other = Run(), Run()
  for _ in range(6):
    run.round(10)
    other.round(11)
  copy = Copy(toy.RULES).follow(other.timeline.way())
  with pytest.raises(history.VersionError, match='another run'):
    run.timeline.way(copy.version, copy.digest)
  run.timeline.way(copy.version)  # Who does not say is not found out here,
  run.round(5)
  with pytest.raises(history.DigestError):  # but by itself.
    copy.follow(run.timeline.way(copy.version))
  assert copy.version == 6  # And what it had, it still has.
  run.round(10, key_frame=3)
  run.round(10)
  # The way is by a base now, and what it held is of no interest.
  assert copy.follow(run.timeline.way(copy.version, copy.digest)).digest == toy.digest_of(run.copy)


def test_who_holds_nothing_cannot_follow_changes():
  run = Run()
  run.round(10)
  with pytest.raises(PayloadError, match='holds none'):
    Copy(toy.RULES).follow(run.timeline.way(0))
  with pytest.raises(PayloadError):
    Copy(toy.RULES).to_bytes()


def test_a_placement_is_the_last_word_and_void_with_the_next_change():
  run = Run()
  run.round(10)
  held = run.copy
  state = run.timeline.state
  for length in (30, 12):
    record = toy.change(length, 0)
    present = toy.RULES.place(xp, held, np.frombuffer(record, np.uint8))
    state = history.with_placement(xp, state, np.frombuffer(record, np.uint8), toy.RULES.digest(xp, present))
    for copy, before in ((Copy(toy.RULES), 28 + 1 + 11), (Copy(toy.RULES, FIRST), 11), (Copy(toy.RULES, held), 0)):
      message = bytes(history.way(xp, state, copy.version))
      assert len(message) == history.HEADER_BYTES + before + 1 + length == history.cost(xp, state, copy.version)
      copy = copy.follow(message)
      assert (copy.held, copy.present) == (held, present)
    # The version itself is as it was, for who holds it, and goes on from bytes.
    timeline = Timeline.from_bytes(run.timeline.followed_by(state).to_bytes())
    assert timeline.digests == run.timeline.digests
    assert timeline.way(1, toy.digest_of(held)) == message
  state = history.with_change(xp, state, np.zeros(3, np.uint8), toy.RULES.digest(xp, held))
  assert state['placement'].size == 0
  for flags in range(4, 256, 4):
    with pytest.raises(PayloadError, match='flags'):
      Copy(toy.RULES, FIRST).follow(bytes([flags | message[0]]) + message[1:])
  with pytest.raises(PayloadError, match='placement'):
    history.follow(xp, np.frombuffer(message, np.uint8), held, on_base=None, on_change=None)


def test_another_model_in_place_of_this_one_makes_all_copies_anew():
  run = Run()
  for _ in range(3):
    run.round(10)
  other = collections.OrderedDict(round=np.int32(4), value=np.int32(5))
  state = history.renewed(xp, run.timeline.state, np.frombuffer(toy.base_of(other, 20), np.uint8),
                          np.frombuffer(toy.digest_of(other), np.uint8))
  timeline = run.timeline.followed_by(state)
  assert (timeline.version, timeline.digests) == (4, (toy.digest_of(other),))
  for version in range(-1, 4):
    assert Copy(toy.RULES, run.copy).follow(timeline.way(version)).held == other
  assert len(timeline.way(4)) == history.HEADER_BYTES


@pytest.fixture(scope='module')
def messages():
  """(copy, way) for ways of all kinds: nothing new, changes, a base alone, a base and changes."""
  run = Run()
  copies = [Copy(toy.RULES), Copy(toy.RULES, FIRST)]
  found = [(copies[0], run.timeline.way()), (copies[1], run.timeline.way(0))]
  for length in (0, 130, 5):
    run.round(length)
    found += [(copy, run.timeline.way(copy.version)) for copy in copies]
  return found


def test_no_way_that_was_cut_off_flipped_or_lengthened_is_followed(messages):
  for copy, way in messages:
    assert copy.follow(way).version >= 0
    harmed = [way[:n] for n in range(len(way))]
    harmed += [flipped(way, bit) for bit in range(8 * len(way))]
    harmed += [way + b'\0', way + b'\1', way + b'\1\0', way + way]
    for bad in harmed:
      with pytest.raises(PayloadError):
        copy.follow(bad)


def flipped(data, bit):
  changed = bytearray(data)
  changed[bit // 8] ^= 1 << bit % 8
  return bytes(changed)


def test_lengths_that_a_message_only_claims_take_no_memory():
  huge = b'\xff\xff\xff\xff\x07'  # 2^31 - 1.
  tracemalloc.start()
  for flags in range(4):
    for held in (None, FIRST):
      with pytest.raises(PayloadError):
        Copy(toy.RULES, held).follow(bytes([flags]) + bytes(4) + huge + bytes(100))
  for head in (Timeline.begin(b'', b'1234').to_bytes()[:12], Copy(toy.RULES, FIRST).to_bytes()[:8]):
    with pytest.raises(PayloadError):
      Timeline.from_bytes(head + huge + bytes(9))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1 << 18


@few
@hypothesis.given(LENGTHS, rounds)
def test_a_timeline_and_a_copy_go_on_from_bytes_as_if_nothing_had_been(filling, happenings):
  run = Run(filling)
  copy = Copy(toy.RULES).follow(run.timeline.way())
  for happening in happenings:
    run.round(*happening)
    again = Timeline.from_bytes(run.timeline.to_bytes())
    assert again.digests == run.timeline.digests and again.to_bytes() == run.timeline.to_bytes()
    for version in range(-1, run.timeline.version + 1):
      assert again.way(version) == run.timeline.way(version)
    run.timeline = again
    copy = Copy.from_bytes(toy.RULES, copy.to_bytes()).follow(again.way(copy.version, copy.digest))
    assert copy.digest == toy.digest_of(run.copy)


def test_damaged_bytes_of_a_timeline_and_of_a_copy_are_refused():
  run = Run()
  for length in (0, 130, 5):
    run.round(length, 3)
  copy = Copy(toy.RULES, run.copy)
  for data, read in ((run.timeline.to_bytes(), Timeline.from_bytes),
                     (copy.to_bytes(), lambda data: Copy.from_bytes(toy.RULES, data))):
    read(data)
    for bad in [*(data[:n] for n in range(len(data))), data + b'\0', *(flipped(data, b) for b in range(8 * len(data)))]:
      with pytest.raises(PayloadError):
        read(bad)


def test_a_copy_of_another_run_or_release_is_told_apart():
  data = Copy(toy.RULES, FIRST).to_bytes()
  other = toy.ToyRules()
  other.fingerprint = b'sand'
  with pytest.raises(PayloadError, match='another run'):
    Copy.from_bytes(other, data)
  with pytest.raises(PayloadError, match='version 2'):
    Copy.from_bytes(toy.RULES, data[:3] + b'\2' + data[4:])
  # The same model of another run is another copy.
  run = Run()
  with pytest.raises(history.DigestError):
    Copy(other).follow(run.timeline.way())


def test_errors_are_of_one_family():
  assert issubclass(history.VersionError, CompressionError) and issubclass(history.DigestError, PayloadError)


@hypothesis.given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_followed_or_refused_with_a_typed_error(data, holds):
  try:
    Copy(toy.RULES, FIRST if holds else None).follow(data)
  except PayloadError:
    pass
