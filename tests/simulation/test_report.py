"""The numbers, plots and page of finished runs."""

import html.parser
import io
import json
import math
import re
import statistics

import matplotlib.text
import pytest

from tests.simulation.finished_runs import comparison
from tests.simulation.finished_runs import PARAMETERS
from tests.simulation.finished_runs import run
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import report
from tff_compress.simulation.report import page as page_lib
from tff_compress.simulation.report import plots
from tff_compress.simulation.report import table


def save(folder, **changes):
  """A folder with the result.json of a run."""
  one = run(**{'accuracies': (0.5, 0.6), **changes})
  config = {'uplink': one.uplink, 'downlink': one.downlink, 'seed': one.seed, 'output': str(folder), 'workers': 1,
            **one.settings}
  folder.mkdir(parents=True)
  result = {'format': 1, 'status': 'finished', 'config': config, 'parameters': one.parameters,
            'rounds': list(one.rounds)}
  (folder / 'result.json').write_text(json.dumps(result))
  return result


def test_accuracy_is_the_mean_of_the_last_three_evaluations():
  assert run(accuracies=(0.1, 0.5, 0.6, 0.7)).accuracy == pytest.approx(0.6)
  assert run(accuracies=(0.5, None, 0.6, None, 0.7, None)).accuracy == pytest.approx(0.6)
  assert run(accuracies=(0.5, 0.7)).accuracy == pytest.approx(0.6)
  assert math.isnan(run(accuracies=(None,)).accuracy)


def test_evaluations_know_what_had_been_sent():
  assert run(accuracies=(None, 0.5, None, 0.7)).evaluations() == [(2, 0.5, 80_000, 80_000), (4, 0.7, 160_000, 160_000)]


def test_rounds_in_which_nothing_was_sent_count():
  one = run('int8', accuracies=(0.5, 0.6), bits=(8, 32))
  one.rounds[1].update(uplink_bytes=0, uplink_bits_per_parameter=0.0, uplink_ratio=None)
  [series] = report.summarize([one])
  assert (series.uplink_ratio, series.uplink_bits_per_parameter) == (8, 4)


def test_what_clients_remember_is_a_column_where_some_do():
  plain, kept = run(accuracies=(0.5, 0.6)), run('stc', accuracies=(0.5, 0.6))
  for entry, size in zip(kept.rounds, (1_500_000, 2_500_000)):
    entry['client_states_bytes'] = size
  assert 'MB kept' not in table.rows(report.summarize([plain]))[0]
  series = report.summarize([plain, kept])
  titles, rows = table.rows(series)
  assert [row[titles.index('MB kept')] for row in rows] == ['', '2.5'] and 'MB kept is' in table.caption(series)


def test_prepasses_are_in_totals_and_ratios_but_not_in_the_bits_of_messages():
  plain, learned = run(accuracies=(0.5, 0.6)), run('autoencoder-prepass', accuracies=(0.5, 0.6), bits=(1, 32))
  costs = [dict(clients=20, uplink_bytes=5_000, downlink_bytes=80_000, seconds=7.0),
           dict(clients=10, uplink_bytes=2_500, downlink_bytes=40_000, seconds=3.0)]
  for entry, cost, fallbacks in zip(learned.rounds, costs, (0, 5)):
    entry.update({f'prepass_{name}': value for name, value in cost.items()}, uplink_fallbacks=fallbacks)
  assert learned.evaluations() == [(1, 0.5, 1_250 + 5_000, 40_000 + 80_000), (2, 0.6, 2_500 + 7_500, 80_000 + 120_000)]
  series = report.summarize([plain, learned])
  one = series[0] if series[0].first is learned else series[1]
  assert (one.uplink_bytes, one.downlink_bytes) == (10_000, 200_000)
  assert [table.numbers(one)[name] for name in ('prepass_uplink_bytes', 'prepass_downlink_bytes', 'fallbacks')] == [
      7_500, 120_000, 0.25]
  assert one.uplink_bits_per_parameter == 1 and one.uplink_ratio == 8 and one.ratio == pytest.approx(160 / 210)
  titles, rows = table.rows(series)
  row = rows[series.index(one)]
  assert row[titles.index('MB pre-pass')] == '0.128' and row[titles.index('fallbacks %')] == '25.0'
  assert 'MB pre-pass is' in table.caption(series) and 'MB pre-pass' not in table.rows(report.summarize([plain]))[0]
  page = page_lib.render(series, {(name, theme): b'' for name in ('accuracy_rounds', 'accuracy_bytes')
                              for theme in ('light', 'dark')})
  assert '0.0075 MB up, 0.12 MB down, 10 s; again before round 2' in page
  assert '<td>5</td><td>10</td><td>2,500</td><td>40,000</td></tr>' in page and page.count('<th>fallbacks</th>') == 1


