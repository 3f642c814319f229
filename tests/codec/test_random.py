"""The random numbers against the vectors of docs/random-numbers.md, and against what ideal ones would do.

Keys are fixed, so every p-value here is a constant: a failure is a change of the generator, never bad luck.
"""

import hashlib
import pathlib

import numpy as np
import pytest

from tests.codec import randomness
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops

SMALLEST_P = 1e-4
"""No statistic of the product's words may have a smaller p-value; about 200 are judged here."""

CAUGHT = 1e-10
"""A generator with a fault must have a p-value below this."""

SIZE = 1 << 16


def key_of(k0, k1):
  return np.array([k0, k1], np.uint32).view(np.int32)


def stream_of(k0, k1):
  return random.Stream(numpy_ops, lambda chunk: key_of(k0, k1))


# -- vectors ----------------------------------------------------------------------------------------------------------


KEY_VECTORS = [
    ((0, 0, 0, '', 0), 'c78a86cc c98fbc25'),
    ((42, 5, random.SHARED_CLIENT, 'dense/kernel', random.Purpose.ROTATION), '3a1263c9 44787db8'),
    ((42, 5, random.SHARED_CLIENT, 'dense/kernel', random.Purpose.ROTATION, 1), 'fcdf2096 80bc917d'),
    ((42, 5, random.SHARED_CLIENT, 'dense/kernel', random.Purpose.ROTATION, 65536), 'd5251c25 3182db7d'),
    ((42, 5, 7, 'dense/kernel', random.Purpose.PRE_ROUNDING), '2d9932f5 a58abadb'),
    ((42, 5, 7, 'dense/kernel', random.Purpose.QUANTIZER), 'e11135cf 81667121'),
    ((2**64 - 1, 2**32 - 1, 2**32 - 1, 'ü', 255), 'ccc887ac 2cb0aa93'),
]


@pytest.mark.parametrize('arguments, key', KEY_VECTORS)
def test_keys_are_the_documented_ones(arguments, key):
  derived = random.derive_key(*arguments)
  assert derived.dtype == np.int32
  assert ' '.join(f'{word:08x}' for word in derived.view(np.uint32)) == key


def test_purposes_keep_their_numbers():
  assert {purpose.name: purpose.value for purpose in random.Purpose} == {
      'ROTATION': 1, 'MASK': 2, 'PRE_ROUNDING': 3, 'QUANTIZER': 4, 'PERMUTATION': 5,
      'COUNT_SKETCH': 6, 'COUNT_SKETCH_ROUNDING': 7, 'BASIS': 8, 'BASIS_ROUNDING': 9,
      'UNITS': 10, 'COIN': 11, 'WEIGHTS': 12}


def test_every_argument_of_the_derivation_changes_the_key():
  base = (1, 2, 3, 'name', random.Purpose.MASK, 4)
  others = [(2, 2, 3, 'name', random.Purpose.MASK, 4), (1, 3, 3, 'name', random.Purpose.MASK, 4),
            (1, 2, 4, 'name', random.Purpose.MASK, 4), (1, 2, 3, 'nama', random.Purpose.MASK, 4),
            (1, 2, 3, 'name', random.Purpose.ROTATION, 4), (1, 2, 3, 'name', random.Purpose.MASK, 5)]
  keys = {random.derive_key(*arguments).tobytes() for arguments in [base, *others]}
  assert len(keys) == 7


X5_VECTORS = {
    (0x00000000, 0x00000000):
        ('c4a0e45c d62362b2 5f50cdf9 7e03904a 6b4edcd4 eac9594f 517c1632 5243178c', '27009805'),
    (0xFFFFFFFF, 0xFFFFFFFF):
        ('a52c00b2 2ca6bd47 e3d647f4 0b32486a 82e87418 ac23e7e5 b253077f 54e604b7', 'a85899a3'),
    (0x80000000, 0x80000000):
        ('d0106657 5ddbd6d6 1b56f8d8 70cd2d19 29bccb55 b99d1bbd 96519d8b 08f0f43a', '0a03437e'),
    (0x12345678, 0x9E3779B9):
        ('12bfa8b3 f87da105 d7e12875 b9c282a3 d85e56d6 95fc122a 8aefaad4 9c843f59', '8237ef23'),
    (0x3A1263C9, 0x44787DB8):
        ('b8f151ac 48180dbe 30202296 b04ae0c0 05f138eb 9a3be937 84652df3 7f480730', None),
}


