"""What methods measure beyond the common figures: declared once, and read by declaration alone."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from tests.simulation.finished_runs import run
from tff_compress.cli.progress import Progress
from tff_compress.processes import figures as figures_lib
from tff_compress.processes import methods
from tff_compress.processes.figures import Figure
from tff_compress.processes.figures import Total
from tff_compress.simulation import report
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.report import columns
from tff_compress.simulation.report import page
from tff_compress.simulation.report import table


@pytest.mark.parametrize('figure', methods.figures(), ids=lambda figure: figure.name)
def test_declarations_say_what_they_are(figure):
  same = [other for other in methods.figures() if other.name == figure.name]
  assert same == [figure], f'{figure.name} is declared in two ways'
  assert figure.meaning[0].isalnum() and figure.meaning.endswith('.')
  assert figure.sent in ('', 'uplink', 'downlink') and all(figure.place)
  if figure.remark:
    assert figure.remark.format(value=3, clients=5) != figure.remark
  entry = run().rounds[0]
  assert figure.name not in entry, 'every round has a number of this name'
  if figure.total is not None:
    assert not (figure.total.share and figure.total.last)


def test_a_figure_is_read_where_it_is_in_the_metrics():
  figure = Figure('late', 'Late.', place=('aggregator', 'late'))
  for value, expected in ((np.int64(3), 3), (True, 1), (np.bool_(False), 0), (np.float32(0.5), 0.5)):
    read = figure.read({'aggregator': {'late': value}})
    assert read == expected and type(read) in (int, float)
  with pytest.raises(KeyError):
    figure.read({'aggregator': {}})


LATE = Figure('late_clients', 'Clients that were late.', place=('aggregator', 'late'), heading='late',
              remark='{value} of {clients} clients late', total_name='late',
              total=Total('late %', 121, 'The share that was late.', 'Late is late', share=True))
_CODEBOOK = Total('MB codebook', 122, 'Codebooks.')
SENT, RECEIVED = (Figure(f'codebook_{direction}', 'Bytes.', sent=direction, heading=f'codebook {direction}',
                         total=_CODEBOOK) for direction in ('uplink', 'downlink'))


@pytest.fixture
def declared(monkeypatch):
  """A method with three figures of its own, which nothing else knows."""

  @dataclasses.dataclass(frozen=True)
  class Declares(methods.Method):
    name: ClassVar[str] = 'declares'
    figures: ClassVar[tuple[Figure, ...]] = (LATE, SENT, RECEIVED)

  monkeypatch.setattr(methods, '_registry', {**methods.registry(), 'declares': Declares})
  monkeypatch.setattr(columns, '_registry', [])


def measured():
  one = run('int8', accuracies=(0.5, 0.6), bits=(8, 32))
  for entry, late in zip(one.rounds, (0, 5)):
    entry.update(late_clients=late, codebook_uplink=1_000, codebook_downlink=2_000 if late else 0)
  return one


def test_a_declaration_is_all_that_tables_pages_and_totals_need(declared):
  del declared
  one = measured()
  float32, int8 = report.summarize([run(accuracies=(0.5, 0.6)), one])
  titles, rows = table.rows([float32, int8])
  assert [dict(zip(titles, row)).get(title) for row in rows for title in ('late %', 'MB codebook')] == [
      '', '', '25.0', '0.004']
  assert 'Late is late.' in table.caption([float32, int8])
  numbers = table.numbers(int8)
  assert (numbers['late'], numbers['codebook_uplink'], numbers['codebook_downlink']) == (0.25, 2_000, 2_000)
  assert one.evaluations() == [(1, 0.5, 11_000, 40_000), (2, 0.6, 22_000, 82_000)]
  assert (int8.uplink_bytes, int8.uplink_bits_per_parameter) == (22_000, 8)
  images = {(plot, theme): b'' for plot in ('accuracy_rounds', 'accuracy_bytes') for theme in ('light', 'dark')}
  html = page.render([float32, int8], images)
  assert html.count('<th>late</th><th>codebook uplink</th><th>codebook downlink</th>') == 1
  assert '<td>0</td><td>1,000</td><td></td></tr>' in html and '<td>5</td><td>1,000</td><td>2,000</td></tr>' in html


def test_lines_of_progress_have_the_remark(declared, capsys):
  del declared
  from tff_compress.keras import progress
  entry = {**measured().rounds[1], 'failed_clients': 0}
  Progress([RunConfig(rounds=2)], every=0).round(0, entry)
  assert capsys.readouterr().err.endswith(', 5 of 10 clients late\n')
  assert progress.summary(entry).endswith(', 5 of 10 clients late')
  assert 'late' not in progress.summary({**entry, 'late_clients': 0})


def test_a_result_with_a_figure_that_is_no_number_is_refused(declared):
  del declared
  one = measured()
  result = {'config': {'uplink': 'int8', 'downlink': 'float32', 'seed': 0}, 'parameters': 10, 'status': 'finished',
            'rounds': list(one.rounds)}
  assert report.Run.of_dict(result).values(LATE) == [(0, 10), (5, 10)]
  for wrong in ('many', None, -1, float('nan')):
    one.rounds[1]['late_clients'] = wrong
    with pytest.raises(report.ReportError):
      report.Run.of_dict(result)


def test_bytes_beside_the_messages_are_those_of_their_direction():
  entry = {'codebook_uplink': 3, 'codebook_downlink': 4}
  assert [figures_lib.sent((LATE, SENT, RECEIVED), direction, entry) for direction in ('uplink', 'downlink')] == [3, 4]
