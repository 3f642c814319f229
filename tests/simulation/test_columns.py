"""Every column of the table keeps what `Column` says, whatever the runs are; and a file is enough to be one."""

import importlib
import json
import math
import pathlib
import re
import sys

import pytest

from tests.simulation.finished_runs import comparison
from tests.simulation.finished_runs import run
from tff_compress.simulation import report
from tff_compress.simulation.report import columns
from tff_compress.simulation.report import page
from tff_compress.simulation.report import table

GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'adding-a-column.md'


def prepasses():
  learned = run('autoencoder-prepass', bits=(1, 32), accuracies=(0.5, 0.6))
  for entry, cost in zip(learned.rounds, (5_000, 0)):
    entry.update(prepass_clients=cost // 500, prepass_uplink_bytes=cost, prepass_downlink_bytes=cost,
                 prepass_seconds=cost / 1000, uplink_fallbacks=3, uplink_drift=0, client_states_bytes=1_500_000)
  return [run(), learned]


RUNS = {
    'comparison': comparison(),
    'a single run': [run()],
    'a single round': [run(accuracies=(0.5,))],
    'settings that differ': [run(settings={'batch_size': size}) for size in (10, 20)],
    'never evaluated': [run(accuracies=(None,))],
    'evaluated to NaN': [run(accuracies=(math.nan, 0.5)), run('int8', accuracies=(0.5, math.nan))],
    'numbers predicted': [run(uplink, seed=seed, accuracies=(None, None)) for uplink in ('float32', 'int8')
                          for seed in (0, 1)],
    'a seed without evaluation': [run(uplink, seed=seed, accuracies=(0.5, 0.5) if seed else (None,))
                                  for uplink in ('float32', 'int8') for seed in (0, 1)],
    'diverged': [run(), run('int8', diverged=True)],
    'nothing sent': [run(bits=(0, 0))],
    'an estimate': [run(), run('tff:compression_aggregator', bits=(8, 32), estimate='_estimate')],
    'pre-passes and memory': prepasses(),
}
ROWS = {name: report.summarize(runs) for name, runs in RUNS.items()}


def says_what_it_is(column):
  if not isinstance(column, columns.MeasuredColumn):
    assert type(column).__module__.rpartition('.')[2] == column.name and column.name.isidentifier()
  assert column.title and column.title == ' '.join(column.title.split())
  assert column.meaning.endswith('.') and column.meaning[0].isupper()


def has_a_place_of_its_own(column):
  others = [other for other in columns.registry() if other is not column]
  assert column.position not in [other.position for other in others]
  assert column.title not in [other.title for other in others]


def values_are_numbers_or_words(column):
  for rows in ROWS.values():
    for series in rows:
      value = column.value(series)
      assert isinstance(value, str) if column.is_text else value is None or isinstance(value, (int, float))


def texts_are_for_people(column):
  for rows in ROWS.values():
    for series in rows:
      text, value = column.text(series), column.value(series)
      assert isinstance(text, str) and text.isprintable()
      if not column.is_text:
        assert not re.search('nan|inf|None', text) and (value is not None or not text)


def an_estimate_is_called_one(column):
  if column.of_uplink:
    exact, estimated = ROWS['an estimate']
    assert not column.text(exact).startswith('≈') and column.text(estimated).startswith('≈')


def captions_are_sentences_to_be(column):
  for rows in ROWS.values():
    caption = column.caption(rows)
    assert isinstance(caption, str) and not caption.endswith('.') and '\n' not in caption


def numbers_have_names_of_their_own(column):
  others = [name for other in columns.registry() if other is not column and not other.is_text
            for name in other.figures(ROWS['a single run'][0])]
  for rows in ROWS.values():
    for series in rows:
      figures = {} if column.is_text else column.figures(series)
      assert not set(figures) & {*others, 'label', 'uplink', 'downlink', 'seeds', 'diverged'}
      json.dumps(figures)


CHECKS = (says_what_it_is, has_a_place_of_its_own, values_are_numbers_or_words, texts_are_for_people,
          an_estimate_is_called_one, captions_are_sentences_to_be, numbers_have_names_of_their_own)


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize('column', columns.registry(), ids=lambda column: column.title)
def test_contract(column, check):
  check(column)