@pytest.mark.parametrize('key', X5_VECTORS, ids=lambda key: f'{key[0]:08x}-{key[1]:08x}')
def test_words_are_the_documented_ones(key):
  first, last = X5_VECTORS[key]
  words = stream_of(*key).words(8)
  assert words.dtype == np.int32
  assert ' '.join(f'{word:08x}' for word in words.view(np.uint32)) == first
  if last is not None:
    assert f'{randomness.x5(np.array([2**32 - 1], np.uint32), *np.array(key, np.uint32))[0]:08x}' == last


DIGESTS = {
    (0, 0): '3de156f688939e06f39caa3d689ab8e288f75799c4f9493d50e3e166c886d864',
    (0x12345678, 0x9E3779B9): '39c41aeea37b2c6fae9cf9ffc316d4f89ecf9076aa25789cf855c8c6d8fd4f86',
}


@pytest.mark.parametrize('key', DIGESTS, ids=lambda key: f'{key[0]:08x}-{key[1]:08x}')
def test_the_digest_of_1200128_words_is_the_documented_one(key):
  assert hashlib.sha256(stream_of(*key).words(1200128).astype('<i4').tobytes()).hexdigest() == DIGESTS[key]


DOCUMENTED = stream_of(0x3A1263C9, 0x44787DB8)


SIGNS = '1011100011110001010100011010110001001000'
HALVES = [20908, 47345, 3518, 18456, 8854, 12320, 57536, 45130]
TIMES_131072 = [41817, 94691, 7037, 36913]
ONE_OF_EVERY = {10: [7, 12, 21, 36, 40, 56, 65, 74], 16: [11, 20, 35, 59, 64, 89, 104, 119]}


def test_signs_are_the_bits_of_the_words_from_the_top():
  negative = DOCUMENTED.signs(40) < 0
  assert ''.join('01'[int(sign)] for sign in negative) == SIGNS
  assert ''.join(f'{word:032b}' for word in DOCUMENTED.words(2).view(np.uint32))[:40] == SIGNS


def test_halves_are_the_low_then_the_high_half_of_each_word():
  halves = DOCUMENTED.halves(8)
  assert halves.dtype == np.float32
  assert halves.tolist() == HALVES
  words = DOCUMENTED.words(4).view(np.uint32).tolist()
  assert HALVES == [half for word in words for half in (word & 0xFFFF, word >> 16)]


def test_dither_is_the_middle_of_each_half_and_never_zero_or_one():
  dither = DOCUMENTED.dither(8)
  assert dither.dtype == np.float32
  assert (dither[:4] * 131072).tolist() == TIMES_131072
  assert (dither * 131072).tolist() == [2 * half + 1 for half in HALVES]
  drawn = stream_of(1, 2).dither(1 << 20)
  assert drawn.min() == 2.0**-17 and drawn.max() == 1 - 2.0**-17


@pytest.mark.parametrize('stride', ONE_OF_EVERY)
def test_a_word_times_the_stride_is_an_offset(stride):
  words = DOCUMENTED.words(8)
  offsets = words.view(np.uint32).astype(np.uint64) * np.uint64(stride) >> np.uint64(32)
  assert (np.arange(8) * stride + offsets.astype(int)).tolist() == ONE_OF_EVERY[stride]
  if stride == 16:
    np.testing.assert_array_equal(offsets, numpy_ops.shift_right(words, 32 - 4))


def test_the_specification_holds_these_vectors():
  text = (pathlib.Path(__file__).parents[2] / 'docs' / 'random-numbers.md').read_text(encoding='utf-8')
  keys = ['` | `'.join(key.split()) for _, key in KEY_VECTORS]
  words = [vector for pair in X5_VECTORS.values() for vector in pair if vector]
  lists = [' '.join(map(str, values)) for values in (HALVES, TIMES_131072, *ONE_OF_EVERY.values())]
  assert [vector for vector in [*keys, *words, *DIGESTS.values(), SIGNS, *lists] if f'`{vector}`' not in text] == []