def test_difference_to_float32_is_paired_by_seed():
  plain, int8, sketch = report.summarize(comparison())
  assert plain.difference is None and plain.pairs == 0
  # +1 and -1 point: no difference in the mean, though the seeds lie twenty points apart.
  assert int8.difference == pytest.approx(0) and int8.difference_error == pytest.approx(
      statistics.stdev([1, -1]) / math.sqrt(2))
  assert int8.accuracy_deviation == pytest.approx(statistics.stdev([0.79, 0.61]))
  # One seed only: paired with that one, not with the mean.
  assert sketch.difference == pytest.approx(-10) and sketch.difference_error is None and sketch.pairs == 1


def test_bits_and_ratios_come_from_the_bytes():
  plain, int8, sketch = report.summarize(comparison())
  assert plain.uplink_bits_per_parameter == 32 and plain.uplink_ratio == 1 and plain.ratio == 1
  assert int8.uplink_bits_per_parameter == 8 and int8.uplink_ratio == 4 and int8.ratio == 4
  assert sketch.uplink_bits_per_parameter == 1 and sketch.downlink_bits_per_parameter == 8 and sketch.uplink_ratio == 32
  assert sketch.ratio == pytest.approx(64 / 9)
  assert int8.uplink_bytes == 4 * 10 * PARAMETERS  # Per run, not over seeds.


def test_the_first_round_does_not_count_as_time():
  entry, = report.summarize([run()])
  assert entry.seconds == 4.0  # Of 3, 4 and 5; the first builds the graphs.


def test_runs_of_other_settings_are_other_rows_and_are_not_paired():
  slow, fast = ({'dataset': 'digits', 'client_learning_rate': rate} for rate in (0.01, 0.1))
  entries = report.summarize([run(settings=slow, accuracies=(0.5,)), run(settings=fast, accuracies=(0.7,)),
                              run('int8', settings=fast, accuracies=(0.6,))])
  assert [entry.label for entry in entries] == [
      'float32, client_learning_rate=0.01', 'float32, client_learning_rate=0.1', 'int8, client_learning_rate=0.1']
  assert entries[2].difference == pytest.approx(-10)


def test_an_estimate_is_called_one():
  entry, = report.summarize([run('tff:compression_aggregator', bits=(8, 32), estimate='_estimate')])
  assert entry.estimated and entry.uplink_ratio == 4
  numbers = table.numbers(entry)
  assert numbers['uplink_bytes_estimate'] == 4 * 10 * PARAMETERS
  assert 'uplink_bytes' not in numbers and 'ratio' not in numbers
  assert numbers['downlink_bytes'] == 16 * 10 * PARAMETERS
  header, (row,) = table.rows([entry])
  assert row[header.index('MB up')] == '≈0.04' and row[header.index('MB down')] == '0.16'


def test_a_run_that_diverged_is_marked():
  header, (row,) = table.rows(report.summarize([run(diverged=True)]))
  assert row[header.index('accuracy %')] == '60.0 diverged'


def test_rows_go_from_float32_and_many_bytes_to_few():
  runs = comparison()
  for order in (runs, runs[::-1]):
    assert [entry.first.uplink for entry in report.summarize(order)] == ['float32', 'int8', 'sketch']


def test_no_float32_no_difference():
  entry, = report.summarize([run('int8', 'int8')])
  assert entry.difference is None


