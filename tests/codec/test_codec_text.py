"""docs/codec-text.md says what the parser does: canonical forms, presets, parameters and errors."""

import dataclasses
import pathlib
import re

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import grammar
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib

TEXT = (pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'codec-text.md').read_text(encoding='utf-8')


def _rows(heading):
  """Cells of the first table behind a heading, without the backquotes around code."""
  section = TEXT[TEXT.index(heading):]
  table = re.search(r'\n\|.*\n\|[-|]+\n((?:\|.*\n)+)', section)[1]
  return [[cell.strip().replace('\\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
          for line in table.strip().splitlines()]


def _code(cell):
  return re.fullmatch(r'`([^`]*)`', cell)[1]


@pytest.mark.parametrize('row', _rows('**Canonical form.**'), ids=lambda row: row[0])
def test_canonical_forms(row):
  text, canonical = map(_code, row)
  assert str(codec_lib(text)) == canonical


def test_presets_and_their_parameters():
  rows = {_code(name): (_code(text), parameters) for name, text, parameters in _rows('## Presets')}
  assert set(rows) == set(presets.registry())
  for name, kind in presets.registry().items():
    text, parameters = rows[name]
    assert str(codec_lib(name)) == text
    assert parameters == ', '.join(f'{f.name}={f.default}' for f in dataclasses.fields(kind))


def test_stages_their_parameters_and_defaults():
  rows = {name: parameters for names, parameters, *_ in _rows('## Stages') for name in re.findall(r'`([^`]+)`', names)}
  assert set(rows) == set(stage_lib.registry())
  for name, kind in stage_lib.registry().items():
    for field in dataclasses.fields(kind):
      expected = field.name if field.default is dataclasses.MISSING else f'{field.name}={field.default}'
      assert expected in rows[name], (name, expected)
    listed = [part for part in re.sub(r'\([^)]*\)', '', rows[name]).split(',') if part.strip()]
    assert len(dataclasses.fields(kind)) == len(listed)


@pytest.mark.parametrize('row', _rows('## What is refused'), ids=lambda row: row[0])
def test_errors(row):
  text, error = row[0], row[1]
  with pytest.raises(codec_lib.CodecError) as raised:
    if ', on a model' in text:
      update = {'dense/kernel': np.zeros((512, 10), np.float32)}
      codec_lib('*/bias => float32').encode(update, seed=0, round=0, client=0)
    else:
      codec_lib(_code(text))
  assert str(raised.value) == error


def test_the_grammar_is_the_parsers():
  block = re.search(r'    codec     = (?:.*\n)+?\n', TEXT[TEXT.index('## Grammar'):])[0]
  for line in block.strip().splitlines():
    rule = re.sub(r'\s+', ' ', line.strip())
    if not rule.startswith('preset'):
      assert rule in re.sub(r'[ ]+', ' ', grammar.__doc__), rule


def test_every_codec_in_an_indented_block_is_valid():
  found = [line.strip() for line in TEXT.splitlines() if line.startswith('    ') and '|' in line and '"' not in line]
  assert len(found) >= 3
  for text in found:
    codec_lib(text)


@pytest.mark.parametrize('row', _rows('## Rules'), ids=lambda row: row[0])
def test_rules(row):
  codec_lib(_code(row[0]).replace('…', 'float32'))
