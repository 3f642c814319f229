"""rANS: rate against entropy with table and lane states counted, an independent decoder, and damaged payloads."""

import constriction
import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec.coders import rans
from tff_compress.codec.coders.rans import Rans
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.stage import Integers


def _drawn(weights, size, seed=0):
  weights = np.asarray(weights, np.float64)
  return np.random.default_rng(seed).choice(len(weights), size, p=weights / weights.sum()).astype(np.int32)


def _entropy(symbols):
  p = np.bincount(symbols) / symbols.size
  p = p[p > 0]
  return -np.sum(p * np.log2(p))


def _table(payload, alphabet):
  """(the frequencies at the front, the bytes that follow): Rice-coded numbers, as the document says."""
  b, length, at = int(payload[0]), int(payload[1]) & 127, 2
  if payload[1] > 127:
    length, at = length + (int(payload[2]) << 7), 3
  low_bytes = (alphabet * b + 7) // 8
  low = int.from_bytes(payload[at:at + low_bytes].tobytes(), 'little')
  unary = int.from_bytes(payload[at + low_bytes:at + low_bytes + length].tobytes(), 'little')
  table = []
  for i in range(alphabet):
    zeros = (unary & -unary).bit_length() - 1
    unary >>= zeros + 1
    table.append((zeros << b) + (low >> b * i & (1 << b) - 1))
  return table, payload[at + low_bytes + length:]