@pytest.mark.parametrize('size', [0, 1, 2, 31, 32, 33, 1000])
def test_a_shorter_draw_is_a_prefix_of_a_longer_one(size):
  for draw in (DOCUMENTED.words, DOCUMENTED.signs, DOCUMENTED.halves, DOCUMENTED.dither):
    assert draw(size).shape == (size,)
    np.testing.assert_array_equal(draw(size), draw(1024)[:size])


def test_words_continue_with_the_key_of_the_next_chunk(monkeypatch):
  monkeypatch.setattr(random, 'WORDS_PER_KEY', 1000)
  stream = randomness.stream('long')
  keys = [randomness.hashed_key('long', chunk=chunk).view(np.uint32) for chunk in range(3)]
  expected = np.concatenate([randomness.x5_words(key, 0, 1000) for key in keys])
  np.testing.assert_array_equal(stream.words(2500).view(np.uint32), expected[:2500])
  np.testing.assert_array_equal(stream.words(2000).view(np.uint32), expected[:2000])
  np.testing.assert_array_equal(stream.halves(4001)[2000:], stream.halves(4100)[2000:4001])
  from_words = np.unpackbits(expected[:1001].byteswap().view(np.uint8))
  np.testing.assert_array_equal(stream.signs(32016) < 0, from_words[:32016] == 1)


@pytest.mark.parametrize('kind', ['words', 'signs', 'halves', 'dither'])
@pytest.mark.parametrize('start', [0, 1, 31, 32, 33, 127, 128, 129, 200, 256, 4095, 4096, 4100])
def test_a_draw_from_a_later_start_is_a_slice_of_the_whole(kind, start, monkeypatch):
  monkeypatch.setattr(random, 'WORDS_PER_KEY', 128)  # A chunk ends at word 128, half 256 and sign 4096.
  draw = getattr(randomness.stream('slices'), kind)
  whole = draw(4500)
  for size in (0, 1, 2, 33, 300):
    np.testing.assert_array_equal(draw(size, start), whole[start:start + size])


def test_a_key_draws_at_most_two_to_the_24_words():
  assert random.WORDS_PER_KEY == 2**24


def test_a_key_never_repeats_a_word():
  words = stream_of(1, 2).words(1 << 18)
  assert np.unique(words).size == words.size


# -- statistics -------------------------------------------------------------------------------------------------------


def test_the_examined_sequences_are_what_the_stream_draws():
  words = randomness.sequential('t').draw(1, 64)
  np.testing.assert_array_equal(words, randomness.stream('t').words(128)[64:].view(np.uint32))
  signs = randomness.sequence(randomness.sign_sequence('t').draw(1, 64), 'bits')
  np.testing.assert_array_equal(signs < 0, randomness.stream('t').signs(4112)[2064:] < 0)
  halves = randomness.half_sequence('t').draw(1, 64).view('<u2')
  np.testing.assert_array_equal(halves, randomness.stream('t').halves(257)[129:])


@pytest.mark.thorough
@pytest.mark.parametrize('source', randomness.product_sources() + randomness.unhashed_sources(), ids=lambda s: s.name)
def test_words_pass_every_statistic(source):
  statistics = randomness.battery(source.share(SIZE), most_bits=1 << 14)
  verdicts = randomness.examine(source, statistics, 1, SIZE)
  assert {s.name: v for s, v in zip(statistics, verdicts) if v.p < SMALLEST_P} == {}


def test_the_rejected_generator_fails():
  statistics = randomness.battery(most_bits=1 << 14)
  verdicts = randomness.examine(randomness.rejected(), statistics, 1, SIZE)
  caught = {statistic.name for statistic, verdict in zip(statistics, verdicts) if verdict.p < CAUGHT}
  assert caught >= {'autocorrelation of words', 'autocorrelation of halves'}


