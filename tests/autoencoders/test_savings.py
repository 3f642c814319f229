"""The paper's equations 4-6 and sizes, and where its two statements contradict each other."""

import pytest

from tff_compress.autoencoders import architectures
from tff_compress.autoencoders import savings

MNIST, CIFAR = (15_910, 32), (550_570, 320)


def test_the_published_sizes():
  for sizes, parameters in ((MNIST, 1_034_182), (CIFAR, 352_915_690)):
    assert savings.dense_parameters(*sizes) == architectures.dense(*sizes).parameters == parameters
  assert architectures.dense(*MNIST).ratio == pytest.approx(497.2, abs=0.05)
  assert architectures.dense(*CIFAR).ratio == pytest.approx(1720.5, abs=0.05)
  assert savings.decoder_parameters(*CIFAR) == 176_732_970
  assert architectures.dense(1024, 32).parameters == 66_592
  assert architectures.dense(1024, 32).decoder[0].parameters == savings.decoder_parameters(1024, 32) == 33_792


def test_a_dense_decoder_pays_after_as_many_messages_as_latent_values():
  published = savings.dense_parameters(*CIFAR) / 2
  assert savings.break_even(*CIFAR, published) == pytest.approx(320.7, abs=0.05)
  assert savings.break_even(*CIFAR, savings.decoder_parameters(*CIFAR)) == pytest.approx(321.2, abs=0.05)
  assert savings.break_even(*MNIST, savings.decoder_parameters(*MNIST)) == pytest.approx(33.1, abs=0.05)
  assert savings.break_even(10, 10, 1) == float('inf')
  assert savings.savings_ratio(*CIFAR, 321, published) >= 1 > savings.savings_ratio(*CIFAR, 320, published)


def test_a_decoder_for_each_client_saves_three_times_after_a_thousand_rounds():
  assert savings.savings_ratio(*CIFAR, 1000, savings.dense_parameters(*CIFAR) / 2) == pytest.approx(3.11, abs=0.01)


def test_one_decoder_for_all_cannot_break_even_at_40_clients_and_save_120_times_at_1000():
  """Break-even at 40 clients implies 8 rounds, 120 times beyond 1000 clients implies 40."""
  cost = savings.dense_parameters(*CIFAR) / 2
  ratio = lambda clients, rounds: savings.savings_ratio(*CIFAR, clients * rounds, cost)
  assert ratio(41, 8) >= 1 > ratio(40, 8) and ratio(1000, 8) == pytest.approx(24.6, abs=0.05)
  assert ratio(5_168, 8) >= 119.95 > ratio(5_150, 8)
  assert ratio(1000, 40) == pytest.approx(116.4, abs=0.05) and ratio(1_034, 40) == pytest.approx(120, abs=0.1)
  assert ratio(9, 40) >= 1 > ratio(8, 40)


def test_measured_bytes_of_both_directions_and_every_prepass_count():
  """Two rounds of three clients with a model of 1000 values, and a pre-pass before each."""
  sent = lambda up, down, clients=3: {'uplink_bytes': up, 'uplink_clients': clients, 'downlink_bytes': down,
                                      'downlink_clients': clients}
  found = savings.measured([sent(900, 12_000), sent(300, 4000, 1)], [sent(300, 12_000), sent(600, 12_000)], 4000, 4040)
  assert found['uplink'] == savings.Savings(24_000, 900, 1200, 2) and found['uplink'].ratio == 24_000 / 2100
  assert found['uplink'].break_even == 1200 / (12_000 - 450)
  assert found['downlink'].ratio < 1 and found['both'].ratio == (24_000 + 24_240) / (900 + 24_000 + 1200 + 16_000)
  assert savings.measured([sent(1, 1)], [], 4, 4)['both'].break_even == float('inf')
