"""The plots and the page of finished runs."""

import html.parser
import io
import math
import pathlib
import re
import statistics

import matplotlib.text
import pytest

from tests.simulation.finished_runs import comparison
from tests.simulation.finished_runs import run
from tff_compress.simulation import report
from tff_compress.simulation.report import plots
from tff_compress.simulation.report import table


@pytest.mark.thorough
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


def test_bytes_are_plotted_in_both_directions_together_and_up_alone(monkeypatch):
  figures = []
  monkeypatch.setattr(plots, '_png', figures.append)
  plots.plot_bytes(report.summarize([run(bits=(32, 32)), run('int8', 'int8', bits=(8, 16))]))
  both, up = figures[0].axes
  assert 'together' in both.get_xlabel() and 'sent up' in up.get_xlabel() and not up.get_ylabel()
  sent = lambda axes: [line.get_xdata()[-1] for line in axes.lines if len(line.get_xdata()) > 1]
  # Four rounds of ten clients and 1,000 parameters, in MB.
  assert sent(both) == pytest.approx([0.32, 0.12]) and sent(up) == pytest.approx([0.16, 0.04])
  assert both.get_position().width > up.get_position().width


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
  text = pathlib.Path(path).read_text(encoding='utf-8')
  page = _Page(text)
  assert page.images == 2
  assert all(reference.startswith('data:image/png;base64,') for reference in page.references)
  assert not re.search(r'https?:|@import|url\(', text)
  assert 'tff-compress compare --uplink int8' in text and '70.0 ± 12.7' in text
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['accuracy_bytes.png', 'accuracy_rounds.png',
                                                                  'report.html']


def test_the_page_says_what_it_is_sorted_by_and_which_row_is_float32(tmp_path, no_plots):
  for sort, title in ((table.SORT, 'MB both'), ('accuracy', 'accuracy %')):
    text = pathlib.Path(report.write(comparison(), tmp_path, sort=sort)).read_text(encoding='utf-8')
    assert re.findall(r'aria-sort="descending"><button>([^<]+)', text) == [title]
    rows = re.findall(r'<tr( class="reference")?>\n<td class="text"[^>]*>.*?</span>(\w+)</td>', text, re.DOTALL)
    assert rows == [(' class="reference"', 'float32'), ('', 'int8'), ('', 'sketch')]


def test_the_rounds_of_a_page_have_both_directions_together(tmp_path, no_plots):
  text = pathlib.Path(report.write([run('int8', 'int8', bits=(8, 16))], tmp_path)).read_text(encoding='utf-8')
  assert '0.04 MB up, 0.08 MB down, 0.12 MB both' in text
  assert text.count('<th>MB both so far</th>') == 1 and '<td>0.04</td><td>0.08</td><td>0.12</td>' in text
  text = pathlib.Path(report.write([run('tff:hadamard:bits=8', bits=(8, 16), estimate='_estimate')],
                                   tmp_path)).read_text(encoding='utf-8')
  assert '≈0.04 MB up, 0.08 MB down, ≈0.12 MB both' in text and '<th>MB both so far (estimate)</th>' in text


def test_a_page_of_predicted_numbers_shows_losses_and_no_accuracy(tmp_path):
  path = report.write([run(uplink, accuracies=(None, None)) for uplink in ('float32', 'int8')], tmp_path)
  text = pathlib.Path(path).read_text(encoding='utf-8')
  assert _Page(text).images == 0 and 'accuracy' not in text.lower() and 'none' not in text.partition('<body')[2].lower()
  assert '<td>0.5</td>' in text and [p.name for p in tmp_path.iterdir()] == ['report.html']


def test_texts_from_outside_stay_texts(tmp_path, no_plots):
  bad = '<script>alert(1)</script>&"\''
  path = report.write([run(bad, bad, settings={'dataset': bad, bad: bad})], tmp_path, bad)
  page = pathlib.Path(path).read_text(encoding='utf-8')
  assert bad not in page and _Page(page).tags.count('script') == 1  # The page's own.


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path, no_plots):
  (tmp_path / 'file').write_text('')
  with pytest.raises(report.ReportError):
    report.write([run()], tmp_path / 'file' / 'folder')
  (tmp_path / 'report.html').mkdir()
  with pytest.raises(report.ReportError):
    report.write([run()], tmp_path)
  assert not [p.name for p in tmp_path.iterdir() if p.name.startswith('.report')]
