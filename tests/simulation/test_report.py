"""Finished runs as a report reads them, and the numbers and the table that it makes of them."""

import json
import math
import statistics

import pytest

from tests.simulation.finished_runs import comparison
from tests.simulation.finished_runs import PARAMETERS
from tests.simulation.finished_runs import run
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import report
from tff_compress.simulation.report import page as page_lib
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
  assert numbers['total_bytes_estimate'] == 20 * 10 * PARAMETERS
  assert not {'uplink_bytes', 'total_bytes', 'ratio'} & set(numbers)
  assert numbers['downlink_bytes'] == 16 * 10 * PARAMETERS
  header, (row,) = table.rows([entry])
  assert [row[header.index(title)] for title in ('MB up', 'MB down', 'MB both')] == ['≈0.04', '0.16', '≈0.2']


def test_a_run_that_diverged_is_marked():
  header, (row,) = table.rows(report.summarize([run(diverged=True)]))
  assert row[header.index('accuracy %')] == '60.0 diverged'


def test_rows_go_from_float32_and_many_bytes_to_few():
  runs = comparison()
  for order in (runs, runs[::-1]):
    assert [entry.first.uplink for entry in report.summarize(order)] == ['float32', 'int8', 'sketch']


def sent(uplink, up, down, accuracy=0.5, **changes):
  return run(uplink, bits=(up, down), accuracies=(accuracy,), **changes)


def test_rows_are_sorted_by_the_bytes_of_both_directions():
  """`few up` sends the least up and the most altogether."""
  runs = [sent('few up', 1, 64), sent('even', 8, 8), sent('float32', 32, 32), sent('few down', 32, 1)]
  for order in (runs, runs[::-1]):
    series = report.summarize(order)
    assert [entry.first.uplink for entry in series] == ['float32', 'few up', 'few down', 'even']
    assert [entry.total_bytes for entry in series] == [width * 10 * PARAMETERS / 8 for width in (64, 65, 33, 16)]
    assert table.ordered(series) == series


def test_rows_can_be_sorted_by_any_number_and_float32_stays_on_top():
  series = report.summarize([sent('float32', 32, 32, 0.1), sent('worst', 8, 8, 0.2), sent('best', 1, 8, 0.9),
                             sent('lost', 4, 8, math.nan), sent('middle', 2, 8, 0.5), sent('unknown', 3, 8, None)])
  uplinks = lambda name: [entry.first.uplink for entry in table.ordered(series, name)]
  assert uplinks('accuracy') == uplinks('difference') == ['float32', 'best', 'middle', 'worst', 'lost', 'unknown']
  assert uplinks('downlink_bytes') == [entry.first.uplink for entry in series]  # Equal ones stay as they are.
  assert uplinks('ratio') == ['float32', 'best', 'middle', 'unknown', 'lost', 'worst']
  assert {'total_bytes', 'seconds'} <= set(table.sortable()) and not {'uplink', 'settings'} & set(table.sortable())


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
