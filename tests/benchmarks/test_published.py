"""The published counts of sketched updates (Konecny et al. 2016), from real payloads of the models of the paper."""

import pytest

from benchmarks.published import published

pytestmark = pytest.mark.tf


@pytest.fixture(scope='module')
def layers():
  return published.layers()


def test_symbols_are_256_times_smaller_and_nothing_is_padded(layers):
  assert [row['layer'] for row in layers] == [f'conv{i}/kernel' for i in range(2, 9)]
  assert sum(row['values'] for row in layers) == 1_363_968
  for row in layers:
    assert row['N / d'] == 1
    assert row['symbol bytes'] * 256 == row['values'] * 4


def test_a_payload_is_the_symbols_and_its_ranges_and_nothing_else(layers):
  for row in layers:
    kept = row['values'] // 16
    one_range, block_ranges = row['symbol bytes'] + 8, row['symbol bytes'] + 4 * -(-kept // 1024)
    assert row['with a range per tensor'] == 4 * row['values'] / one_range
    assert row['with a range per 1024'] == 4 * row['values'] / block_ranges
    assert row['whole frame'] == 4 * row['values'] / (block_ranges + 20)


def test_the_whole_model_shrinks_123_times():
  tensor, block = published.whole_model()
  # 5,770 values as float32, 1,363,968 at an eighth of a bit, seven ranges of 8 bytes, 20 bytes of frame.
  assert tensor['frame bytes'] == 4 * 5_770 + 1_363_968 // 64 + 7 * 8 + 20
  assert round(tensor['ratio'], 1) == 123.2
  assert round(block['ratio'], 1) == 122.4


def test_models_have_the_published_numbers_of_parameters():
  rows = {row['model']: row for row in published.counts()}
  assert rows['all_cnn_c']['counted'] == 1_369_738
  assert rows['tied_lstm']['counted'] == 1_347_776
  assert rows['mnist_cnn']['counted'] == 1_199_882
  # The paper says "below 0.01 %" of the LSTM are biases; they are 1,120 values.
  assert rows['tied_lstm']['biases'] == 1_120
  assert round(rows['tied_lstm']['biases, %'], 3) == 0.083
