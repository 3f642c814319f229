"""Evidence for the random numbers: statistics of generator X5 and of what stages draw from it, with costs.

2^27 words of each source, in minutes; a quick run has 2^19, in seconds. Memory stays below 1 GB. The statistics are
those of tests/codec/randomness.py. docs/random-numbers.md quotes the figures. It fails if a p-value is below 1e-10.
"""

import time

import numpy as np
from scipy import linalg

from benchmarks.lib import harness
from benchmarks.lib import progress
from tests.codec import randomness
from tff_compress import codec as codec_lib
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops

SUSPICIOUS = 1e-4
FAILED = 1e-10
"""Between the two a p-value calls for a second look: one in fifty runs of 200 ideal tests has a p below 1e-4."""

COUNTED = ('pass', 'suspicious', 'FAIL')


class Report:
  """Collects rows, a table for each section."""

  def __init__(self):
    self.rows = []

  def add(self, section, **row):
    self.rows.append({'table': section, **row})

  def judge(self, section, test, stream, verdict):
    """Adds a row for one p-value of what the product draws."""
    p = verdict.p
    self._judged(section, test, stream, verdict, 'pass' if p > SUSPICIOUS else 'suspicious' if p > FAILED else 'FAIL')

  def compare(self, section, test, stream, verdict):
    """Adds a row for one p-value of something the product does not draw; it does not count in the summary."""
    p = verdict.p
    self._judged(section, test, stream, verdict, 'none' if p > SUSPICIOUS else 'some' if p > FAILED else 'found')

  def _judged(self, section, test, stream, verdict, word):
    column = 'verdict' if word in COUNTED else 'fault'
    self.add(section, test=test, stream=stream, statistic=verdict.statistic, meaning=verdict.meaning, p=verdict.p,
             **{column: word})


# -- statistics -------------------------------------------------------------------------------------------------------


def words(report, full):
  """Every source under every statistic."""
  blocks, size = (128, 1 << 20) if full else (1, 1 << 19)
  for section, judge, sources in (
      ('Words', report.judge, randomness.product_sources()),
      ('Words of unhashed keys, which the product never draws', report.compare, randomness.unhashed_sources()),
      ('Words of a good and of a rejected generator', report.compare, (randomness.reference(), randomness.rejected()))):
    for source in sources:
      progress.say(f'{source.name}: {blocks * size} words')
      statistics = randomness.battery(source.share(blocks * size), most_bits=1 << (20 if full else 17))
      for statistic, verdict in zip(statistics, randomness.examine(source, statistics, blocks, size)):
        judge(section, statistic.name, source.name, verdict)


def keys(report, full):
  """Avalanche, and words that streams of related keys share."""
  progress.say('avalanche and related keys')
  samples = np.random.default_rng(1).integers(0, 1 << 32, (3, 1 << (20 if full else 16)), np.uint32)
  near = samples.copy()
  near[0] &= np.uint32((1 << 20) - 1)
  for name, argument, start in (('index', 0, samples), ('index below 2^20', 0, near), ('k0', 1, samples),
                                ('k1', 2, samples)):
    report.judge('Keys', 'avalanche', f'flips in {name}', randomness.avalanche(randomness.x5, argument, start))
  report.judge('Keys', 'correlation at equal index', f'halves of {256 if full else 64} clients, 2^16 each',
               clients(256 if full else 64, 1 << 16))
  index = np.arange(1 << 18, dtype=np.uint32)
  report.compare('Keys of the rejected generator', 'words in common', 'lowbias32, seeds 4 and 5',
                 randomness.common_words(*(randomness.lowbias32(index, np.uint32(seed)) for seed in (4, 5))))


