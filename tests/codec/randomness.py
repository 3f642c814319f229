"""Statistics of 32-bit words: what an ideal source would give, and how far a given source is from it.

Shared by tests/codec/test_random.py (small samples, fixed keys) and benchmarks/codecs/randomness.py (full size). A
`Source` yields words block by block. A statistic is an object with `count`, which turns one block into a small array,
and `judge`, which turns the sum of these arrays over all blocks into a p-value; so memory does not grow with the
sample.

Every p-value is two-sided: a source that is too even is as suspect as one that is too uneven.
"""

from collections.abc import Callable
import dataclasses
import itertools

import numpy as np
from scipy import special
from scipy import stats

from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops

POPULATION = 2.0**32

# -- p-values ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The value of a statistic and the chance that an ideal source gives one at least as extreme."""
  statistic: float
  p: float
  meaning: str


def two_sided(below, above):
  return float(min(1.0, 2 * min(below, above)))


def p_of_z(z):
  return float(2 * stats.norm.sf(abs(z)))


def p_of_chi_square(value, freedom):
  return two_sided(special.chdtr(freedom, value), special.chdtrc(freedom, value))


def p_of_poisson(count, mean):
  return two_sided(stats.poisson.cdf(count, mean), stats.poisson.sf(count - 1, mean))


def p_of_smallest(p, trials):
  """Chance that the smallest of `trials` independent p-values is at most p."""
  return float(-np.expm1(trials * np.log1p(-min(p, 1 - 1e-16))))


def chi_square(observed, probabilities):
  """Pearson's statistic and its degrees of freedom."""
  expected = observed.sum() * probabilities
  return float(np.sum((observed - expected)**2 / expected)), observed.size - 1


def judge_normal(z):
  """Judges independent standard normal values by their largest magnitude and by their sum of squares."""
  z = np.ravel(z)
  largest = float(np.max(np.abs(z)))
  p_largest = p_of_smallest(p_of_z(largest), z.size)
  p_squares = p_of_chi_square(float(np.sum(z * z)), z.size)
  return Verdict(largest, p_of_smallest(min(p_largest, p_squares), 2), f'largest z of {z.size}')


# -- statistics of words ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bytes:
  """How often each byte value occurs in each of the four places of a word. `share` as in `BytePairs`."""
  share: float = 0.0
  name = 'byte frequencies'

  def count(self, words):
    lanes = words.view(np.uint8).reshape(-1, 4)
    return np.stack([np.bincount(lanes[:, lane], minlength=256) for lane in range(4)])

  def judge(self, counts):
    values = [chi_square(lane, np.full(256, 1 / 256)) for lane in counts]
    value, freedom = np.sum(values, axis=0)
    value /= 1 - self.share
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {int(freedom)} degrees of freedom')


@dataclasses.dataclass(frozen=True)
class BytePairs:
  """How often each pair of byte values occurs in each of the six pairs of places of one word.

  Two of the pairs are the low and the high half of the word; the other four compare the halves with each other.

  Args:
    share: fraction of the 2^32 words of its key that the source uses. As a key never repeats a word, its counts vary
      less than those of independent words, by this fraction.
  """
  share: float = 0.0
  name = 'byte pairs within a word'

  def count(self, words):
    lanes = words.view(np.uint8).reshape(-1, 4).astype(np.int64)
    return np.stack([np.bincount(lanes[:, a] << 8 | lanes[:, b], minlength=65536)
                     for a in range(4) for b in range(a)])

  def judge(self, counts):
    values = [chi_square(pair, np.full(65536, 2.0**-16)) for pair in counts]
    freedom = values[0][1]
    p = [p_of_chi_square(value / (1 - self.share), freedom) for value, _ in values]
    z = [(value / (1 - self.share) - freedom) / np.sqrt(2 * freedom) for value, _ in values]
    return Verdict(max(z, key=abs), p_of_smallest(min(p), 6), 'largest z of 6 chi-squares')