@pytest.mark.parametrize('links, labels', [
    ([('float32', 'float32'), ('int8', 'float32')], ['float32', 'int8']),
    ([('none', 'none'), ('int8', 'float32')], ['float32', 'int8']),
    ([('float32', 'float32'), ('int8', 'int8'), ('drive', 'int8')], ['float32', 'int8 / int8', 'drive / int8']),
    ([('a' * 60, 'none'), ('a' * 60 + 'b', 'none')], ['a' * 39 + '…', 'a' * 39 + "…'"]),
    ([('hadamard | uniform:bits=2 | pack', 'int8'), ('topk:1/9 | float16', 'none')],
     ['hadamard|uniform:bits=2 / int8', 'topk:1/9|float16 / float32']),
])
def test_labels_are_short_and_distinct(links, labels):
  assert [entry.label for entry in report.summarize([run(up, down) for up, down in links])] == labels


def test_table_has_a_row_per_codec():
  header, rows = table.rows(report.summarize(comparison()))
  assert len(rows) == 3 and all(len(row) == len(header) for row in rows)
  assert rows[1][header.index('accuracy %')] == '70.0 ± 12.7'
  assert rows[2][header.index('vs float32')] == '-10.00'
  assert rows[0][header.index('vs float32')] == ''


@pytest.mark.parametrize('runs', [
    comparison(), [run()], [run(accuracies=(None,))], [run(accuracies=(math.nan, 0.5))], [run(bits=(0, 0))],
    [run(f'uniform:bits={i}', seed=s) for i in range(1, 9) for s in range(2)] + [run()],
], ids=['comparison', 'one', 'never evaluated', 'nan', 'nothing sent', 'many'])
def test_plots_are_pictures_of_their_size(runs):
  from PIL import Image
  series = report.summarize(runs)
  for plot in (plots.plot_rounds, plots.plot_bytes):
    for theme in ('light', 'dark'):
      image = Image.open(io.BytesIO(plot(series, theme)))
      assert image.format == 'PNG' and image.size[0] == 1344
      assert image.convert('L').getextrema()[1] - image.convert('L').getextrema()[0] > 100


def test_one_band_shows_the_spread_over_seeds():
  plain, int8, sketch = report.summarize(comparison())
  assert plots.banded([int8, plain, sketch]) is plain
  assert plots.banded([int8, sketch]) is int8
  assert plots.banded([sketch, int8]) is None  # A single seed has no spread.


def test_plots_are_reproducible():
  series = report.summarize(comparison())
  assert plots.plot_bytes(series) == plots.plot_bytes(series)


def test_end_labels_do_not_overlap():
  """The lines end within a point of each other, so their labels have to move."""
  texts = []
  class Axes:  # Stands for matplotlib's, to see where labels are put.
    def __init__(self, axes):
      self._axes = axes
    def __getattr__(self, name):
      return getattr(self._axes, name)
    def annotate(self, text, *positions, **keywords):
      texts.append(self._axes.annotate(text, *positions, **keywords))
  figure, (axes,) = plots._figure('light', 1, (8, 4))
  axes.plot([0, 1], [0, 90])
  plots._label_ends(figure, Axes(axes), [(1, 90 + i / 10, f'label {i}', 'red') for i in range(4)])
  figure.savefig(io.BytesIO(), format='png')
  # Of the text alone: an annotation's own extent has its line in it.
  boxes = sorted((matplotlib.text.Text.get_window_extent(text) for text in texts), key=lambda box: box.y0)
  assert all(below.y1 <= above.y0 + 3 for below, above in zip(boxes, boxes[1:]))
  assert [text.get_text() for text in texts] == ['label 3', 'label 2', 'label 1', 'label 0']


def test_end_labels_keep_their_distance_and_order():
  wanted = [100, 99, 98, 50, 49, 10]
  places = plots._apart(wanted, 10)
  assert all(above - below >= 10 - 1e-9 for above, below in zip(places, places[1:]))
  assert places[-1] == 10 and statistics.fmean(places[:3]) == pytest.approx(99)


@pytest.fixture
def no_plots(monkeypatch):
  """Plots take most of the time; not every page needs them."""
  for name in ('plot_rounds', 'plot_bytes'):
    monkeypatch.setattr(plots, name, lambda series, theme: b'PNG')


