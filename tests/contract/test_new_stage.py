"""A stage comes under the contract by being a file in its folder, and the contract finds what is wrong with it."""

import importlib
import sys
import textwrap

import pytest

from tests.contract import cases
from tests.contract import checks
from tff_compress import codec as codec_lib
from tff_compress.codec import grammar
from tff_compress.codec import stage as stage_lib
from tff_compress.codec import transforms

_HEAD = '''
"""A test stage."""
import dataclasses
from typing import ClassVar
import numpy as np
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Real, Side, Stage
'''


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
  """Function from a module's text to the cases of the stages in it, once it lies in the folder of transforms."""

  def forget():
    """Nothing that was learned about a stage of this name may be taken for the next one."""
    sys.modules.pop('tff_compress.codec.transforms.dropped_in', None)
    importlib.invalidate_caches()
    grammar._parse.cache_clear()
    checks._errors.cache_clear()

  def drop(text):
    forget()
    (tmp_path / 'dropped_in.py').write_text(_HEAD + textwrap.dedent(text), encoding='utf-8')
    monkeypatch.setattr(stage_lib, '_registry', {})
    return [case for case in cases.all_cases() if case.name not in known]

  known = {case.name for case in cases.all_cases()}
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  monkeypatch.setattr(transforms, '__path__', [*transforms.__path__, str(tmp_path)])
  yield drop
  forget()


def _failing(case):
  """Names of the checks that the case does not pass."""
  failing = []
  for check in checks.ALL:
    try:
      check(case)
    except Exception:
      failing.append(check.__name__)
  return failing


def test_a_file_is_enough_to_come_under_the_contract(drop_in):
  found = drop_in('''
      @dataclasses.dataclass(frozen=True)
      class Halve(Stage):
        name: ClassVar[str] = 'halve'
        linear: ClassVar[bool] = True
        unbiased: ClassVar[bool] = True
        examples: ClassVar[tuple] = ('', 'times=3')
        times: int = 1

        def output(self, signal):
          return signal

        def nmse_bound(self, signal):
          return 0.0

        def encode(self, xp, values, draws, signal):
          return values * np.float32(0.5**self.times), {}

        def decode(self, xp, values, side, draws, signal):
          return values * np.float32(2**self.times)
      ''')
  assert [(case.name, str(case.codec)) for case in found] == [
      ('halve', 'halve | float32'), ('halve.times-3', 'halve:times=3 | float32')]
  for case in found:
    for check in checks.ALL:
      check(case)


_TEMPLATE = '''
@dataclasses.dataclass(frozen=True)
class Wrong(Stage):
  name: ClassVar[str] = 'wrong'
  unbiased: ClassVar[bool] = {unbiased}
  linear: ClassVar[bool] = {linear}

  def output(self, signal):
    return signal

  def side(self, signal):
    return {side}

  def nmse_bound(self, signal):
    return {bound}

  def encode(self, xp, values, draws, signal):
    {encode}

  def decode(self, xp, values, side, draws, signal):
    {decode}
'''
_RIGHT = dict(unbiased=True, linear=False, side='()', bound=0.0, encode='return values, {}', decode='return values')
# A dither of the client's own, added by the encoder; {scope} is whose.
_NOISY = ("dither = draws.of('{}', Purpose.QUANTIZER).dither(signal.size); "
          'return values + (dither - np.float32(0.5)) * np.float32(0.1), {{}}')


@pytest.mark.thorough
@pytest.mark.parametrize('wrong, caught_by', [
    (dict(decode='return values * np.float32(0.999)', bound=1e-3), 'is_unbiased_where_it_says_so'),
    (dict(decode='return values * np.float32(0.9)', unbiased=False, bound=1e-3), 'error_is_within_its_declared_bound'),
    (dict(decode='return values * values', linear=True, unbiased=False, bound=9.0), 'linear_prefix_decodes_the_sum'),
    (dict(encode=_NOISY.format('round'), bound=9.0), 'error_of_the_mean_falls_as_one_over_n'),
    (dict(encode="return values, {'s': xp.constant([1], np.int32)}", side="(Side('s', 1, 1),)",
          decode='return values + side["s"] * np.float32(np.nan)'), 'every_shape_comes_back'),
    (dict(encode="return values, {'s': xp.constant([1], np.int32)}", side="(Side('s', 1, 4),)",
          decode='return values[np.zeros(signal.size, np.int32) + side["s"] - 1] * 0 + values'),
     'damaged_payloads_are_refused_or_decode_to_numbers'),
    (dict(encode="return values, {'s': xp.constant([1], np.int32)}", side="(Side('s', 1, 4),)",
          decode='return values + np.zeros(int(side["s"][0]) % (1 << 24) + 1, np.float32)[:1]'),
     'damaged_payloads_are_refused_or_decode_to_numbers'),
    (dict(encode='return np.random.default_rng().permutation(values), {}', bound=9.0, unbiased=False),
     'same_keys_give_the_same_bytes_and_others_do_not'),
    (dict(encode="return values, {'s': xp.constant([1, 2], np.int32)}", side="(Side('s', 1, 1),)"),
     'sizes_said_are_sizes_sent'),
], ids=['shrinks', 'beyond its bound', 'not linear', 'shares its rounding', 'not finite', 'reads out of bounds',
        'allocates what a payload says', 'hidden randomness', 'sends more than it says'])
def test_the_contract_finds_what_is_wrong(drop_in, wrong, caught_by):
  case, = drop_in(_TEMPLATE.format(**{**_RIGHT, **wrong}))
  assert caught_by in _failing(case)


@pytest.mark.thorough
def test_a_right_stage_from_the_same_template_passes(drop_in):
  case, = drop_in(_TEMPLATE.format(**_RIGHT))
  assert not _failing(case)
  noisy, = drop_in(_TEMPLATE.format(**{**_RIGHT, 'encode': _NOISY.format('client'), 'bound': 9.0}))
  assert 'error_of_the_mean_falls_as_one_over_n' not in _failing(noisy)


def test_the_registry_is_as_before(drop_in):
  del drop_in
  assert 'wrong' not in stage_lib.registry()
  with pytest.raises(codec_lib.CodecError):
    codec_lib('wrong | float32')
