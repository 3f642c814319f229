"""A decoder of frames written from docs/wire-format.md and docs/random-numbers.md: nothing of the product is imported.

Plain Python integers and floats, one value at a time, to be read beside the documents. It shows that they are complete,
and catches an encoder and a decoder of the product that go wrong together.
"""

import copy
from fractions import Fraction
import hashlib
import math
import struct
import zlib

MASK = 0xFFFFFFFF
SHARED = 0xFFFFFFFF
ROTATION, SUBSET, COUNT_SKETCH, BASIS = 1, 2, 6, 8

DEFAULTS = {
    'hadamard': {'rotations': 1, 'block': 1024, 'key': 'round'},
    'subsample': {'fraction': None, 'key': 'round', 'least': 0},
    'topk': {'fraction': None},
    'uniform': {'bits': 8, 'rounding': 'stochastic', 'range': 'block', 'block': 1024},
    'eden': {'bits': 1, 'scale': 'unbiased', 'block': 4096},
    'ternary': {'threshold': 2.441, 'block': 4096},
    'sigma-clip': {'deviations': 2.5},
    'countsketch': {'fraction': None, 'rows': 5},
    'pool': {'threshold': 0.0},
    'lowrank': {'share': None, 'key': 'round'},
    'autoencoder': {'latent': None, 'length': 0, 'order': 'rows', 'weights': ''},
    'symmetric': {'levels': 7, 'norm': 'l2', 'per': 'block', 'block': 512},
    'sign': {'scale': 'mean', 'per': 'tensor', 'block': 1024},
    'cluster': {'centroids': 3, 'iterations': 10},
    'bound': {'error': None, 'mode': 'absolute', 'limit': 127},
    'sparsify': {'fraction': None},
    'sparse-ternary': {'fraction': None},
    'sparse-binary': {'fraction': None},
    'rans': {'lanes': 4096},
}
CENTROIDS = {
    1: (0.7978845608,),
    2: (0.4527800346, 1.5104176085),
    3: (0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045),
    4: (0.1283950299, 0.3880482995, 0.6567591185, 0.9423404565, 1.2562311973, 1.6180463860, 2.0690172265, 2.7325895710),
}


ENTROPY_CODERS = ('rice', 'elias', 'rans', 'huffman')


class Refused(Exception):
  """The bytes are not a frame of this codec and spec."""


def require(condition, what):
  if not condition:
    raise Refused(what)


# -- random numbers ---------------------------------------------------------------------------------------------------


def word(key, index):
  """Generator X5."""
  k0, k1 = key
  k2 = (k0 + k1 * 0x9E3779B1 + 0x85EBCA77) & MASK
  x = index ^ k0
  x = ((x ^ x >> 16) * 0x7FEB352D + k1) & MASK
  x = ((x ^ x >> 15) * 0x846CA68B + k2) & MASK
  x = (x ^ x >> 16) * 0x7FEB352D & MASK
  x = (x ^ x >> 15) * 0x846CA68B & MASK
  return x ^ x >> 16


