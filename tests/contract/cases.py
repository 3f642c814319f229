"""What the contract is held to: every registered stage in a valid pipeline, every preset, and some larger codecs.

A stage or preset comes in by being registered, with the `examples` its class states; nothing here names one, except the
larger codecs, which show how stages stand together. Tests of other runtimes take `byte_cases` and `update` from here.
"""

import dataclasses
import itertools
import re
import zlib

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib

SEED, ROUND, CLIENT = 42, 5, 7
"""Keys of the messages that are held to bytes."""

ROTATION = 'hadamard:rotations=2,key=client'

QUANTIZERS = ('uniform:bits=4', f'{ROTATION} | ternary:threshold=1.728', f'{ROTATION} | eden:bits=3', 'uniform:bits=1')
"""What stands before a coder under test: alphabets on one side of zero and around it; those it refuses are left out."""

LARGER = {
    'sketch-everywhere': 'hadamard | subsample:1/16 | uniform:bits=2 | pack',
    'sampled-eden': 'hadamard:rotations=2,key=client | subsample:0.3,key=client | eden:bits=2 | pack',
    'sampled-ternary': 'subsample:1/4,key=client | hadamard:key=client | ternary:threshold=1.208 | rice',
    'two-rotations': 'hadamard | hadamard:key=client | uniform:bits=3,range=tensor | elias',
    'low-rank-uniform': 'size<100 => concat | float32; '
                        '* => lowrank:1/2,key=client | hadamard:key=client | uniform:bits=4 | pack',
    'two-masks': 'subsample:1/2 | subsample:1/3 | float16',
    'sparse-uniform': 'topk:1/20 | uniform:bits=4 | elias',
    'sparse-eden': 'topk:1/10 | topk:1/2 | hadamard:rotations=2,key=client | eden:bits=4 | pack',
    'joined': 'concat | hadamard | uniform:bits=4 | pack',
    'rules': '*/bias => float32; size<100 => float16; * => uniform:bits=5 | rice',
    'joined-rules': '*/bias & size<100 => concat | uniform:bits=8,range=tensor | elias; '
                    '* => concat | hadamard:rotations=2 | uniform:bits=6 | pack',
}

LARGEST = {
    'lanes': 'size<9000 => float32; * => hadamard:rotations=2,block=4096 | uniform:bits=2 | rans',
}
"""Codecs whose layout changes with many values, for comparisons of bytes: too slow for statistics."""

ANY_MODEL = pytest.mark.filterwarnings('ignore:the rule .* fits no variable:tff_compress.codec.UnmatchedRuleWarning')
"""For tests that give codecs with rules to models that those rules were not written for."""


