"""Checks of arguments: what is let through, and the one sentence that refuses the rest."""

import ast
import fractions
import pathlib
import re

import numpy as np
import pytest

from tff_compress.codec import checks
from tff_compress.codec.errors import SpecError

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAN, INFINITE = float('nan'), float('inf')


@pytest.mark.parametrize('value', [1, np.int64(1), np.uint8(1), np.array(1)])
def test_whole_numbers_become_ints(value):
  found = checks.whole_number('n', value, SpecError, least=1, most=1)
  assert found == 1 and type(found) is int


@pytest.mark.parametrize('value', [True, np.True_, '1', 1.0, np.float32(1), None, [1], np.array([1, 2]), NAN, {}, b'1'])
def test_what_is_no_whole_number_is_refused(value):
  with pytest.raises(SpecError, match='^n must be a whole number, not .+[.]$'):
    checks.whole_number('n', value, SpecError)


@pytest.mark.parametrize('value', [0.5, np.float32(0.5), fractions.Fraction(1, 2), np.array(0.5)])
def test_numbers_become_floats(value):
  found = checks.number('x', value, SpecError, least=0, below=1)
  assert found == 0.5 and type(found) is float


@pytest.mark.parametrize('value', [True, np.False_, '0.5', b'0', None, [0.5], NAN, INFINITE, -INFINITE,
                                   pytest.param(10**400, id='large'), 1j])
def test_what_is_no_number_is_refused(value):
  with pytest.raises(SpecError, match='^x must be a finite number, not .+[.]$'):
    checks.number('x', value, SpecError)


@pytest.mark.parametrize('check, sentence', [
    (lambda: checks.whole_number('n', 0, SpecError, least=1), 'n must be a whole number of at least 1, not 0.'),
    (lambda: checks.whole_number('n', 5, SpecError, least=1, most=4), 'n must be a whole number from 1 to 4, not 5.'),
    (lambda: checks.whole_number('seed', -1, SpecError, least=0, most=2**64 - 1),
     'seed must be a whole number from 0 to 2^64-1, not -1.'),
    (lambda: checks.whole_number('n', 0, SpecError, least=1, most=10**6, optional=True),
     'n must be a whole number from 1 to 10^6, or None, not 0.'),
    (lambda: checks.number('x', 2, SpecError, least=0, most=1), 'x must be a number from 0 to 1, not 2.'),
    (lambda: checks.number('x', 1, SpecError, least=0, below=1),
     'x must be a number of at least 0 and below 1, not 1.'),
    (lambda: checks.number('x', 0, SpecError, above=0, most=0.5),
     'x must be a number above 0 and at most 0.5, not 0.'),
    (lambda: checks.number('x', NAN, SpecError, above=0), 'x must be a finite number above 0, not nan.'),
    (lambda: checks.number('x', -1, SpecError, least=0), 'x must be a finite number of at least 0, not -1.'),
    (lambda: checks.boolean('b', 1, SpecError), 'b must be True or False, not 1.'),
    (lambda: checks.one_of('w', 'c', ('a', 'b'), SpecError), "w must be a or b, not 'c'."),
    (lambda: checks.one_of('w', 3, ('a', 'b', 'c'), SpecError), 'w must be one of a, b, c, not 3.'),
    (lambda: checks.one_of('w', [], {'a': 1}, SpecError, optional=True), 'w must be a, or None, not a list.'),
])
def test_refused_values_are_one_sentence(check, sentence):
  with pytest.raises(SpecError) as caught:
    check()
  assert str(caught.value) == sentence


def test_none_passes_where_it_may():
  assert checks.whole_number('n', None, SpecError, least=1, optional=True) is None
  assert checks.number('x', None, SpecError, optional=True) is None
  assert checks.one_of('w', None, ('a',), SpecError, optional=True) is None


@pytest.mark.parametrize('value', ['x' * 1000, 'a\nb', np.zeros((9, 9)), [0], {1: 2}, object(),
                                   pytest.param(10**5000, id='large')])
def test_what_is_shown_is_one_short_line(value):
  text = checks.shown(value)
  assert text and len(text) <= 62 and '\n' not in text


def test_nobody_else_says_what_a_number_or_a_flag_must_be():
  """A second sentence for the same thing, and a second check beside it, would go their own ways."""
  others = [path for folder in ('tff_compress', 'tflite_export') for path in sorted((ROOT / folder).rglob('*.py'))
            if path != pathlib.Path(checks.__file__)]
  assert len(others) > 100
  found = [f'{path.relative_to(ROOT)}:{part.lineno}: {part.value}' for path in others
           for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(node, ast.Raise)
           for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
           and re.search(r'must be (a (whole |finite )?number\b|True or False)', part.value)
           and 'or none, not' not in part.value]  # A parameter in a codec's text, which may be a word.
  assert not found, '\n'.join(found)