class Stream:
  """Words of one purpose of one segment, for the stage of its name that stands at place `occurrence`."""

  def __init__(self, seed, round_number, client, name, purpose, occurrence):
    self._text = name.encode('utf-8')
    self._head = b'TFFCPRNG1' + struct.pack('<QIIB', seed, round_number, client, purpose)
    self._first, self._keys = occurrence * 65536, {}

  def word(self, i):
    chunk = self._first + (i >> 24)
    if chunk not in self._keys:
      message = self._head + struct.pack('<IH', chunk, len(self._text)) + self._text
      self._keys[chunk] = struct.unpack('<II', hashlib.sha256(message).digest()[:8])
    return word(self._keys[chunk], i & 0xFFFFFF)

  def negative(self, i):
    return self.word(i // 32) >> (31 - i % 32) & 1


# -- bit strings ------------------------------------------------------------------------------------------------------


class Reader:
  """Bytes read from the front."""

  def __init__(self, data):
    self.data = data

  def take(self, count):
    require(0 <= count <= len(self.data), 'cut short')
    taken, self.data = self.data[:count], self.data[count:]
    return taken

  def number(self, width):
    return int.from_bytes(self.take(width), 'little')

  def counts(self, count):
    """`count` numbers of at most 31 bits in groups of seven."""
    numbers = []
    for _ in range(count):
      number, group, place = 0, 128, 0
      while group >= 128:
        group = self.number(1)
        number |= (group & 127) << 7 * place
        place += 1
        require(place <= 5 and number < 1 << 31, 'count too large')
      require(group or place == 1, 'count longer than it need be')
      numbers.append(number)
    return numbers

  def count(self):
    return self.counts(1)[0]

  def symbols(self, count, width):
    """A bit string of `count` symbols."""
    taken = int.from_bytes(self.take((count * width + 7) // 8), 'little')
    require(taken >> count * width == 0, 'unused bits are set')
    return [taken >> i * width & (1 << width) - 1 for i in range(count)]

  def unary(self, length, count):
    taken = self.take(length)
    numbers, run = [], 0
    for i in range(8 * len(taken)):
      if taken[i // 8] >> i % 8 & 1:
        numbers.append(run)
        run, last = 0, i
      else:
        run += 1
    require(len(numbers) == count, 'another count of unary numbers')
    require(len(taken) == (last // 8 + 1 if numbers else 0), 'bytes behind the last unary number')
    return numbers

  def rice(self, count, most):
    """Numbers of which the sum is at most `most`."""
    parameter, length = self.number(1), self.count()
    require(parameter <= 16, 'Rice parameter')
    low = self.symbols(count, parameter)
    require(length <= (count + (most >> parameter) + 7) // 8, 'unary part too long')
    numbers = [(quotient << parameter) + rest for quotient, rest in zip(self.unary(length, count), low)]
    require(sum(numbers) <= most, 'numbers too large')
    return numbers

  def positions(self, count, below):
    require(count <= below, 'more positions than there are')
    result, position = [], -1
    for gap in self.rice(count, below - count):
      position += gap + 1
      result.append(position)
    return result

  def gamma(self, count):
    lengths = self.unary(self.count(), count)
    numbers = [1 << length for length in lengths]
    total = sum(lengths)
    flags = iter(self.symbols(total, 1))
    for plane in range(max(lengths, default=0)):
      for i, length in enumerate(lengths):
        if length > plane:
          numbers[i] += next(flags) << plane
    return numbers


def bfloat16(bits):
  return struct.unpack('<f', struct.pack('<I', bits << 16))[0]


def single(value):
  """The nearest float32."""
  return struct.unpack('<f', struct.pack('<f', value))[0]


def power_below(values):
  """p of the largest magnitude, 0 where that is below 2^-64."""
  largest = max(map(abs, values))
  return 2.0**(math.frexp(largest)[1] - 1) if largest >= 2.0**-64 else 0.0


def converted(value, dtype):
  """A float32 in the dtype of its variable."""
  if dtype == 'float16':
    return struct.unpack('<e', struct.pack('<e', min(max(value, -65504), 65504)))[0]
  if dtype == 'bfloat16':
    bits = struct.unpack('<I', struct.pack('<f', value))[0]
    return bfloat16(bits + 0x7FFF + (bits >> 16 & 1) >> 16)
  return value


def real(value):
  """A scale, range or float32."""
  require(abs(value) <= 2.0**88, 'not a number, or too large')  # False for NaN.
  return value


def exactly(k, d, word):
  """The positions of the k largest of words 0 … d - 1 as signed integers, in ascending order."""
  return sorted(sorted(range(d), key=lambda i: (-((word(i) ^ 1 << 31) - (1 << 31)), i))[:k])


# -- stages -----------------------------------------------------------------------------------------------------------


class Stage:
  """One stage of a pipeline on one segment: sizes, side arrays and decoding."""

  def __init__(self, text, streams, size, alphabet, shapes):
    name, _, given = text.partition(':')
    if not any(hasattr(self, self._reader(name, kind)) for kind in ('_decode_', '_')):
      raise NotImplementedError(
          f'tests/wire/reference.py does not know the stage {name!r}: give its class Stage a method '
          f'{self._reader(name)} (or, where it is the last of a pipeline, {self._reader(name, "_")}), written from '
          'docs/wire-format.md and not from the product; add its parameters to DEFAULTS; and say in output, read_side '
          'and static_bytes what it makes of sizes and sends beside its values.')
    self.name, self.size, self.alphabet = name, size, alphabet
    self.p = dict(DEFAULTS.get(name, {}))
    for position, part in enumerate(given.split(',') if given else []):
      field, equals, value = part.partition('=')
      if not equals:
        field, value = list(self.p)[position], field
      words = {'key', 'rounding', 'range', 'scale', 'norm', 'per', 'mode', 'weights', 'order'}
      kind = str if field in words else {'fraction': Fraction, 'share': Fraction, 'threshold': float,
                                         'deviations': float,
                                        'error': float}.get(field, int)
      self.p[field] = kind(value)
    self.streams, self.shapes = streams, shapes
    whole = 'tensor' in (self.p.get('range'), self.p.get('per'))
    self.block = max(1, size if whole else min(self.p.get('block', 1), size))
    self.blocks = -(-size // self.block)

  def of_size(self, size):
    """The same coder for another number of symbols."""
    other = copy.copy(self)
    other.size = size
    return other

  @property
  def kept(self):
    fraction, d = self.p['fraction'], self.size
    if self.strided:
      return -(-d // int(1 / fraction))
    return min(d, max(1, round(fraction * d), self.p.get('least', 0))) if d else 0

  @property
  def strided(self):
    s = 1 / self.p['fraction']
    if self.name != 'subsample' or s.denominator > 1 or s > 65536:
      return False
    return -(-self.size // int(s)) >= min(self.size, self.p['least'])

  def output(self):
    """(size, alphabet) of what the next stage is given."""
    if self.name in ('subsample', 'topk'):
      return self.kept, None
    if self.name == 'countsketch':
      return self.p['rows'] * self._columns(), None
    if self.name == 'lowrank':
      return sum(long * rank for _, long, rank, _ in self._matrices()), None
    if self.name == 'autoencoder':
      return -(-self.size // (self.p['length'] or max(self.size, 1))) * self.p['latent'], None
    if self.name == 'pool':
      return sum(values for _, values in self._kernels()), None
    if self.name in ('uniform', 'eden'):
      return self.size, (0, 2**self.p['bits'] - 1)
    if self.name == 'sparsify':
      return self.size, (-2, 1)
    if self.name == 'cluster':
      return self.size, (0, self.p['centroids'] - 1)
    if self.name == 'bound':
      return self.size, (-self.p['limit'] - 1, self.p['limit'])
    if self.name == 'symmetric':
      return self.size, (-self.p['levels'], self.p['levels'])
    alphabet = {'ternary': (-1, 1), 'sparse-ternary': (-1, 1), 'sparse-binary': (0, 1), 'sign': (0, 1)}.get(self.name)
    return self.size, alphabet

  def read_side(self, reader):
    if self.name == 'topk':
      self.positions = reader.positions(self.kept, self.size)
    elif self.name == 'uniform':
      def limits():
        if self.p['range'] == 'tensor':
          return [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(self.blocks)]
        return [real(bfloat16(reader.number(2))) for _ in range(self.blocks)]
      self.low, self.high = limits(), limits()
      require(all(a <= b for a, b in zip(self.low, self.high)), 'range out of order')
    elif self.name == 'cluster':
      self.codebook = [real(struct.unpack('<f', reader.take(4))[0])
                       for _ in range(self.p['centroids'] if self.size else 0)]
    elif self.name == 'sparsify':
      self.step = [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(min(self.size, 1))]
      require(all(s >= 0 for s in self.step), 'negative threshold')
      self.outliers = [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(reader.count())]
    elif self.name == 'bound':
      self.step = [real(bfloat16(reader.number(2))) for _ in range(min(self.size, 1))]
      require(all(s >= 0 for s in self.step), 'negative step')
      self.outliers = [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(reader.count())]
    elif self.name in ('sparse-ternary', 'sparse-binary'):
      self.scale = [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(min(self.size, 1))]
      require(self.name == 'sparse-binary' or all(s >= 0 for s in self.scale), 'negative mean')
    elif self.name in ('symmetric', 'sign') and self.p.get('scale') != 'unit':
      if self.p['per'] == 'tensor':
        self.scale = [real(struct.unpack('<f', reader.take(4))[0]) for _ in range(self.blocks)]
      else:
        self.scale = [real(bfloat16(reader.number(2))) for _ in range(self.blocks)]
      require(all(s >= 0 for s in self.scale), 'negative scale')
    elif self.name in ('eden', 'ternary'):
      self.scale = [real(bfloat16(reader.number(2))) for _ in range(self.blocks)]
      require(all(s >= 0 for s in self.scale), 'negative scale')
    elif self.name == 'float16':
      self.exponent = reader.number(1) if self.size else 63
      require(63 <= self.exponent <= 214, 'exponent')

  def static_bytes(self):
    """Bytes of side arrays and of the last stage, or None where they depend on the values."""
    if self.name in ('topk', 'bound', 'sparsify', 'nonzero'):
      return None
    if self.name in ENTROPY_CODERS:
      return 0
    if self.name == 'pack':
      return (self.size * self._width() + 7) // 8
    one = 4 if self.p.get('per') == 'tensor' else 2
    return {'uniform': self.blocks * (8 if self.p.get('range') == 'tensor' else 4),
            'symmetric': self.blocks * one, 'sign': self.blocks * one if self.p.get('scale') == 'mean' else 0,
            'cluster': 4 * self.p.get('centroids', 0) * min(self.size, 1),
            'sparse-ternary': 4 * min(self.size, 1), 'sparse-binary': 4 * min(self.size, 1),
            'eden': 2 * self.blocks, 'ternary': 2 * self.blocks,
            'float32': 4 * self.size, 'float16': 2 * self.size + min(self.size, 1)}.get(self.name, 0)

  def _width(self):
    return max(1, (self.alphabet[1] - self.alphabet[0]).bit_length())

  def packed_bytes(self):
    return (self.size * self._width() + 7) // 8

  def read_stream(self, reader, number):
    """An entropy coder's symbols, of which the count was `number`."""
    if not number:
      symbols = self._pack(Reader(reader.take(self.packed_bytes())))
      require(all(self.alphabet[0] <= s <= self.alphabet[1] for s in symbols), 'outside the alphabet')
      return symbols
    head = max(1, -(-number.bit_length() // 7))
    require(head + number < 1 + self.packed_bytes(), 'the longer way')
    return self.read_bytes(Reader(reader.take(number)))

  def read_bytes(self, reader):
    """The last stage: all that is left -> values or symbols."""
    values = getattr(self, self._reader(self.name, '_'))(reader)
    require(not reader.data, 'bytes behind the end')
    if self.alphabet:
      require(all(self.alphabet[0] <= v <= self.alphabet[1] for v in values), 'outside the alphabet')
    return values

  def _float32(self, reader):
    return [real(v) for v in struct.unpack(f'<{self.size}f', reader.take(4 * self.size))]

  def _nonzero(self, reader):
    if len(reader.data) == 4 * self.size:
      return self._float32(reader)
    present = reader.symbols(self.size, 1)
    require((self.size + 7) // 8 + 4 * sum(present) < 4 * self.size, 'the longer way')
    return [real(struct.unpack('<f', reader.take(4))[0]) if flag else 0.0 for flag in present]

  def _float16(self, reader):
    values = [real(v) for v in struct.unpack(f'<{self.size}e', reader.take(2 * self.size))]
    return [v * 2.0**(self.exponent - 127 - 14) for v in values]

  def _pack(self, reader):
    return [s + self.alphabet[0] for s in reader.symbols(self.size, self._width())]

  def _elias(self, reader):
    centre = (self.alphabet[0] + self.alphabet[1] + 1) // 2
    return [centre + (n // 2 if n % 2 else -(n // 2)) for n in reader.gamma(self.size)]

  def _rice(self, reader):
    low, high = self.alphabet
    count = reader.count()
    positions = reader.positions(count, self.size)
    signs = reader.symbols(count, 1) if low < 0 else [0] * count
    magnitudes = reader.gamma(count) if max(abs(low), abs(high)) > 1 else [1] * count
    symbols = [0] * self.size
    for position, sign, magnitude in zip(positions, signs, magnitudes):
      symbols[position] = -magnitude if sign else magnitude
    return symbols

  def _huffman(self, reader):
    low, high = self.alphabet
    lengths, length = [], 0
    for number in reader.rice(high - low + 1, 32 * (high - low + 1)):
      length += number // 2 if number % 2 == 0 else -(number + 1) // 2
      require(0 <= length <= 16, 'word length')
      lengths.append(length)
    used = [n for n in lengths if n]
    require(sum(Fraction(1, 1 << n) for n in used) == 1 or used == [1], 'not a code')
    words, following = {}, 0
    for length in range(1, 17):
      for symbol, n in enumerate(lengths):
        if n == length:
          words[length, following >> 16 - length] = symbol
          following += 1 << 16 - length
    lanes = -(-self.size // 2048)
    taken = [reader.number(2) for _ in range(lanes - 1)]
    symbols, place, data = [None] * self.size, 0, reader.take(len(reader.data))
    for lane in range(lanes):
      start = place
      for i in range(lane, self.size, lanes):
        word, length = 0, 0
        while (length, word) not in words:
          require(length < 16 and place < 8 * len(data), 'cut short, or no word')
          word, length, place = 2 * word + (data[place // 8] >> place % 8 & 1), length + 1, place + 1
        symbols[i] = words[length, word] + low
      require(lane == lanes - 1 or place - start == taken[lane], 'another length of a lane')
    require(len(data) == -(-place // 8) and int.from_bytes(data, 'little') >> place == 0, 'unused bits are set')
    return symbols

  def _rans(self, reader):
    low, high = self.alphabet
    lanes = 1
    while 2 * lanes <= min(self.p['lanes'], max(self.size // 4096, 1)):
      lanes *= 2
    table = reader.rice(high - low + 1, 4096)
    require(sum(table) == 4096, 'frequencies')
    slots = [s for s, f in enumerate(table) for _ in range(f)]
    starts = [sum(table[:s]) for s in range(len(table))]
    states = [reader.number(4) for _ in range(lanes)]
    require(all(x >= 1 << 16 for x in states), 'state')
    symbols = []
    for i in range(-(-self.size // lanes) * lanes):
      x = states[i % lanes]
      slot = x % 4096
      s = slots[slot]
      x = table[s] * (x // 4096) + slot - starts[s]
      states[i % lanes] = x << 16 | reader.number(2) if x < 1 << 16 else x
      symbols.append(s + low)
    require(all(x == 1 << 16 for x in states), 'states at the end')
    return symbols[:self.size]

  def decode(self, values):
    """Undoes a stage that is not the last: what it gave -> what it was given."""
    return getattr(self, self._reader(self.name))(values)

  @staticmethod
  def _reader(name, kind='_decode_'):
    """The method for a stage."""
    return kind + name.replace('-', '_')

  def _decode_sigma_clip(self, values):
    return values

  def _kernels(self):
    return [(s[0] * s[1], s[2] * s[3]) if len(s) == 4 and math.prod(s) else (1, math.prod(s)) for s in self.shapes]

  def _decode_pool(self, values):
    x = []
    for places, count in self._kernels():
      x, values = x + values[:count] * places, values[count:]
    return x

  def _matrices(self):
    """(d1, d2, r, whether the last dimension is the longer side) of each variable."""
    result = []
    for shape in self.shapes:
      size = math.prod(shape)
      if len(shape) > 1 and size:
        sides = sorted((shape[-1], size // shape[-1]))
        rank = max(1, round(self.p['share'] * sides[0]))
        if rank < sides[0]:
          result.append((*sides, rank, shape[-1] > sides[0]))
          continue
      result.append((1, size, 1, False))
    return result

  def _decode_lowrank(self, values):
    stream, used, x = self.streams(self.p['key'], BASIS), 0, []
    for short, long, rank, across in self._matrices():
      b, values = values[:rank * long], values[rank * long:]
      if rank == short:
        x += b
        continue
      columns = exactly(rank, short, lambda i, used=used: stream.word(used + i))
      blocks = []
      for order in (256, 64, 16, 4, 1):
        blocks += [order] * ((short - sum(blocks)) // order)
      first = [sum(blocks[:n]) for n, order in enumerate(blocks) for _ in range(order)]
      order = [order for order in blocks for _ in range(order)]
      matrix = []
      for i in range(short):
        sign = -1 if stream.negative(32 * (used + short) + i) else 1
        root = math.isqrt(order[i])

        def entry(c, i=i, sign=sign, root=root, first=first):
          (a, b), (j, k) = divmod(i - first[i], root), divmod(c - first[i], root)
          return sign * (-1)**(bin(a & k).count('1') + bin(b & j).count('1')) / root if first[i] == first[c] else 0
        v = [entry(c) for c in columns]
        matrix.append([sum(v[t] * short / rank * b[t * long + j] for t in range(rank) if v[t]) for j in range(long)])
      used += short + -(-short // 32)
      x += [v for row in matrix for v in row] if across else [row[j] for j in range(long) for row in matrix]
    return x

  def _decode_autoencoder(self, values):
    """With the cosines for weights: the decoder has one layer, and neither biases nor a normalisation."""
    length, latent, x = self.p['length'] or self.size, self.p['latent'], []
    rows = [[math.cos(math.pi / length * (i + 0.5) * t) * math.sqrt((2 if t else 1) / length) for t in range(latent)]
            for i in range(length)]
    scale = [single(single(max(map(abs, row))) / 127) for row in rows]
    weights = [[round(w / s) for w in row] for row, s in zip(rows, scale)]
    bits = 16 - (min(latent, 1024) - 1).bit_length()
    for start in range(0, len(values), latent):
      piece = values[start:start + latent]
      p = power_below(piece)
      scaled = [v * 2.0**bits / p if p else 0.0 for v in piece]
      a = [math.floor(single(r + 0.5)) for r in scaled]
      b = [math.floor(single((r - n) * 2.0**bits + 0.5)) for r, n in zip(scaled, a)]
      for row, s in zip(weights, scale):
        first, second = (single(sum(w * n for w, n in zip(row, numbers))) for numbers in (a, b))
        x.append(single(single(single(first * p * 2.0**-bits) + single(second * p * 4.0**-bits)) * s))
    if self.p['order'] == 'rows':
      return x[:self.size]
    y = []
    for shape in self.shapes:
      size = math.prod(shape)
      part, x = x[:size], x[size:]
      m = size // shape[-1] if size and len(shape) > 1 else 1
      y += [part[j * m + i] for i in range(m) for j in range(size // m)]
    return y

  def _columns(self):
    return max(1, round(self.p['fraction'] * self.size / self.p['rows'])) if self.size else 0

  def _decode_countsketch(self, values):
    d, c, rows = self.size, self._columns(), self.p['rows']
    stream = self.streams('round', COUNT_SKETCH)
    chunks = -(-d // c) if d else 0
    x = []
    for i in range(d):
      estimates = []
      for j in range(rows):
        column = (i + (stream.word(j * chunks + i // c) >> 1)) % c
        negative = stream.negative(32 * rows * chunks + j * chunks * c + i)
        estimates.append(-values[j * c + column] if negative else values[j * c + column])
      x.append(sorted(estimates)[rows // 2])
    return x

  def _decode_cluster(self, symbols):
    return [self.codebook[s] for s in symbols]

  def _decode_bound(self, symbols):
    lowest = self.output()[1][0]
    require(symbols.count(lowest) == len(self.outliers), 'another count of outliers')
    rest = iter(self.outliers)
    return [next(rest) if s == lowest else s * self.step[0] for s in symbols]

  _decode_sparsify = _decode_bound

  def _decode_symmetric(self, symbols):
    width = [single(scale * single(1 / self.p['levels'])) for scale in self.scale]
    return [single(width[i // self.block] * s) for i, s in enumerate(symbols)]

  def _decode_sign(self, symbols):
    scale = [1.0] * self.blocks if self.p['scale'] == 'unit' else self.scale
    return [scale[i // self.block] * (2 * s - 1) for i, s in enumerate(symbols)]

  def _decode_sparse_ternary(self, symbols):
    return [self.scale[0] * s for s in symbols]

  _decode_sparse_binary = _decode_sparse_ternary

  def _decode_uniform(self, symbols):
    width = [single(single(high - low) * single(1 / (2**self.p['bits'] - 1))) for low, high in zip(self.low, self.high)]
    return [single(self.low[i // self.block] + single(s * width[i // self.block])) for i, s in enumerate(symbols)]

  def _decode_eden(self, symbols):
    half = 2**(self.p['bits'] - 1)
    table = [round(c * 1024) / 1024 for c in CENTROIDS[self.p['bits']]]
    return [single(self.scale[i // self.block] * (table[s - half] if s >= half else -table[half - 1 - s]))
            for i, s in enumerate(symbols)]

  def _decode_ternary(self, symbols):
    return [self.scale[i // self.block] * s for i, s in enumerate(symbols)]

  def _decode_topk(self, values):
    x = [0.0] * self.size
    for position, value in zip(self.positions, values):
      x[position] = value
    return x

  def _decode_subsample(self, values):
    fraction, d, k = self.p['fraction'], self.size, self.kept
    stream = self.streams(self.p['key'], SUBSET)
    stride = 1 / fraction
    x = [0.0] * d
    if self.strided:
      positions = [j * int(stride) + (stream.word(j) * int(stride) >> 32) for j in range(k)]
      factor = int(stride)
    else:
      positions = exactly(k, d, stream.word)
      factor = d / max(k, 1)
    for position, value in zip(positions, values):
      if position < d:
        x[position] = single(value * single(factor))
    return x

  def _decode_hadamard(self, values):
    d = self.size
    if not d:
      return values
    block = 1
    while 4 * block <= min(self.p['block'], d):
      block *= 4
    order = math.isqrt(block)
    rows = d // block
    steps = []
    for rotation in range(self.p['rotations']):
      steps.append([[(j * rows + i if rotation else i * block + j) for j in range(block)] for i in range(rows)])
      if d % block:
        steps.append([list(range(d - block, d))])
    stream = self.streams(self.p['key'], ROTATION)
    drawn = iter(range(sum(len(step) * block for step in steps)))
    signs = [[[stream.negative(next(drawn)) for _ in row] for row in step] for step in steps]
    x = list(values)
    for step, flips in reversed(list(zip(steps, signs))):
      for row, flip in zip(step, flips):
        y = transform([x[i] / order for i in row], order)
        for i, value, negative in zip(row, y, flip):
          x[i] = -value if negative else value
    return x


def transform(x, order):
  """y[j r + k] = sum over a, b of (-1)^(popcount(a & k) + popcount(b & j)) x[a r + b]."""
  def walsh(line):
    h = 1
    while h < len(line):
      for i in range(0, len(line), 2 * h):
        for j in range(i, i + h):
          line[j], line[j + h] = line[j] + line[j + h], line[j] - line[j + h]
      h *= 2
    return line
  by_b = [walsh(x[a * order:(a + 1) * order]) for a in range(order)]  # [a][j]
  return [value for j in range(order) for value in walsh([by_b[a][j] for a in range(order)])]


# -- codecs and frames ------------------------------------------------------------------------------------------------


def rules_of(codec):
  """Canonical codec text -> [(conditions, joined, stage texts)]."""
  result = []
  for rule in codec.split('; '):
    when, arrow, pipeline = rule.partition(' => ')
    when, pipeline = (when, pipeline) if arrow else ('*', rule)
    stages = pipeline.split(' | ')
    joined = stages[0] == 'concat'
    result.append((when, joined, stages[joined:]))
  return result


def matches(when, name, size):
  for condition in when.split(' & '):
    if condition.startswith('size') and condition[4] in '<>':
      limit = int(condition.lstrip('size<>='))
      holds = {'<': size < limit, '<=': size <= limit, '>': size > limit, '>=': size >= limit}
      if not holds[condition[4:-len(str(limit))]]:
        return False
    elif not fits(condition, name):
      return False
  return True


def fits(pattern, name):
  """Whether a pattern matches a whole name."""
  if not pattern:
    return not name
  if pattern[0] == '*':
    return any(fits(pattern[1:], name[i:]) for i in range(len(name) + 1))
  taken, characters = 1, None
  if pattern[0] == '[':
    start = 2 if pattern[1:2] == '!' else 1
    end = pattern.find(']', start + 1)
    if end > 0:
      taken, characters, inside = end + 1, [], pattern[start:end]
      while inside:
        if inside[1:2] == '-' and len(inside) > 2:
          characters += map(chr, range(ord(inside[0]), ord(inside[2]) + 1))
          inside = inside[3:]
        else:
          characters, inside = characters + [inside[0]], inside[1:]
  if not name or not fits(pattern[taken:], name[1:]):
    return False
  if characters is not None:
    return (name[0] in characters) != (pattern[1] == '!')
  return pattern[0] in ('?', name[0])


WHOLE = {'bool': '?', 'int8': 'b', 'uint8': 'B', 'int16': 'h', 'uint16': 'H', 'int32': 'i', 'uint32': 'I', 'int64': 'q',
         'uint64': 'Q'}


def read_frame(codec, spec, frame, seed):
  """Decodes a frame.

  Args:
    codec: canonical text.
    spec: list of (name, dtype, shape).
    frame: bytes.
    seed: session seed.

  Returns:
    {name: flat list of numbers}
  """
  require(len(frame) >= 20 and frame[:4] == b'TFC\2', 'not a frame of version 2')
  require(struct.unpack('<I', frame[-4:])[0] == zlib.crc32(frame[:-4]), 'checksum')
  table = ''.join(f'\n{name}\t{dtype}\t{",".join(map(str, shape))}' for name, dtype, shape in spec)
  require(frame[4:8] == hashlib.sha256((codec + table).encode('utf-8')).digest()[:4], 'fingerprint')
  round_number, client = struct.unpack('<II', frame[8:16])
  reader = Reader(frame[16:-4])

  segments = []  # [name, variables, size, stage texts or dtype]
  joined_at = {}
  shapes = {name: shape for name, _, shape in spec}
  for name, dtype, shape in spec:
    size = math.prod(shape)
    if dtype in WHOLE:
      segments.append([name, [name], size, dtype])
      continue
    when, joined, stages = next(rule for rule in rules_of(codec) if matches(rule[0], name, size))
    if joined and when in joined_at:
      joined_at[when][1].append(name)
      joined_at[when][2] += size
    else:
      segments.append([when if joined else name, [name], size, stages])
      if joined:
        joined_at[when] = segments[-1]

  prepared = []
  for name, names, size, stages in segments:
    if isinstance(stages, str):
      prepared.append((names, size, stages, size * struct.calcsize('<' + WHOLE[stages])))
      continue
    chain, given, alphabet, seen = [], size, None, {}
    for text in stages:
      kind = text.partition(':')[0]
      occurrence = seen[kind] = seen.get(kind, -1) + 1

      def streams(scope, purpose, name=name, occurrence=occurrence):
        return Stream(seed, round_number, client if scope == 'client' else SHARED, name, purpose, occurrence)
      chain.append(Stage(text, streams, given, alphabet, [shapes[name] for name in names]))
      given, alphabet = chain[-1].output()
    sizes = [stage.static_bytes() for stage in chain]
    prepared.append((names, size, chain, None if None in sizes else sum(sizes)))

  given = iter(reader.counts(sum(static is None for *_, static in prepared)))
  lengths = [next(given) if static is None else static for *_, static in prepared]
  sizes, dtypes = {name: math.prod(shape) for name, _, shape in spec}, {name: dtype for name, dtype, _ in spec}
  bodies = [Reader(reader.take(length)) for length in lengths]
  for (_, _, chain, _), part in zip(prepared, bodies):
    for stage in chain if isinstance(chain, list) else ():
      stage.read_side(part)
  streams = read_streams(reader, [chain[-1] for _, _, chain, _ in prepared if isinstance(chain, list)])
  require(not reader.data, 'bytes behind the end')

  decoded = {}
  for (names, _, chain, _), part in zip(prepared, bodies):
    if isinstance(chain, str):
      require(chain != 'bool' or all(byte <= 1 for byte in part.data), 'neither 0 nor 1')
      values = list(struct.unpack(f'<{len(part.data) // struct.calcsize(WHOLE[chain])}{WHOLE[chain]}', part.data))
    else:
      values = streams[chain[-1]] if chain[-1] in streams else chain[-1].read_bytes(part)
      require(not part.data, 'bytes behind a segment')
      for stage in reversed(chain[:-1]):
        values = stage.decode(values)
    for name in names:
      decoded[name] = [converted(value, dtypes[name]) for value in values[:sizes[name]]]
      values = values[sizes[name]:]
  return decoded


def read_streams(reader, coders):
  """{coder: symbols} of what entropy coders wrote."""
  found = {coder: [] for coder in coders if coder.name in ENTROPY_CODERS}
  groups = {}
  for coder in found:
    if coder.size:
      groups.setdefault((coder.name, tuple(coder.p.items()), coder.alphabet), []).append(coder)
  for members in groups.values():
    mark = reader.number(1) if len(members) > 1 else 0
    require(mark <= 1, 'neither together nor apart')
    if mark:
      whole = members[0].of_size(sum(coder.size for coder in members))
      symbols = whole.read_stream(reader, reader.count())
      for coder in members:
        found[coder], symbols = symbols[:coder.size], symbols[coder.size:]
    else:
      for coder, number in zip(members, reader.counts(len(members))):
        found[coder] = coder.read_stream(reader, number)
  return found