@dataclasses.dataclass(frozen=True)
class Case:
  """One codec under test.

  Attributes:
    name: unique, and fit for a file name.
    text: the codec as it is written.
    lossless: whether the stage under test is a lossless coder, of which statistics say little.
  """
  name: str
  text: str
  lossless: bool = False

  def __str__(self):
    return self.name

  @property
  def codec(self):
    return codec_lib(self.text)

  @property
  def large(self):
    """A number of values at which no rule about sizes leaves a variable out."""
    sizes = [condition.size for rule in self.codec.rules for condition in rule.conditions if condition.comparison]
    return max(sizes, default=0)

  def update(self, size=600, seed=0):
    """An update of about `size` float32 values: heavy tails, several shapes; reproducible on any machine.

    Where a stage asks for shapes, the kernel is one of convolutions, 3 x 3 values for each of 7 filters and some
    inputs.
    """
    made = update(max(size, self.large), seed)
    if any(stage.needs_shapes for rule in self.codec.rules for stage in rule.pipeline.stages):
      inputs = -(-size // 63)
      made['dense/kernel'] = values(63 * inputs, seed).reshape(3, 3, inputs, 7)
    return made


def update(size, seed=0):
  """dict of name to array: a kernel, a bias, a scalar, an empty variable, whole numbers and booleans."""
  columns = 7
  rows = -(-size // columns)
  return {
      'dense/kernel': values(rows * columns, seed).reshape(rows, columns),
      'dense/bias': values(11, seed + 1),
      'scale': values(1, seed + 2).reshape(()),
      'nothing': np.zeros((0, 3), np.float32),
      'steps': np.asarray([1, -2, 3 + seed], np.int64),
      'frozen': np.asarray([[True, False]]),
  }


def values(size, seed=0):
  """float32[size] within ±0.5 with heavy tails, made of whole numbers and powers of two only: exact everywhere.

  Value i is (2 h - 2^16) 2^(e - 21), h the upper half of CRC-32 of i and the seed (two uint32, little endian), e the
  number of trailing ones of the lower half, at most 4.
  """
  words = [zlib.crc32(np.asarray([i, seed], '<u4').tobytes()) for i in range(size)]
  words = np.asarray(words, np.int64)
  tail = np.zeros(size, np.int64)
  for j in range(1, 5):
    tail += (words & ((1 << j) - 1)) == (1 << j) - 1
  return ((2 * (words >> 16) - (1 << 16)) * 2.0**-21 * 2.0**tail).astype(np.float32)


def _name(owner, *parts):
  parts = [owner] + [re.sub(r'[^A-Za-z0-9.]+', '-', part).strip('-') for part in parts]
  return '.'.join(part for part in parts if part)


def of_stage(kind):
  """Cases of one stage class: each example, completed into a valid pipeline."""
  cases = []
  for example in kind.examples:
    text = kind.name + (f':{example}' if example else '')
    rotation = f'{ROTATION} | ' if _needs_rotation(kind, text) else ''
    if kind.domain is stage_lib.Integers:
      fitting = []
      for quantizer in QUANTIZERS:
        whole = f'{quantizer} | {text}' + ('' if kind.codomain is stage_lib.Bytes else ' | pack')
        try:
          codec_lib(whole)
        except codec_lib.CodecError:
          continue
        fitting.append(Case(_name(kind.name, example, quantizer.rpartition('|')[2]), whole, lossless=True))
      if not fitting:
        raise AssertionError(f'no quantizer of the contract suite fits before {text}.')
      cases += fitting[:2]
    else:
      end = {stage_lib.Real: ' | float32', stage_lib.Integers: ' | pack', stage_lib.Bytes: ''}[kind.codomain]
      cases.append(Case(_name(kind.name, example), rotation + text + end))
  return cases


def _needs_rotation(kind, text):
  """Whether the configured stage asks for a rotation in front."""
  if kind.domain is not stage_lib.Real or kind.needs_shapes:
    return False
  end = {stage_lib.Real: ' | float32', stage_lib.Integers: ' | pack', stage_lib.Bytes: ''}[kind.codomain]
  stage = codec_lib(f'{ROTATION} | {text}{end}').rules[0].pipeline.stages[1]
  return stage.needs_rotation


def of_preset(kind):
  """Cases of one preset class: each example."""
  return [Case(_name(kind.name, example), kind.name + (f':{example}' if example else '')) for example in kind.examples]


def all_cases():
  """Every case, in a stable order; the names differ."""
  cases = list(itertools.chain(
      *(of_stage(kind) for _, kind in sorted(stage_lib.registry().items())),
      *(of_preset(kind) for _, kind in sorted(presets.registry().items())),
      [Case(f'larger.{name}', text) for name, text in LARGER.items()]))
  names = [case.name for case in cases]
  assert len(set(names)) == len(names), sorted(names)
  return cases


def parameters(found=None, thorough=lambda case: False):
  """`found`, or all cases, as parameters of a test: `make fast` has the first example of every stage and preset.

  Args:
    found: list of `Case`.
    thorough: which of those examples are left to `make test` as well.
  """
  owners = {'larger'}
  parameters = []
  for case in all_cases() if found is None else found:
    owner = case.name.partition('.')[0]
    further = owner in owners or thorough(case)
    parameters.append(pytest.param(case, id=str(case), marks=[pytest.mark.thorough] if further else []))
    owners.add(owner)
  return parameters


def byte_cases():
  """Every case whose bytes are compared: `all_cases` and those that only a large update shows."""
  return all_cases() + [Case(f'largest.{name}', text) for name, text in LARGEST.items()]