class _Page(html.parser.HTMLParser):
  """Collects what a page refers to, and checks that its elements are closed in order."""

  VOID = {'meta', 'img', 'source', 'link', 'br'}

  def __init__(self, text):
    super().__init__()
    self.open, self.references, self.images, self.tags = [], [], 0, []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.images += tag == 'img'
    self.references += [value for name, value in attrs if name in ('src', 'href', 'srcset')]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_page_is_self_contained(tmp_path):
  path = report.write(comparison(), tmp_path / 'out', 'tff-compress compare --uplink int8')
  text = open(path, encoding='utf-8').read()
  page = _Page(text)
  assert page.images == 2
  assert all(reference.startswith('data:image/png;base64,') for reference in page.references)
  assert not re.search(r'https?:|@import|url\(', text)
  assert 'tff-compress compare --uplink int8' in text and '70.0 ± 12.7' in text
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['accuracy_bytes.png', 'accuracy_rounds.png',
                                                                  'report.html']


def test_texts_from_outside_stay_texts(tmp_path, no_plots):
  bad = '<script>alert(1)</script>&"\''
  page = open(report.write([run(bad, bad, settings={'dataset': bad, bad: bad})], tmp_path, bad),
              encoding='utf-8').read()
  assert bad not in page and _Page(page).tags.count('script') == 1  # The page's own.


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path, no_plots):
  (tmp_path / 'file').write_text('')
  with pytest.raises(report.ReportError):
    report.write([run()], tmp_path / 'file' / 'folder')
  (tmp_path / 'report.html').mkdir()
  with pytest.raises(report.ReportError):
    report.write([run()], tmp_path)
  assert not [p.name for p in tmp_path.iterdir() if p.name.startswith('.report')]


def test_as_dict_is_json():
  for entry in report.summarize(comparison()):
    assert json.loads(json.dumps(table.numbers(entry)))['label'] == entry.label


def test_load_finds_the_runs_below_a_folder(tmp_path):
  save(tmp_path / 'seed-0' / 'float32')
  save(tmp_path / 'seed-1' / 'int8', uplink='int8', seed=1, bits=(8, 32))
  (tmp_path / 'seed-0' / 'float32' / 'checkpoints').mkdir()
  runs = report.load(tmp_path)
  assert [(r.uplink, r.seed) for r in runs] == [('float32', 0), ('int8', 1)]
  assert runs[0].settings == run(accuracies=(0.5,
                                             0.6)).settings  # Neither the folder nor the workers are part of the task.
  assert [(r.uplink, r.seed) for r in report.load(tmp_path / 'seed-1' / 'int8')] == [('int8', 1)]


def test_a_folder_without_runs_is_an_error(tmp_path):
  for path in (tmp_path, tmp_path / 'missing'):
    with pytest.raises(report.ReportError):
      report.load(path)


@pytest.mark.parametrize('change', [
    lambda result: result.pop('parameters'),
    lambda result: result['config'].pop('uplink'),
    lambda result: result['config'].update(downlink=7),
    lambda result: result['config'].update(seed='x'),
    lambda result: result['rounds'][1].pop('uplink_bytes'),
    lambda result: result['rounds'][1].update(uplink_bytes='many'),
    lambda result: result['rounds'][1].update(downlink_ratio=-1),
    lambda result: result['rounds'][1].update(downlink_ratio=None),
    lambda result: result['rounds'][0].update(accuracy='high'),
    lambda result: result['rounds'][0].pop('seconds'),
    lambda result: result.update(status='unheard of'),
    lambda result: result.update(rounds=[3]),
    lambda result: result.update(prepass={'prepass_clients': 'all'}),
    lambda result: result['rounds'][1].update(prepass_uplink_bytes=None),
    lambda result: result['rounds'][1].update(prepass_downlink_bytes=-1),
    lambda result: result['rounds'][1].update(uplink_fallbacks='many', clients=3),
], ids=range(16))
def test_a_result_that_is_not_whole_is_an_error(tmp_path, change):
  result = save(tmp_path / 'run')
  change(result)
  (tmp_path / 'run' / 'result.json').write_text(json.dumps(result))
  with pytest.raises(CompressionError, match='result.json'):
    report.load(tmp_path)