@pytest.mark.parametrize('rows', ROWS.values(), ids=ROWS)
def test_a_column_is_in_table_and_caption_where_it_shows_something(rows):
  shown = table.columns(rows)
  titles, texts = table.rows(rows)
  assert titles == [column.title for column in shown] and len(texts) == len(rows)
  assert all(any(row[i] for row in texts) for i in range(len(titles)))
  caption = table.caption(rows)
  assert not re.search(r'(^|[.;])\s*;|\.\.', caption) and caption.endswith('.')
  for column in columns.registry():
    if column.caption(rows):
      assert (column.caption(rows).lstrip('; ') in caption) == (column in shown)


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
  """Function from a name and a module's text to the column in it, once it lies in the folder of columns."""
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  monkeypatch.setattr(columns, '__path__', [*columns.__path__, str(tmp_path)])

  def drop(name, text):
    (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
    importlib.invalidate_caches()
    monkeypatch.setattr(columns, '_registry', [])
    monkeypatch.delitem(sys.modules, f'{columns.__name__}.{name}', raising=False)
    return next(column for column in columns.registry() if column.name == name)
  yield drop
  monkeypatch.undo()
  for path in tmp_path.iterdir():
    sys.modules.pop(f'{columns.__name__}.{path.stem}', None)


def test_the_example_of_the_guide_is_a_column_everywhere(drop_in):
  text = GUIDE.read_text(encoding='utf-8')
  name = re.search(r'columns/(\w+)\.py`, it stands', text)[1]
  column = drop_in(name, re.search(r'^```python\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)[1])
  for check in CHECKS:
    check(column)
  rows = ROWS['comparison']
  titles, texts = table.rows(rows)
  assert titles.index('best %') == titles.index('accuracy %') + 1 and texts[0][titles.index('best %')] == '70.0'
  assert 'evaluations, then mean ± standard deviation over 2 seeds; best: of all evaluations' in table.caption(rows)
  assert table.numbers(rows[0])['best_accuracy'] == pytest.approx(0.7)
  images = {(plot, theme): b'' for plot in ('accuracy_rounds', 'accuracy_bytes') for theme in ('light', 'dark')}
  html = page.render(rows, images)
  assert '<th scope="col"><button>best %</button></th>' in html and '<td data-value="0.7">70.0</td>' in html
  assert 'best %' not in table.rows(ROWS['never evaluated'])[0]


_TEMPLATE = '''
from tff_compress.simulation.report.columns import Column

class Wrong(Column):
  """{meaning}"""
  name = '{name}'
  title = 'wrong'
  position = {position}
  sentence = '{sentence}'
  of_uplink = {of_uplink}

  def value(self, series):
    return {value}

  def text(self, series):
    return {text}
'''
_RIGHT = dict(meaning='What it is.', name='wrong', position=1, sentence='; wrong is wrong', of_uplink=False,
              value='series.accuracy', text='"x"')


@pytest.mark.parametrize('wrong, caught_by', [
    ({}, set()),
    (dict(meaning=''), {'says_what_it_is'}),
    (dict(position=60), {'has_a_place_of_its_own'}),
    (dict(value='series.label'), {'values_are_numbers_or_words'}),
    (dict(text='f"{series.accuracy:.1f}"'), {'texts_are_for_people'}),
    (dict(of_uplink=True), {'an_estimate_is_called_one'}),
    (dict(sentence='Wrong is wrong.'), {'captions_are_sentences_to_be'}),
    (dict(value='series.runs'), {'values_are_numbers_or_words', 'numbers_have_names_of_their_own'}),
], ids=['right', 'no meaning', 'place of another', 'words for numbers', 'shows NaN', 'hides an estimate', 'full stop',
        'no JSON'])
def test_the_contract_finds_what_is_wrong(drop_in, wrong, caught_by):
  column = drop_in('wrong', _TEMPLATE.format(**{**_RIGHT, **wrong}))
  failing = set()
  for check in CHECKS:
    try:
      check(column)
    except Exception:
      failing.add(check.__name__)
  assert failing == caught_by


def test_the_registry_is_as_before(drop_in):
  del drop_in
  assert 'wrong' not in [column.name for column in columns.registry()]