def clients(count, size):
  """Judges the correlations between the dither halves of different clients at equal index."""
  products = np.zeros((count, count))
  drawn = [randomness.stream('dither', random.Purpose.QUANTIZER, client).words(size // 2) for client in range(count)]
  for start in range(0, size // 2, 4096):
    part = np.stack([randomness.sequence(words[start:start + 4096].view(np.uint32), 'halves') for words in drawn])
    products += part @ part.T
  return randomness.judge_normal(products[np.triu_indices(count, 1)] / np.sqrt(size))


def deviations(report, full):
  """What tells X5 from an ideal source, by how much, and whether sums can notice."""
  progress.say('known deviations')
  for size, pairs in ((1 << 16, 1000), (1 << 18, 400), (1 << 20, 100)) if full else ((1 << 16, 100), (1 << 18, 50)):
    shared, at_one_lag, z = np.zeros(pairs), 0, np.zeros(pairs)
    for pair in range(pairs):
      first, second = (randomness.x5_words(randomness.hashed_key(name, pair), 0, size) for name in ('a', 'b'))
      _, i, j = np.intersect1d(first, second, assume_unique=True, return_indices=True)
      shared[pair] = i.size
      at_one_lag = max(at_one_lag, np.unique(i - j, return_counts=True)[1].max(initial=0))
      z[pair] = np.dot(*(randomness.sequence(words, 'words') for words in (first, second))) / np.sqrt(size)
    mean = size * size / randomness.POPULATION
    report.add('Known deviations', test='words shared by two keys', words_of_each=size, pairs=pairs, expected=mean,
               mean=float(np.mean(shared)), smallest=int(shared.min()), largest=int(shared.max()),
               variance_over_poisson=float(np.var(shared) / mean), most_at_one_lag=int(at_one_lag),
               variance_of_correlation_z=float(np.mean(z * z)))


def signs(report, full):
  """The Gram matrix of blocks of signs, which is what a rotation H diag(signs) sees of them."""
  n = 4096 if full else 1024
  progress.say(f'Gram matrices of {n} blocks of {n} signs')
  fair = lambda stream, size: np.where(stream.signs(size) < 0, np.float32(-1), np.float32(1))
  layouts = {
      'one key, blocks in turn': lambda: fair(randomness.stream('gram'), n * n).reshape(n, n),
      'a key for each block': lambda: np.stack([fair(randomness.stream('gram', client=i), n) for i in range(n)]),
      'PCG64 (NumPy), for comparison': lambda: np.random.default_rng(3).choice(
          np.array([-1, 1], np.float32), (n, n)),
  }
  for name, make in layouts.items():
    variance, largest, (low, high) = randomness.gram_spectrum(make())
    judge, section = (report.compare, 'Signs of a good generator') if 'PCG64' in name else (report.judge, 'Signs')
    judge(section, f'Gram matrix, {n} x {n}', name, variance)
    judge(section, f'eigenvalues {low:.2g} … {high:.3f}', name, largest)


# -- quality of rounding ----------------------------------------------------------------------------------------------


DITHERS = {'16 bits, 2 per word': 16, '24 bits, 1 per word': 24, 'float64 (NumPy)': 53}


def dither(bits, client, size):
  if bits == 16:
    return randomness.stream('dither', random.Purpose.QUANTIZER, client).dither(size).astype(np.float64)
  if bits == 24:
    drawn = randomness.stream('dither24', random.Purpose.QUANTIZER, client).words(size).view(np.uint32)
    return ((drawn >> np.uint32(8)) + 0.5) * 2.0**-24
  return np.random.default_rng([7, client]).random(size)


def rounding(report, full):
  """NMSE and bias of stochastic rounding, sampled and exact, by the number of bits of the dither."""
  size, clients = (1 << 20, 64) if full else (1 << 16, 16)
  rng = np.random.default_rng(2)
  normal = rng.standard_normal(size)
  for data, x, largest in (('normal', normal, np.max(np.abs(normal))), ('constant 0.3', np.full(size, 0.3), 1.0)):
    power = np.mean(x * x)
    for bits in (1, 2, 4, 8):
      progress.say(f'rounding, {data}, {bits} bits')
      step = 2 * largest / (2**bits - 1)
      position = (x / largest + 1) * (2**bits - 1) / 2
      below = np.floor(position)
      part = position - below
      variance = part * (1 - part)
      ideal = np.mean(variance) * step**2 / power
      for name, width in DITHERS.items():
        errors = np.zeros(size)
        nmse = np.zeros(clients)
        for client in range(clients):
          error = below + (dither(width, client, size) < part) - position
          errors += error
          nmse[client] = np.mean(error * error) * step**2 / power
        # What an ideal source of that many bits gives: the chance to round up is the nearest multiple of 2^-width.
        chance = np.round(part * 2.0**width) * 2.0**-width
        exact = np.mean(part**2 + chance * (1 - 2 * part)) * step**2 / power
        report.add(f'Stochastic rounding, {clients} clients, {size} values', data=data, bits=bits, dither=name,
                   nmse=float(np.mean(nmse)), standard_error=float(np.std(nmse) / np.sqrt(clients)), ideal=float(ideal),
                   exact_excess=float(exact / ideal - 1),
                   z_of_mean=float(np.sum(errors) / np.sqrt(clients * np.sum(variance))),
                   mean_of_clients_error_ratio=float(np.sum(errors**2) / (clients * np.sum(variance))),
                   exact_bias_rms_in_steps=float(np.sqrt(np.mean((chance - part)**2))))


def adding(report, full):
  """Exact bias of floor(position + dither) in float32, over all 65536 dithers: the sum is itself rounded."""
  dithers = (np.arange(65536, dtype=np.float32) + np.float32(0.5)) * np.float32(2.0**-16)
  rng = np.random.default_rng(8)
  for name, low, high in [(f'uniform, {bits} bits', 0, 2**bits - 1) for bits in (1, 2, 4, 6, 8)] + [
      (f'pre-rounding, block {block}', -2**24 // block, 2**24 // block) for block in (4096, 1024, 64)]:
    progress.say(f'bias of adding, {name}')
    positions = rng.uniform(low, high, 1024 if full else 256).astype(np.float32)
    bias = np.array([np.mean(np.floor(position + dithers), dtype=np.float64) - position for position in positions])
    report.add('Bias of floor(position + dither), in steps', values=name, mean=float(np.mean(bias)),
               rms=float(np.sqrt(np.mean(bias**2))), largest=float(np.max(np.abs(bias))))


def pre_rounding(report, full):
  """Error of the rounding before a transform, for one value and for sums of the same column of all rows of a tensor."""
  size, clients = (1 << 20, 24) if full else (1 << 18, 6)
  rng = np.random.default_rng(9)
  for block in (1024, 4096):
    r = int(np.sqrt(block))
    rows = size // block
    progress.say(f'pre-rounding, {rows} rows of {block}')
    x = rng.standard_normal((rows, block)).astype(np.float32).astype(np.float64)
    scaled = x * 2.0**(23 - np.log2(block)) / 2.0**np.floor(np.log2(np.max(np.abs(x), axis=1, keepdims=True)))

    def independent(stream, client):
      dither = stream.dither(size).reshape(rows, block)
      return (np.floor(scaled + dither) - scaled) * (x / scaled)

    def sums(stream, client):
      halves = stream.halves(rows * 2 * r).reshape(rows, 2, r)
      total = halves[:, 0, :, None] + halves[:, 1, None, :]
      dither = (np.where(total >= 65536, total - 65536, total) + 0.5) / 65536
      return (np.floor(scaled + dither.reshape(rows, block)) - scaled) * (x / scaled)

    def product(stream, client):
      decoded = codec.decode(codec.encode({'x': single}, seed=1, round=0, client=client), {'x': single}, seed=1,
                             round=0,
                             client=client)
      return decoded['x'].astype(np.float64) - x

    single = x.astype(np.float32)
    codec = codec_lib.parse(f'hadamard:block={block} | float32')
    for name, draw in (('independent', independent), ('row + column halves of each block', sums),
                       (f'as hadamard:block={block} does', product)):
      nmse, columns = np.zeros(clients), np.zeros(clients)
      for client in range(clients):
        error = draw(randomness.stream(f'before {block}', random.Purpose.PRE_ROUNDING, client), client)
        nmse[client] = np.sum(error**2) / np.sum(x**2)
        columns[client] = np.sum(np.sum(error, axis=0)**2) / np.sum(np.sum(x, axis=0)**2)
      report.add(f'Pre-rounding, {size} normal values, {clients} clients', block=block, dither=name,
                 nmse=float(np.mean(nmse)), nmse_of_column_sums=float(np.mean(columns)),
                 ratio=float(np.mean(columns) / np.mean(nmse)))


def separable(report, full):
  """Bias and variance of sums when a block's dither is the sum of row and column halves."""
  rng = np.random.default_rng(4)
  for r in (8, 16, 32, 64):
    blocks = (1 << (24 if full else 19)) // (r * r)
    progress.say(f'separable dither, {blocks} blocks of {r} x {r}')
    halves = randomness.stream(f'separable {r}', random.Purpose.PRE_ROUNDING, 3).halves(blocks * 2 * r)
    halves = halves.reshape(blocks, 2, r)
    rows = linalg.hadamard(r)
    for data, part in (('constant', np.full((r, r), 0.3)), ('random', rng.uniform(0.05, 0.95, (r, r))),
                       ('ramp', np.linspace(0.05, 0.95, r * r).reshape(r, r))):
      variance = part * (1 - part)
      total = np.zeros((r, r))
      sums, transformed, after_signs, squares = [], [], [], []
      for start in range(0, blocks, 512):
        a, b = halves[start:start + 512, 0, :, None], halves[start:start + 512, 1, None, :]
        drawn = a + b
        drawn = (drawn - 65536 * (drawn >= 65536) + 0.5) / 65536
        error = (drawn < part) - part
        total += error.sum(axis=0)
        sums.append(error.sum(axis=(1, 2)))
        transformed.append(np.einsum('i,nij,j->n', rows[1], error, rows[r // 2 + 1]))
        after_signs.append((error * rng.choice([-1.0, 1.0], error.shape)).sum(axis=(1, 2)))
        squares.append((error * error).sum(axis=(1, 2)))
      section = 'Separable dither'
      report.judge(section, f'bias of each of {r}x{r} values', data,
                   randomness.judge_normal(total / np.sqrt(blocks * variance)))
      for name, parts in (('sum', sums), ('Hadamard coordinate', transformed), ('sum after random signs', after_signs)):
        values = np.concatenate(parts)
        fourth = np.mean(values**4) / np.mean(values**2)**2
        ratio = np.mean(values**2) / np.sum(variance)
        report.judge(section, f'{name} of {r}x{r}, kurtosis {fourth:.2f}', data, randomness.Verdict(
            float(ratio), randomness.p_of_z((ratio - 1) / np.sqrt((fourth - 1) / blocks)),
            'variance / variance with independent dither'))
      spread = np.sum(variance * (1 - 2 * part)**2)
      values = np.concatenate(squares)
      ratio = np.var(values) / spread
      fourth = np.mean((values - values.mean())**4) / np.var(values)**2
      report.judge(section, f'squared error of {r}x{r}, kurtosis {fourth:.2f}', data, randomness.Verdict(
          float(ratio), randomness.p_of_z((ratio - 1) / np.sqrt((fourth - 1) / blocks)),
          'variance / variance with independent dither'))


# -- costs ------------------------------------------------------------------------------------------------------------


def costs(report, full):
  """Times of one run, each as nanoseconds a value and as a ratio to drawing one word for each value."""
  size = 1 << (22 if full else 20)
  r = 32
  blocks = size // (r * r)
  drawn = randomness.stream('cost')

  def signs_by_word():
    return drawn.words(size)  # The top bit of each word is the sign.

  def signs_by_bit():
    return drawn.signs(size)

  def dithers_by_word():
    return ((numpy_ops.shift_right(drawn.words(size), 8)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24)

  def dithers_by_half():
    return drawn.dither(size)

  def dithers_by_sum():
    halves = drawn.halves(blocks * 2 * r).reshape(blocks, 2, r)
    total = halves[:, 0, :, None] + halves[:, 1, None, :]
    return (np.where(total >= 65536, total - np.float32(65536), total) + np.float32(0.5)) * np.float32(2.0**-16)

  groups = (('signs', (('1 per word', signs_by_word), ('32 per word', signs_by_bit))),
            ('dithers', (('24 bits, 1 per word', dithers_by_word), ('16 bits, 2 per word', dithers_by_half),
                         (f'separable, blocks of {r} x {r}', dithers_by_sum))))
  for group, members in groups:
    progress.say(f'cost of {group}')
    best = [np.inf] * len(members)
    for _ in range(9):
      for i, (_, function) in enumerate(members):
        start = time.perf_counter()
        function()
        best[i] = min(best[i], time.perf_counter() - start)
    for (name, _), seconds in zip(members, best):
      report.add('Costs (NumPy, best of 9, in turns)', values=group, drawn=name, nanoseconds=seconds / size * 1e9,
                 ratio=seconds / best[0])


# -- all --------------------------------------------------------------------------------------------------------------


def run(quick):
  report = Report()
  for part in (costs, keys, deviations, signs, rounding, adding, pre_rounding, separable, words):
    part(report, not quick)
  judged = [row['p'] for row in report.rows if 'verdict' in row]
  failed = sum(p <= FAILED for p in judged)
  report.add('Summary', **{
      'tests': len(judged), 'smallest p': min(judged),
      'chance of one so small': randomness.p_of_smallest(min(judged), len(judged)),
      'suspicious': sum(SUSPICIOUS >= p > FAILED for p in judged), 'failed': failed})
  progress.say('')
  if failed:
    harness.print_tables(report.rows)
    raise AssertionError(f'{failed} of {len(judged)} statistics fail.')
  return report.rows