@dataclasses.dataclass(frozen=True)
class Bits:
  """Balance of the 32 bits of a word, and correlation of each with each bit of the word `lag` places later."""
  lag: int = 0
  most = 1 << 24

  @property
  def name(self):
    return f'bit pairs, lag {self.lag}'

  def count(self, words):
    signs = 1 - 2 * np.unpackbits(words.view(np.uint8), bitorder='little').reshape(-1, 32).astype(np.float32)
    size = len(signs) - self.lag
    products = signs[:size].T @ signs[self.lag:]  # Sums of ±1: exact up to 2^24 rows.
    return np.concatenate([[size], signs.sum(axis=0), products.ravel()])

  def judge(self, counts):
    z = counts[1:] / np.sqrt(counts[0])
    balance, products = z[:32], z[32:].reshape(32, 32)
    pairs = products[np.triu_indices(32, 1)] if self.lag == 0 else products.ravel()
    return judge_normal(np.concatenate([balance, pairs]))


@dataclasses.dataclass(frozen=True)
class HammingWeights:
  """Number of set bits in a word, jointly with that of the next word."""
  name = 'Hamming weights of neighbours'
  edges = np.array([13, 14, 15, 16, 17, 18, 20])

  def count(self, words):
    ones = np.array([bin(v).count('1') for v in range(256)], np.uint8)
    weights = ones[words.view(np.uint8)].reshape(-1, 4).sum(axis=1)
    classes = np.searchsorted(self.edges, np.arange(33), side='right')[weights]
    return np.bincount(classes[0::2] * 8 + classes[1::2], minlength=64)

  def judge(self, counts):
    below = stats.binom.cdf(np.append(self.edges, 33) - 1, 32, 0.5)
    probabilities = np.diff(below, prepend=0.0)
    value, freedom = chi_square(counts, np.outer(probabilities, probabilities).ravel())
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {freedom} degrees of freedom')


@dataclasses.dataclass(frozen=True)
class Orders:
  """Which of the 24 orders four successive words are in."""
  name = 'order of four words'

  def count(self, words):
    return np.bincount(self._code(words.reshape(-1, 4).T), minlength=64)

  def _code(self, columns):
    pairs = [(a, b) for b in range(4) for a in range(b)]
    return sum((columns[a] > columns[b]).astype(np.int64) << bit for bit, (a, b) in enumerate(pairs))

  def judge(self, counts):
    orders = self._code(np.array(list(itertools.permutations(range(4)))).T)  # The other 40 codes cannot occur.
    value, freedom = chi_square(counts[orders], np.full(24, 1 / 24))
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {freedom} degrees of freedom')


