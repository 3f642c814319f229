"""What a device keeps, and being killed between any two steps."""

import os

import numpy as np
import pytest

from tests.serving.test_protocol import EXAMPLES
from tff_compress.device import keeping as keeping_lib
from tff_compress.device.errors import DeviceError
from tff_compress.device.keeping import Keeping

ASSIGNMENT = EXAMPLES['Assignment']
OLD, NEW = {'residual_0': np.zeros(3, np.float32)}, {'residual_0': np.ones(3, np.float32)}


def test_an_update_and_its_residuals_outlive_the_process(tmp_path):
  Keeping(str(tmp_path)).keep_update(ASSIGNMENT, b'frame', NEW)
  again = Keeping(str(tmp_path))
  assert again.update() == (ASSIGNMENT, b'frame') and again.residuals(ASSIGNMENT.fingerprint) == {}
  again.settle(True)
  assert again.update() is None
  np.testing.assert_array_equal(again.residuals(ASSIGNMENT.fingerprint)['residual_0'], 1)
  assert again.residuals('00000000') == {}


def test_what_was_not_counted_leaves_the_residuals_as_they_were(tmp_path):
  keeping = Keeping(str(tmp_path))
  keeping.keep_update(ASSIGNMENT, b'one', OLD)
  keeping.settle(True)
  keeping.keep_update(ASSIGNMENT, b'two', NEW)
  keeping.settle(False)
  np.testing.assert_array_equal(keeping.residuals(ASSIGNMENT.fingerprint)['residual_0'], 0)


@pytest.mark.parametrize('counted', [True, False])
def test_killed_between_any_two_steps_a_residual_is_committed_if_and_only_if_it_is_counted(
    tmp_path, monkeypatch, counted):
  """The server gives the same receipt again; so what is settled again is settled alike."""
  for place in range(20):
    keeping = Keeping(str(tmp_path / str(place)))
    keeping.keep_update(ASSIGNMENT, b'one', OLD)
    keeping.settle(True)
    steps = []

    def step(real, steps=steps, place=place):
      def act(*arguments, **more):
        steps.append(real)
        if len(steps) == place + 1:
          raise KeyboardInterrupt
        return real(*arguments, **more)
      return act

    sent = killed = False
    with monkeypatch.context() as patched:
      for module, name in ((os, 'replace'), (os, 'remove')):
        patched.setattr(module, name, step(getattr(module, name)))
      try:
        keeping.keep_update(ASSIGNMENT, b'two', NEW)
        sent = True
        keeping.settle(counted)
      except KeyboardInterrupt:
        killed = True
    again = Keeping(str(tmp_path / str(place)))
    pending = again.update()
    assert pending in (None, (ASSIGNMENT, b'two'))
    sent = sent or pending is not None
    again.settle(counted and pending is not None)
    kept = again.residuals(ASSIGNMENT.fingerprint)['residual_0'][0]
    assert kept == (1 if sent and counted else 0)
    if not killed:
      assert place > 3
      return
  raise AssertionError('it never came to the end')


def test_a_damaged_file_is_not_there_and_old_ones_make_room(tmp_path, monkeypatch):
  monkeypatch.setattr(keeping_lib, 'MOST_CACHED', 25)
  keeping = Keeping(str(tmp_path))
  digests = []
  for place in range(3):
    data = bytes([place]) * 10
    keeping.cache(data)
    digests.append(__import__('hashlib').sha256(data).hexdigest())
    os.utime(tmp_path / 'cache' / digests[-1], (place, place))
  assert [keeping.cached(digest) is not None for digest in digests] == [False, True, True]
  (tmp_path / 'cache' / digests[2]).write_bytes(b'x')
  assert keeping.cached(digests[2]) is None
  with pytest.raises(DeviceError):
    keeping.cached('../tokens.json')