def _written(table):
  """The inverse."""
  b = min(range(17), key=lambda b: sum((f >> b) + 1 + b for f in table))
  unary, place = 0, -1
  for f in table:
    place += (f >> b) + 1
    unary |= 1 << place
  length = place // 8 + 1
  low = sum((f & (1 << b) - 1) << b * i for i, f in enumerate(table))
  count = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
  return bytes([b]) + count + low.to_bytes((len(table) * b + 7) // 8, 'little') + unary.to_bytes(length, 'little')


def reference_decode(payload, size, alphabet, largest_lanes=4096):
  """Decodes from the format's description, one symbol at a time, with Python integers."""
  lanes = 1
  while lanes * 2 <= min(size // 4096, largest_lanes):
    lanes *= 2
  frequencies, rest = _table(payload, alphabet)
  starts = np.concatenate([[0], np.cumsum(frequencies)])
  rest = rest.tobytes()
  states = [int.from_bytes(rest[4 * i:4 * i + 4], 'little') for i in range(lanes)]
  words = [int.from_bytes(rest[i:i + 2], 'little') for i in range(4 * lanes, len(rest), 2)]
  symbols = []
  for i in range(-(-size // lanes) * lanes):
    state = states[i % lanes]
    slot = state % 4096
    symbol = int(np.searchsorted(starts, slot, side='right')) - 1
    state = frequencies[symbol] * (state // 4096) + slot - int(starts[symbol])
    if state < 1 << 16:
      state = state * 65536 + words.pop(0)
    states[i % lanes] = state
    symbols.append(symbol)
  assert not words and all(state == 1 << 16 for state in states)
  return np.asarray(symbols[:size])


def reference_encode(symbols, alphabet, largest_lanes=4096):
  """Encodes as the document says, one symbol at a time."""
  size = len(symbols)
  counts = [int(n) for n in np.bincount(symbols, minlength=alphabet)]
  used = sum(n > 0 for n in counts)
  table = [n * (4096 - used) // size + (n > 0) for n in counts]
  table[counts.index(max(counts))] += 4096 - sum(table)
  starts = [sum(table[:s]) for s in range(alphabet)]
  lanes = 1
  while lanes * 2 <= min(largest_lanes, max(size // 4096, 1)):
    lanes *= 2
  filled = [int(s) for s in symbols] + [table.index(max(table))] * (-size % lanes)
  states, words = [1 << 16] * lanes, []
  for i in reversed(range(len(filled))):
    s, x = filled[i], states[i % lanes]
    if x >= table[s] << 20:
      words.append(x & 0xFFFF)
      x >>= 16
    states[i % lanes] = 4096 * (x // table[s]) + x % table[s] + starts[s]
  return (_written(table) + b''.join(x.to_bytes(4, 'little') for x in states)
          + b''.join(w.to_bytes(2, 'little') for w in words[::-1]))


# Symbols' weights and how far above the entropy of the drawn symbols the whole payload may be, at a million symbols.
# 128 lanes end with 16 bits each that say nothing, 2^11 bits in all; tables of 12 bits cost what they round.
@pytest.mark.thorough
@pytest.mark.parametrize('weights, above', [([8, 4, 2, 2], 0.0025), ([1] * 16, 0.0015), ([60, 25, 10, 5], 0.003),
                                            (np.exp(-np.arange(256) / 20), 0.009), ([990, 5, 5], 0.05)],
                         ids=['1.75 bits', '4 bits', '1.5 bits', '5.8 bits', '0.09 bits'])
def test_rate_is_near_entropy_at_a_million_symbols(weights, above):
  size = 1_000_000
  symbols = _drawn(weights, size)
  payload, _ = Rans().encode(xp, symbols, None, Integers(size, 0, len(weights) - 1))
  rate, entropy = 8 * len(payload) / size, _entropy(symbols)
  assert entropy < rate < entropy * (1 + above)


def test_one_lane_is_within_a_fifth_of_a_per_cent_of_entropy():
  for weights in ([8, 4, 2, 2], [60, 25, 10, 5], [990, 5, 5]):
    symbols = _drawn(weights, 30_000)
    payload, _ = Rans(lanes=1).encode(xp, symbols, None, Integers(symbols.size, 0, len(weights) - 1))
    framing = 8 * (len(payload) - len(_table(payload, len(weights))[1]) + 4)
    # 0.09-bit symbols pay for frequencies in 4096ths: 20/4096 in place of 0.005.
    assert 8 * len(payload) - framing < symbols.size * _entropy(symbols) * 1.002 + 16


def test_it_is_as_short_as_another_implementation():
  """constriction's ANS coder, with words of 32 bits, on the same symbols with nearly the same table."""
  weights = [60, 25, 10, 5]
  symbols = _drawn(weights, 50_000)
  payload, _ = Rans(lanes=1).encode(xp, symbols, None, Integers(symbols.size, 0, 3))
  model = constriction.stream.model.Categorical(np.asarray(_table(payload, 4)[0]) / 4096, perfect=False)
  oracle = constriction.stream.stack.AnsCoder()
  oracle.encode_reverse(symbols, model)
  assert 8 * len(payload) == pytest.approx(oracle.num_bits(), rel=5e-4, abs=80)


@pytest.mark.parametrize('size, lanes', [(1, 256), (100, 256), (5000, 256), (20_000, 256), (20_001, 2), (40_000, 4)])
def test_an_independent_decoder_reads_it(size, lanes):
  symbols = _drawn([50, 30, 15, 5, 0, 1], size)
  payload, _ = Rans(lanes=lanes).encode(xp, symbols, None, Integers(size, 0, 5))
  np.testing.assert_array_equal(reference_decode(payload, size, 6, lanes), symbols)


@pytest.mark.parametrize('size, lanes', [(1, 256), (999, 256), (9001, 256), (20_001, 2), (20_003, 4)])
@pytest.mark.parametrize('weights', [[50, 30, 15, 5, 0, 1], [0, 0, 1, 3], [1]], ids=str)
def test_an_independent_encoder_writes_it(size, lanes, weights):
  symbols = _drawn(weights, size)
  payload, _ = Rans(lanes=lanes).encode(xp, symbols, None, Integers(size, 0, len(weights) - 1))
  assert payload.tobytes() == reference_encode(symbols, len(weights), lanes)


@pytest.mark.parametrize('lanes', [1, 2, 64])
def test_lanes_side_by_side_and_symbol_by_symbol_are_the_same(lanes):
  symbols = _drawn([50, 30, 15, 5, 0, 1], 30 * lanes).astype(np.uint8)
  table = np.asarray([2000, 1200, 600, 200, 0, 96], np.int32)
  words, states = rans._encode_lanes(xp, symbols.reshape(30, lanes), table)
  plain_words, plain_states = rans._encode_in_python(symbols, table, lanes)
  np.testing.assert_array_equal(words, plain_words)
  np.testing.assert_array_equal(states, plain_states)
  symbol_of = np.repeat(np.arange(6, dtype=np.int32), table)
  padded = np.concatenate([words, np.zeros(lanes, np.int32)])
  for read, last, used in (rans._decode_lanes(xp, padded, states, table, symbol_of, 30),
                           rans._decode_in_python(padded, states, table, symbol_of, 30 * lanes)):
    np.testing.assert_array_equal(read, symbols)
    assert np.all(last == 1 << 16) and used == words.size


@pytest.mark.parametrize('alphabet', [1, 2, 3, 200, 256])
def test_frequencies_sum_to_4096_and_none_that_is_used_is_zero(alphabet):
  for seed in range(5):
    weights = np.random.default_rng(seed).random(alphabet)**8
    symbols = _drawn(weights, 3000, seed)
    table = _table(Rans().encode(xp, symbols, None, Integers(3000, 0, alphabet - 1))[0], alphabet)[0]
    assert sum(table) == 4096
    counts = np.bincount(symbols, minlength=alphabet)
    assert all((count > 0) == (frequency > 0) for count, frequency in zip(counts, table))


def test_rare_symbols_among_a_million_come_back():
  symbols = np.zeros(1_000_000, np.int32)
  symbols[[0, 123456, 999999]] = 3, 1, 2
  payload, _ = Rans().encode(xp, symbols, None, Integers(symbols.size, 0, 3))
  np.testing.assert_array_equal(Rans().decode(xp, payload, {}, None, Integers(symbols.size, 0, 3)), symbols)
  assert len(payload) < 1200


def test_one_symbol_only_costs_table_and_state():
  symbols = np.full(4000, 7, np.int32)
  payload, _ = Rans().encode(xp, symbols, None, Integers(4000, 0, 15))
  # 16 numbers of 7 bits, of which one is 4096 = 32 · 2^7: b, the count of 6, 14 bytes, 47 bits.
  assert len(payload) == 2 + 14 + 6 + 4


def test_wrong_tables_states_and_lengths_are_refused():
  signal = Integers(500, 0, 3)
  symbols = _drawn([8, 4, 2, 2], 500)
  payload, _ = Rans().encode(xp, symbols, None, signal)
  head = len(payload) - len(_table(payload, 4)[1])
  table = payload.copy()
  table[2] ^= 1
  state = payload.copy()
  state[head:head + 4] = 0
  for wrong, what in ((table, 'sum to 4096|too large'), (state, 'state'), (payload[:-1], 'length'),
                      (payload[:head + 1], 'length'), (payload[:-2], 'end'),
                      (np.concatenate([payload, payload[:2]]), 'end'),
                      (np.concatenate([payload, np.zeros(2000, np.uint8)]), 'length')):
    with pytest.raises(codec_lib.PayloadError, match=what):
      Rans().decode(xp, wrong, {}, None, signal)


@pytest.mark.parametrize('lanes', [0, 3, 8192, -1])
def test_lanes_are_a_power_of_two(lanes):
  with pytest.raises(codec_lib.CodecError, match='power of two'):
    Rans(lanes=lanes)