@dataclasses.dataclass(frozen=True)
class Gaps:
  """Distances between words whose top `bits` bits are zero; they are geometric."""
  bits: int

  @property
  def name(self):
    return f'gaps, top {self.bits} bits zero'

  def count(self, words):
    gaps = np.diff(np.flatnonzero(words < np.uint32(1 << (32 - self.bits))))
    return np.bincount(np.minimum(gaps - 1, self._longest), minlength=self._longest + 1)

  @property
  def _longest(self):
    return 6 << self.bits

  def judge(self, counts):
    # Cells of equal probability as far as possible: with 2^bits = 256, sixteen distances to a cell.
    width = max(1, (1 << self.bits) // 16)
    beyond = (1 - 2.0**-self.bits)**np.arange(0, self._longest + 1, width)
    probabilities = np.append(beyond[:-1] - beyond[1:], beyond[-1])
    observed = np.append(counts[:-1].reshape(-1, width).sum(axis=1), counts[-1])
    value, freedom = chi_square(observed, probabilities)
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {freedom} degrees of freedom')


@dataclasses.dataclass(frozen=True)
class Runs:
  """Lengths of the runs of equal bits in the sequence of all bits."""
  name = 'runs of bits'
  longest = 14
  most = 1 << 25

  def count(self, words):
    total = np.zeros(self.longest, np.int64)
    for part in np.split(words, max(1, words.size >> 16)):
      bits = np.unpackbits(part.view(np.uint8), bitorder='little')
      lengths = np.diff(np.flatnonzero(bits[1:] != bits[:-1]))
      total += np.bincount(np.minimum(lengths, self.longest) - 1, minlength=self.longest)
    return total

  def judge(self, counts):
    probabilities = 2.0**-np.arange(1, self.longest + 1)
    probabilities[-1] *= 2
    value, freedom = chi_square(counts, probabilities)
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {freedom} degrees of freedom')


@dataclasses.dataclass(frozen=True)
class BirthdaySpacings:
  """Marsaglia's test: among the spacings of 4096 sorted words, the number of repeated ones is Poisson, mean 4."""
  name = 'birthday spacings'
  most = 1 << 25

  def count(self, words):
    days = np.sort(words.reshape(-1, 4096), axis=1)
    spacings = np.sort(np.diff(days, axis=1), axis=1)
    return np.array([len(days), np.sum(spacings[:, 1:] == spacings[:, :-1])])

  def judge(self, counts):
    n, days = 4096.0, POPULATION
    mean = n * (n - 1) * (n - 2) / (4 * days) - n**5 / (18 * days**2)  # Pairs of n - 1 spacings, less triples.
    return Verdict(float(counts[1]), p_of_poisson(counts[1], counts[0] * mean),
                   f'repeats, {counts[0] * mean:.0f} expected')


@dataclasses.dataclass(frozen=True)
class Collisions:
  """Throws balls into 2^32 urns, each addressed by the top halves of two successive words, and counts collisions."""
  name = 'collisions of word pairs'

  def count(self, words):
    urns = np.sort((words[0::2] >> np.uint32(16)) << np.uint32(16) | words[1::2] >> np.uint32(16))
    mean = urns.size - POPULATION * -np.expm1(urns.size * np.log1p(-1 / POPULATION))
    return np.array([np.sum(urns[1:] == urns[:-1]), mean])

  def judge(self, counts):
    return Verdict(float(counts[0]), p_of_poisson(counts[0], counts[1]), f'collisions, {counts[1]:.1f} expected')


@dataclasses.dataclass(frozen=True)
class Ranks:
  """Ranks over GF(2) of 32 x 32 matrices of bits, one word a row."""
  name = 'ranks of bit matrices'
  most = 1 << 24

  def count(self, words):
    total = np.zeros(4, np.int64)
    for part in np.split(words, max(1, words.size >> 17)):
      total += np.bincount(np.maximum(bit_ranks(part.reshape(-1, 32)) - 29, 0), minlength=4)
    return total

  def judge(self, counts):
    probabilities = np.array([0.0, rank_probability(30), rank_probability(31), rank_probability(32)])
    probabilities[0] = 1 - probabilities.sum()
    value, freedom = chi_square(counts, probabilities)
    return Verdict(value, p_of_chi_square(value, freedom), f'chi-square, {freedom} degrees of freedom')


def bit_ranks(matrices):
  """uint32[n, 32] -> int[n]: rank of each matrix whose rows are words."""
  rows = matrices.T.copy()
  rank = np.zeros(rows.shape[1], np.int64)
  for _ in range(32):
    # The largest row holds the highest bit still present; clear that bit from all others by adding the row to them.
    at = rows.argmax(axis=0)
    pivot = np.take_along_axis(rows, at[None], axis=0)[0]
    np.put_along_axis(rows, at[None], np.uint32(0), axis=0)
    reduced = rows ^ pivot
    np.minimum(rows, reduced, out=rows)
    rank += pivot != 0
  return rank


def rank_probability(rank, size=32):
  """Chance that a random size x size matrix over GF(2) has this rank."""
  i = np.arange(rank, dtype=np.float64)
  products = (1 - 2.0**(i - size))**2 / (1 - 2.0**(i - rank))
  return float(2.0**(rank * (2 * size - rank) - size * size) * np.prod(products))


@dataclasses.dataclass(frozen=True)
class Autocorrelation:
  """Correlation of a sequence of numbers of zero mean with itself, at every lag up to half a segment.

  Args:
    values: 'words' for the words as numbers, 'halves' for their halves, low first, 'bits' for all bits as ±1.
    most: number of words after which the statistic stops.
  """
  values: str
  most: int
  segment = 1 << 22

  @property
  def name(self):
    return f'autocorrelation of {self.values}'

  def count(self, words):
    per_word = {'words': 1, 'halves': 2, 'bits': 32}[self.values]
    parts = np.split(words, max(1, words.size * per_word // self.segment))
    size = parts[0].size * per_word
    products = np.zeros(size // 2)
    for part in parts:
      spectrum = np.fft.rfft(sequence(part, self.values), 2 * size)
      products += np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[:size // 2]
    return np.stack([products, len(parts) * (size - np.arange(size // 2.0))])

  def judge(self, counts):
    z = counts[0, 1:] / np.sqrt(counts[1, 1:])
    largest = float(np.max(np.abs(z)))
    p_all = p_of_smallest(p_of_z(largest), z.size)
    p_near = p_of_chi_square(float(np.sum(z[:64]**2)), 64)
    return Verdict(largest, p_of_smallest(min(p_all, p_near), 2), f'largest z of {z.size} lags')


def sequence(words, values):
  """Words as float64 numbers of mean 0 and variance 1; see `Autocorrelation`."""
  if values == 'bits':
    return 1.0 - 2.0 * np.unpackbits(words.view(np.uint8), bitorder='little')
  width = {'words': 32, 'halves': 16}[values]
  numbers = words if values == 'words' else words.view('<u2')
  size = 2.0**width
  return (numbers.astype(np.float64) - (size - 1) / 2) * np.sqrt(12 / (size * size - 1))


def battery(share=0.0, most_bits=1 << 20):
  """The statistics applied to every source. `share` as in `BytePairs`; `most_bits` limits the slowest one."""
  return (Bytes(share), BytePairs(share), Bits(0), Bits(1), Bits(2), HammingWeights(), Orders(), Gaps(1), Gaps(4),
          Gaps(8), Runs(), BirthdaySpacings(), Collisions(), Ranks(), Autocorrelation('words', 1 << 25),
          Autocorrelation('halves', 1 << 24), Autocorrelation('bits', most_bits))


def examine(source, statistics, blocks, size):
  """Applies statistics to blocks 0 … blocks-1 of `size` words of a source; returns a list of Verdict.

  A statistic stops after the number of words in its attribute `most`, if it has one.
  """
  totals = [0] * len(statistics)
  for block in range(blocks):
    words = None
    for i, statistic in enumerate(statistics):
      if block and block * size >= getattr(statistic, 'most', np.inf):
        continue
      if words is None:
        words = np.ascontiguousarray(source.draw(block, size))
      part = words[:statistic.most] if size > getattr(statistic, 'most', np.inf) else words
      totals[i] = totals[i] + statistic.count(part)
  return [statistic.judge(total) for statistic, total in zip(statistics, totals)]


# -- statistics of a function of (index, k0, k1) ----------------------------------------------------------------------


def avalanche(function, argument, samples):
  """Flips each bit of one argument of `function(index, k0, k1)`; each bit of the word must change half the time.

  Args:
    function: uint32 arrays -> uint32 array.
    argument: 0 flips the index, 1 k0, 2 k1.
    samples: uint32[3, n]: the arguments to start from.

  Returns:
    Verdict on the 1024 pairs of a flipped bit and a changed bit.
  """
  before = function(*samples)
  z = []
  for bit in range(32):
    flipped = list(samples)
    flipped[argument] = samples[argument] ^ np.uint32(1 << bit)
    changes = (before ^ function(*flipped)).view(np.uint8)
    changed = np.unpackbits(changes, bitorder='little').reshape(-1, 32).sum(axis=0, dtype=np.int64)
    z.append((2 * changed - before.size) / np.sqrt(before.size))
  return judge_normal(np.array(z))


def common_words(a, b):
  """Judges how many words two streams share; for streams of distinct words, drawn independently, this is Poisson."""
  mean = a.size * b.size / POPULATION
  shared = np.intersect1d(a, b, assume_unique=True).size
  return Verdict(float(shared), p_of_poisson(shared, mean), f'shared words, {mean:.1f} expected')


def gram_spectrum(signs):
  """Judges n blocks of n signs by their inner products.

  Args:
    signs: ±1 float32[n, n], a block a row.

  Returns:
    (Verdict on the variance of the inner products of different blocks, Verdict on the largest eigenvalue of the Gram
    matrix divided by n, (smallest, largest) eigenvalue). The largest one is near 4 (Marchenko and Pastur); its
    standardised excess follows the Tracy-Widom law, of mean -1.21 and standard deviation 1.27.
  """
  n = len(signs)
  gram = signs @ signs.T
  products = gram[np.triu_indices(n, 1)].astype(np.float64) / np.sqrt(n)
  z = (np.mean(products**2) - 1) * np.sqrt(products.size / 2)
  eigenvalues = np.linalg.eigvalsh(gram.astype(np.float64) / n)
  centre = (np.sqrt(n - 1) + np.sqrt(n))**2
  scale = (np.sqrt(n - 1) + np.sqrt(n)) * (1 / np.sqrt(n - 1) + 1 / np.sqrt(n))**(1 / 3)
  excess = (n * eigenvalues[-1] - centre) / scale
  return (Verdict(float(np.std(products)), p_of_z(z), f'sd of {products.size} inner products'),
          Verdict(float(excess), p_of_z((excess + 1.2065) / 1.268), 'standardised largest eigenvalue'),
          (float(eigenvalues[0]), float(eigenvalues[-1])))


# -- sources ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Source:
  """A sequence of words.

  Args:
    name: what it is.
    draw: function (block, size) -> uint32[size], words block*size … (block+1)*size-1.
    keyed: whether runs of up to 2^24 words come from one key of X5 and so never repeat a word.
  """
  name: str
  draw: Callable
  keyed: bool = False

  def share(self, size):
    """Fraction of the words of its key that a sample of `size` words uses."""
    return min(size, random.WORDS_PER_KEY) / POPULATION if self.keyed else 0.0


def x5(index, k0, k1):
  """The product's X5 on uint32 arrays."""
  index, k0, k1 = (np.ascontiguousarray(a, np.uint32).view(np.int32) for a in (index, k0, k1))
  with np.errstate(over='ignore'):
    return random.x5(numpy_ops, index, k0, k1).view(np.uint32)


def x5_words(key, start, size):
  """Words start … start+size-1 of one key, in slices that stay in cache."""
  k0, k1 = np.asarray(key).view(np.uint32)
  out = np.empty(size, np.uint32)
  for at in range(0, size, numpy_ops.slice_size):
    stop = min(at + numpy_ops.slice_size, size)
    out[at:stop] = x5(np.arange(start + at, start + stop, dtype=np.uint32), k0, k1)
  return out


def hashed_key(name, client=random.SHARED_CLIENT, chunk=0, purpose=random.Purpose.ROTATION):
  return random.derive_key(42, 5, client, name, purpose, chunk)


def stream(name, purpose=random.Purpose.ROTATION, client=random.SHARED_CLIENT):
  """The product's stream of a tensor of that name."""
  return random.Stream(numpy_ops, lambda chunk: hashed_key(name, client, chunk, purpose))


def sequential(name='words'):
  """The words of one tensor: 2^24 of a key, then those of the next chunk."""

  def draw(block, size):
    chunk, start = divmod(block * size, random.WORDS_PER_KEY)
    return x5_words(hashed_key(name, chunk=chunk), start, size)

  return Source('words of one key', draw, keyed=True)


def short_streams(words_per_key=1024):
  """The first words of many keys, one per client."""

  def draw(block, size):
    first = block * size // words_per_key
    keys = np.stack([hashed_key('short', client) for client in range(first, first + size // words_per_key)])
    keys = keys.view(np.uint32)[:, :, None]
    index = np.arange(words_per_key, dtype=np.uint32)[None]
    return np.concatenate([x5(index, part[:, 0], part[:, 1]).ravel() for part in np.array_split(keys, len(keys) // 16)])

  return Source(f'{words_per_key} words of each client', draw)


def two_clients():
  """The words of two clients in turn, word i of the one before word i of the other; two new clients in each block."""

  def draw(block, size):
    return np.stack([x5_words(hashed_key('pair', 2 * block + i), 0, size // 2) for i in (0, 1)], axis=1).ravel()

  return Source('words of two clients in turn', draw)


def sign_sequence(name='signs'):
  """The signs of one tensor as a sequence of bits, from the 17th sign on, so that each word here straddles two."""

  def draw(block, size):
    words = reverse_bits(_one_more(name, block, size))
    return words[:-1] >> np.uint32(16) | words[1:] << np.uint32(16)

  return Source('signs, 32 per word', draw, keyed=True)


def half_sequence(name='halves'):
  """The halves of one tensor, from the second half on, so that each word here pairs halves of two words."""

  def draw(block, size):
    words = _one_more(name, block, size)
    return words[:-1] >> np.uint32(16) | words[1:] << np.uint32(16)

  return Source('dither halves, 2 per word', draw, keyed=True)


def _one_more(name, block, size):
  chunk, start = divmod(block * size, random.WORDS_PER_KEY)
  return x5_words(hashed_key(name, chunk=chunk), start, size + 1)


def reverse_bits(words):
  table = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(-1, 8)[:, ::-1])
  return table[words.view(np.uint8)].view(np.uint32).byteswap()


def related_keys(word, change):
  """Sixteen or 32 unhashed keys that differ in one key word only, interleaved.

  Args:
    word: 0 or 1, the key word that differs.
    change: 'add' for k, k+1, …, k+15; 'flip' for k with each of its bits flipped.
  """
  base = np.array([0x12345678, 0x9E3779B9], np.uint32)
  changes = np.arange(16, dtype=np.uint32) if change == 'add' else np.uint32(1) << np.arange(32, dtype=np.uint32)
  keys = np.repeat(base[:, None], changes.size, axis=1)
  keys[word] = keys[word] + changes if change == 'add' else keys[word] ^ changes

  def draw(block, size):
    rows = size // changes.size
    index = np.arange(block * rows, (block + 1) * rows, dtype=np.uint32)[:, None]
    return np.concatenate([x5(part, keys[0], keys[1]).ravel() for part in np.split(index, max(1, rows >> 9))])

  return Source(f'keys k{word} {"+ j" if change == "add" else "with one bit flipped"}', draw)


def running_key(word):
  """Word 0 of every key in a sequence where one key word counts up."""

  def draw(block, size):
    counter = np.arange(block * size, (block + 1) * size, dtype=np.uint32)
    zero = np.uint32(0)
    parts = np.split(counter, max(1, size >> 14))
    return np.concatenate([x5(zero, part, zero) if word == 0 else x5(zero, zero, part) for part in parts])

  return Source(f'first word, k{word} counting', draw)


def product_sources():
  """The ways in which the product draws words: one after another, and those of many clients side by side."""
  return sequential(), short_streams(), two_clients(), sign_sequence(), half_sequence()


def unhashed_sources():
  """Keys more alike than the key derivation ever gives: a margin, not something the product draws."""
  return (related_keys(0, 'add'), related_keys(1, 'add'), related_keys(0, 'flip'), related_keys(1, 'flip'),
          running_key(0), running_key(1))


# -- sources that must fail -------------------------------------------------------------------------------------------


def lowbias32(index, seed):
  """A well-known two-multiplication hash of index ^ seed: too weak for this use, see `rejected`."""
  x = index ^ seed
  x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
  x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
  return x ^ x >> np.uint32(16)


def rejected(seed=0):
  """lowbias32 of a counter: passes most statistics."""

  def draw(block, size):
    return lowbias32(np.arange(block * size, (block + 1) * size, dtype=np.uint32), np.uint32(seed))

  return Source('lowbias32 (rejected)', draw)


def weyl():
  """Multiples of an odd constant: each word alone is uniform, but their spacings take three values."""

  def draw(block, size):
    return np.arange(block * size, (block + 1) * size, dtype=np.uint32) * np.uint32(0x9E3779B9)

  return Source('Weyl sequence', draw)


def linear():
  """A 32-bit shift-register generator: every bit is a linear function of the seed over GF(2)."""

  def draw(block, size):
    out = np.empty(size, np.uint32)
    x = 2463534242 + block
    for i in range(size):
      x ^= x << 13 & 0xFFFFFFFF
      x ^= x >> 17
      x ^= x << 5 & 0xFFFFFFFF
      out[i] = x
    return out

  return Source('xorshift32', draw)


def reference():
  """NumPy's PCG64, as a check of the statistics themselves."""

  def draw(block, size):
    return np.random.default_rng([20240, block]).integers(0, 1 << 32, size, np.uint32)

  return Source('PCG64 (NumPy), for comparison', draw)


def damaged(name, damage):
  """PCG64 with a given fault: `damage` changes uint32[size] words in place."""

  def draw(block, size):
    words = reference().draw(block, size)
    damage(words)
    return words

  return Source(name, draw)