def every(step, change):
  """A fault that changes each `step`-th word."""

  def damage(words):
    words[::step] = change(words[::step])

  return damage


def repeat_neighbour(words):
  words[1::4] = words[::4]


def repeat_after_1000(words):
  at = np.arange(1000, words.size, 16)
  words[at] = words[at - 1000]


def sort_some(words):
  words.reshape(-1, 4)[::16].sort(axis=1)


def repeat_all(words):
  words[words.size // 2:] = words[:words.size // 2]


def tie_halves(words):
  words[::8] = words[::8] & np.uint32(0xFFFF) | words[::8] << np.uint32(16)


FAULTS = [
    (randomness.Bytes(), randomness.damaged('a rare byte', every(24, lambda w: w & np.uint32(0xFFFFFF0F)))),
    (randomness.BytePairs(), randomness.damaged('equal halves', tie_halves)),
    (randomness.Bits(0), randomness.damaged('a biased bit', every(32, lambda w: w | np.uint32(0x100)))),
    (randomness.Bits(0), randomness.damaged('equal halves', tie_halves)),
    (randomness.Bits(1), randomness.damaged('repeated neighbours', repeat_neighbour)),
    (randomness.HammingWeights(), randomness.damaged('repeated neighbours', repeat_neighbour)),
    (randomness.Orders(), randomness.damaged('sorted fours', sort_some)),
    (randomness.Gaps(1), randomness.damaged('repeated neighbours', repeat_neighbour)),
    (randomness.Gaps(4), randomness.damaged('repeated neighbours', repeat_neighbour)),
    (randomness.Gaps(8), randomness.damaged('repeated neighbours', repeat_neighbour)),
    (randomness.Runs(), randomness.damaged('sticky bits', every(32, lambda w: w | w >> np.uint32(1)))),
    (randomness.BirthdaySpacings(), randomness.weyl()),
    (randomness.Collisions(), randomness.damaged('a period', repeat_all)),
    (randomness.Ranks(), randomness.linear()),
    (randomness.Autocorrelation('words', SIZE), randomness.damaged('an echo', repeat_after_1000)),
    (randomness.Autocorrelation('halves', SIZE), randomness.damaged('an echo', repeat_after_1000)),
    (randomness.Autocorrelation('bits', 1 << 14), randomness.damaged('an echo', repeat_after_1000)),
]


@pytest.mark.parametrize('statistic, source', FAULTS, ids=lambda x: x.name)
def test_every_statistic_fails_some_generator(statistic, source):
  faulty, = randomness.examine(source, [statistic], 1, SIZE)
  sound, = randomness.examine(randomness.reference(), [statistic], 1, SIZE)
  assert faulty.p < CAUGHT
  assert sound.p > SMALLEST_P


# -- keys -------------------------------------------------------------------------------------------------------------


SAMPLES = np.random.default_rng(1).integers(0, 1 << 32, (3, 1 << 15), np.uint32)


@pytest.mark.parametrize('argument', [0, 1, 2], ids=['index', 'k0', 'k1'])
def test_each_bit_of_the_arguments_changes_half_of_the_word(argument):
  assert randomness.avalanche(randomness.x5, argument, SAMPLES).p > SMALLEST_P


def test_each_bit_of_a_small_index_changes_half_of_the_word():
  small = SAMPLES & np.array([[0xFFFF], [0xFFFFFFFF], [0xFFFFFFFF]], np.uint32)
  assert randomness.avalanche(randomness.x5, 0, small).p > SMALLEST_P


def test_avalanche_fails_one_round_of_mixing():
  one_round = lambda index, k0, k1: (index ^ k0 ^ (index ^ k0) >> np.uint32(16)) * np.uint32(0x7FEB352D) + k1
  assert all(randomness.avalanche(one_round, argument, SAMPLES).p < CAUGHT for argument in (0, 1, 2))


def test_seeds_of_the_rejected_generator_permute_the_same_words():
  index = np.arange(1 << 16, dtype=np.uint32)
  first, second = (randomness.lowbias32(index, np.uint32(seed)) for seed in (4, 5))
  assert randomness.common_words(first, second).p < CAUGHT
  first, second = (randomness.x5_words(key_of(seed, 0), 0, 1 << 16) for seed in (4, 5))
  assert randomness.common_words(first, second).p > SMALLEST_P


@pytest.mark.parametrize('values', ['words', 'halves', 'bits'])
def test_clients_draw_uncorrelated_values_at_the_same_index(values):
  clients = [randomness.stream('dither', random.Purpose.QUANTIZER, client).words(2048) for client in range(64)]
  drawn = np.stack([randomness.sequence(words.view(np.uint32), values) for words in clients])
  products = drawn @ drawn.T / np.sqrt(drawn.shape[1])
  assert randomness.judge_normal(products[np.triu_indices(64, 1)]).p > SMALLEST_P


# -- what stages make of them -----------------------------------------------------------------------------------------


def test_blocks_of_signs_have_the_gram_matrix_of_fair_coins():
  n = 512
  signs = np.where(randomness.stream('gram').signs(n * n) < 0, np.float32(-1), np.float32(1)).reshape(n, n)
  variance, largest, (low, high) = randomness.gram_spectrum(signs)
  assert variance.p > SMALLEST_P and largest.p > SMALLEST_P
  assert 0 <= low and high < 4.1
  repeated, excess, _ = randomness.gram_spectrum(np.concatenate([signs[:256], signs[:256]]))
  assert repeated.p < CAUGHT and excess.p < CAUGHT


def test_a_dither_of_16_bits_rounds_up_as_often_as_the_nearest_multiple_of_its_unit():
  # All 65536 halves, so this is the exact expectation of stochastic rounding, not a sample of it.
  dither = (np.arange(65536, dtype=np.float32) + np.float32(0.5)) * np.float32(2.0**-16)
  part = np.random.default_rng(5).random(64, np.float32)
  chance = np.mean(dither < part[:, None], axis=1)
  assert np.max(np.abs(chance - part)) <= 2.0**-17


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
def test_stochastic_rounding_is_unbiased_and_its_clients_are_independent(bits):
  size, clients = 1 << 14, 32
  x = np.random.default_rng(6).standard_normal(size)
  position = (x / np.max(np.abs(x)) + 1) * (2**bits - 1) / 2
  part = position - np.floor(position)
  variance = part * (1 - part)
  errors = [(randomness.stream('q', random.Purpose.QUANTIZER, client).dither(size) < part) - part
            for client in range(clients)]
  mean = np.sum(errors, axis=0) / np.sqrt(clients)
  assert randomness.p_of_z(np.sum(mean) / np.sqrt(np.sum(variance))) > SMALLEST_P
  # The squared error of the mean of all clients is that of independent ones: 1/n of a single client's.
  assert np.sum(mean**2) / np.sum(variance) == pytest.approx(1, abs=5 * np.sqrt(2 / size))


@pytest.mark.parametrize('r', [8, 16, 32, 64])
def test_the_sum_of_a_row_half_and_a_column_half_is_uniform_and_pairwise_independent(r):
  blocks = (1 << 20) // (r * r)
  halves = randomness.stream('separable', random.Purpose.PRE_ROUNDING, 3).halves(blocks * 2 * r).reshape(blocks, 2, r)
  total = halves[:, 0, :, None] + halves[:, 1, None, :]
  drawn = (np.where(total >= 65536, total - 65536, total) + 0.5) / 65536
  part = np.random.default_rng(7).uniform(0.1, 0.9, (r, r))
  errors = (drawn < part) - part
  variance = part * (1 - part)
  assert randomness.judge_normal(errors.sum(axis=0) / np.sqrt(blocks * variance)).p > SMALLEST_P
  for weights in (np.ones((r, r)), np.outer((-1)**np.arange(r), np.ones(r)), np.eye(r), part):
    sums = np.einsum('ij,nij->n', weights, errors)
    ratio = np.mean(sums**2) / np.sum(weights**2 * variance)
    spread = np.std(sums**2) / np.mean(sums**2) / np.sqrt(blocks)
    assert ratio == pytest.approx(1, abs=4.5 * spread)
