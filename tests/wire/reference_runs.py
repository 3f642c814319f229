"""A reader of a run's messages, written from docs/wire-format.md alone: nothing of the product is imported.

Plain Python integers and floats, one value at a time, as in `reference.py`, whose frames and rotations it uses.
"""

import copy as copy_lib
import math
import struct
import zlib

from tests.wire import reference
from tests.wire.reference import require
from tests.wire.reference import single

ROTATION, MASK, QUANTIZER, WEIGHTS = 1, 2, 4, 12
LEVELS = {1: (1,), 2: (3, 10), 3: (1, 3, 5, 8), 4: (1, 2, 4, 6, 8, 10, 12, 15)}


class Run:
  """What both sides know.

  Args:
    variables: list of (name, shape), all float32.
    seed, fingerprint, momentum: of the run.
    rule: settings of the rule for k.
    first, key_frames: canonical texts of the codecs; of key frames only 'uniform | pack'.
    sums: 'private' or 'integers'.
  """

  def __init__(self, variables, seed, fingerprint, momentum, rule, first, key_frames, sums='private'):
    self.spec = [(name, 'float32', tuple(shape)) for name, shape in variables]
    self.sizes = [math.prod(shape) for _, _, shape in self.spec]
    self.seed, self.fingerprint, self.momentum, self.rule = seed, fingerprint, momentum, rule
    self.codecs, self.integers = {1: key_frames, 2: first}, sums == 'integers'
    self.scale_bytes = 2 if self.integers else 0
    self.size = sum(self.sizes)
    block = 1
    while 4 * block <= min(1024, self.size):
      block *= 4
    self.padded = -(-self.size // block) * block
    self.unit = min(block, 256)
    self.stride = max(1, 10946 * self.padded // 17711)
    while math.gcd(self.stride, self.padded) > 1:
      self.stride += 1

  def stream(self, number, client, purpose, name='', occurrence=0):
    return reference.Stream(self.seed, number, client, name, purpose, occurrence)

  # -- the way to the present

  def follow(self, message, held):
    """(what to keep, the present); held is None for a client that has nothing."""
    reader = reference.Reader(message)
    flags, digest = reader.number(1), reader.take(4)
    require(flags < 4, 'unknown flags')
    if flags & 1:
      held = self.base(reader.take(reader.count()))
    require(held is not None, 'nothing to change')
    placement = reader.take(reader.count()) if flags & 2 else b''
    while reader.data:
      held = self.change(held, reader.take(reader.count()))
    present = self.placed(held, placement) if placement else held
    require(self.digest(present) == digest, 'another digest')
    return held, present

  def content(self, copy):
    data = struct.pack('<IB5d', copy['round'], copy['bits'], *(copy[name] for name in REMEMBERED))
    if self.integers:
      data += struct.pack('<I', _bits(copy['scale']))[2:]
    for name in ('model', 'velocity') if self.momentum else ('model',):
      data += struct.pack(f'<{self.size}f', *copy[name])
    return data

  def digest(self, copy):
    return struct.pack('<I', zlib.crc32(self.fingerprint + self.content(copy)))

  def facts(self, data):
    number, bits, *remembered = struct.unpack('<IB5d', data[:45])
    require(number < 1 << 31 and all(0 <= x <= 2.0**256 for x in remembered), 'facts')
    return {'round': number, **dict(zip(REMEMBERED, remembered)), **self.following(bits, reference.Reader(data[45:]))}

  def following(self, bits, reader):
    """What is said of the clients' next messages."""
    if not self.integers:
      require(1 <= bits <= 4, 'bits of the next messages')
      return {'bits': bits}
    scale = reference.bfloat16(reader.number(2))
    require(2 <= bits <= 8 and 2.0**-40 <= scale <= 2.0**60, 'next messages')
    return {'bits': bits, 'scale': scale}

  def stored(self, data):
    """A client's copy as it is stored."""
    require(data[:4] == b'TFK\1' and data[4:8] == self.fingerprint, 'no copy of this run')
    require(struct.unpack('<I', data[-4:])[0] == zlib.crc32(data[:-4]), 'checksum')
    start = 53 + self.scale_bytes
    copy, values = self.facts(data[8:start]), list(struct.unpack(f'<{(len(data) - start - 4) // 4}f', data[start:-4]))
    copy['model'], rest = values[:self.size], values[self.size:]
    require(len(rest) == (self.size if self.momentum else 0), 'length')
    return {**copy, 'velocity': rest} if self.momentum else copy

  # -- coordinates

  def places(self, number, kept):
    first = self.stream(number, reference.SHARED, MASK).word(0) >> 1
    return [(first + i * self.stride) % self.padded for i in range(kept)]

  def lift(self, number, values):
    """In double precision, where sums of whole numbers are exact."""
    x = [0.0] * self.padded
    for place, value in zip(self.places(number, len(values)), values):
      x[place] = float(value)
    streams = lambda scope, purpose: self.stream(number, reference.SHARED, purpose)
    return reference.Stage('hadamard:rotations=2', streams, self.padded, None, [(self.padded,)]).decode(x)[:self.size]

  # -- how many

  def kept(self, copy, number):
    r, unit, padded = self.rule, self.unit, self.padded
    units = lambda x: max(1, math.floor(x) // unit)
    low = min(-(-r['floor'] // unit), units(padded))
    start, high = max(low, units(r['first'] * padded)), max(low, units(r['most'] * padded))
    if r['noise'] is None and r.get('signal') is None or copy['signal'] == 0:
      return unit * start
    if r['noise'] is None:
      each = copy['last'] / max(number - copy['since'], 1.0)
      ratio = (number + 10.0) * each / max(copy['energy'], 1e-300)
      n = root(single(min(ratio, 2.0**50))) * (r['signal'] * padded / unit)
      return unit * int(max(min(n, high), low))
    left = max(r['rounds'] - number, 1)
    budget = copy['energy'] * r['noise'] - copy['spent']
    wanted = copy['signal'] * left * (padded / unit)
    n = high if budget * high <= wanted else wanted / max(budget, 1e-300)
    return unit * int(max(min(n, high), low))

  def sent(self, copy, levels, scale, number):
    """What the rule remembers after a change."""
    energy = sum(q * q for q in levels) * (scale * scale) * (1 - self.momentum)**-2
    share = len(levels) * (1 / self.padded)
    last = signal = energy * share
    if copy['signal'] != 0:
      signal = copy['signal'] * 0.8 + energy * share * (1 - 0.8)
    return {'signal': signal, 'spent': copy['spent'] + energy * (1 - share), 'last': last, 'since': float(number)}

  # -- records

  def levels(self, reader, bits, kept):
    """(levels, scale): all that is left."""
    require(1 <= bits <= 4, 'bits')
    scale = reference.real(reference.bfloat16(reader.number(2)))
    require(not math.copysign(1, scale) < 0, 'negative scale')
    return self.symbols(reader, bits, kept), scale

  def symbols(self, reader, bits, kept):
    """Levels alone: all that is left."""
    require(len(reader.data) == -(-kept * bits // 8), 'length')
    half, table = 1 << bits - 1, LEVELS[bits]
    return [table[s - half] if s >= half else -table[half - 1 - s] for s in reader.symbols(kept, bits)]

  def upload(self, number, client, kept, message):
    """The coordinates in a client's message; of integer sums, whole numbers and the energy."""
    require(len(message) >= 7, 'cut short')
    body = message[:-4]
    known = self.fingerprint + struct.pack('<II', number, client)
    require(struct.unpack('<I', message[-4:])[0] == zlib.crc32(known + body), 'checksum')
    if self.integers:
      reader, bits = reference.Reader(body[1:]), body[0]
      require(2 <= bits <= 8, 'bits')
      energy = reader.number(2)
      return [*self.numbers(reader, bits, kept), energy]
    levels, scale = self.levels(reference.Reader(body[1:]), body[0], kept)
    return [single(x * scale) for x in self.turned_back(number, client, levels)]

  def turned_back(self, number, client, levels):
    """Levels before a client's own rotation."""
    signs, order, found = self.stream(number, client, ROTATION, occurrence=1), math.isqrt(self.unit), []
    for start in range(0, len(levels), self.unit):
      row = reference.transform([q / order for q in levels[start:start + self.unit]], order)
      found += [-x if signs.negative(start + i) else x for i, x in enumerate(row)]
    return found

  def numbers(self, reader, bits, kept):
    """Whole numbers: all that is left."""
    most = (1 << bits - 1) - 1
    require(len(reader.data) == -(-kept * bits // 8), 'length')
    numbers = [symbol - most for symbol in reader.symbols(kept, bits)]
    require(max(numbers) <= most, 'a number')
    return numbers

  def change(self, copy, record):
    """The copy after a change."""
    copy = copy_lib.copy(copy)
    number = copy['round']
    copy['round'] += 1
    if not record:
      return copy
    reader = reference.Reader(record)
    flags, scale = reader.number(1), reader.take(2)
    copy.update(self.following(flags >> 3 & 15, reader))
    levels, scale = self.levels(reference.Reader(scale + reader.data), flags & 7, self.kept(copy, number))
    change = [single(x * scale) for x in self.lift(number, levels)]
    if self.momentum:
      change = [single(single(v * single(self.momentum)) + c) for v, c in zip(copy['velocity'], change)]
      copy['velocity'] = change
    copy['model'] = [single(w - c) for w, c in zip(copy['model'], change)]
    copy.update(self.sent(copy, levels, scale, number))
    if flags & 128:
      for name in ('model', 'velocity') if self.momentum else ('model',):
        copy[name] = self.coded(copy[name], copy['round'])
    return copy

  def coded(self, vector, number):
    """What a vector becomes that `uniform | pack` encodes and decodes."""
    require(self.codecs[1] == 'uniform | pack', 'another codec')
    result = []
    for (name, _, _), size in zip(self.spec, self.sizes):
      x, vector = vector[:size], vector[size:]
      block, dithers = min(1024, size), self.stream(number, reference.SHARED, QUANTIZER, name)
      for start in range(0, size, max(block, 1)):
        values = x[start:start + block]
        low, high = (limit(value) if abs(value) >= 2.0**-80 else 0.0
                     for limit, value in ((down, min(values)), (up, max(values))))
        width = single(single(high - low) * single(1 / 255))
        for i, value in enumerate(values, start):
          half = dithers.word(i // 2) >> 16 * (i % 2) & 0xFFFF
          step = single(single(value - low) / (width or 1.0))
          symbol = min(max(math.floor(single(step + (half + 0.5) / 65536)), 0), 255)
          result.append(single(low + single(symbol * width)))
    return result

  def base(self, record):
    """The copy that a base gives."""
    start = 46 + self.scale_bytes
    require(len(record) > start, 'cut short')
    copy, reader = self.facts(record[1:start]), reference.Reader(record[start:])
    if record[0] == 0:
      copy['model'] = self.start(reader)
    else:
      require(record[0] in self.codecs, 'unknown kind')
      copy['model'] = self.frame(reader, self.codecs[record[0]])
    if self.momentum:
      copy['velocity'] = self.frame(reader, self.codecs[1]) if record[0] == 1 else [0.0] * self.size
    require(not reader.data, 'bytes behind the end')
    return copy

  def frame(self, reader, codec):
    decoded = reference.read_frame(codec, self.spec, reader.take(reader.count()), self.seed)
    return [value for name, _, _ in self.spec for value in decoded[name]]

  def start(self, reader):
    """First weights that are drawn."""
    require(reader.number(1) == 1, 'version')
    seed, model = reader.number(8), []
    number = lambda: struct.unpack('<f', reader.take(4))[0]
    for place, size in enumerate(self.sizes):
      pieces = reader.number(1)
      require(pieces <= 16, 'pieces')
      if not pieces:
        limit = number()
        require(0 <= limit <= 2.0**64, 'limit')
        words = reference.Stream(seed, 0, reference.SHARED, str(place), WEIGHTS, 0)
        for i in range(size):
          half = words.word(i // 2) >> 16 * (i % 2) & 0xFFFF
          model.append(single(single((half + 0.5) / 65536 * single(2 * limit)) - limit))
      else:
        values = [(reader.count(), number()) for _ in range(pieces)]
        require(sum(count for count, _ in values) == size and all(abs(v) <= 2.0**64 for _, v in values), 'pieces')
        model += [value for count, value in values for _ in range(count)]
    return model

  def placed(self, held, record):
    """The present by a placement on top of what is held."""
    reader = reference.Reader(record)
    flags, scale = reader.number(1), reference.bfloat16(reader.number(2))
    following, rounds = self.following(flags >> 4, reader), reader.count()
    bits, kept = flags & 15, self.kept(held, held['round'])
    require(1 <= bits <= 8 and rounds >= 1 and 0 <= reference.real(scale), 'head')
    if bits < 4:
      numbers = self.symbols(reader, bits, kept)
      require(sum(q * q for q in numbers) <= 1 << 20, 'levels')
      numbers = self.turned_back(held['round'] + rounds, reference.SHARED, numbers)
    else:
      numbers = self.numbers(reader, bits, kept)
      require(sum(q * q for q in numbers) <= 1 << 28, 'numbers')
    away = [single(x * scale) for x in self.lift(held['round'], numbers)]
    return {**held, 'model': [single(w - c) for w, c in zip(held['model'], away)], 'round': held['round'] + rounds,
            **following}



REMEMBERED = 'energy', 'signal', 'spent', 'last', 'since'


def root(x):
  """The square root of a single as the page has it: Newton's method, in singles."""
  x = max(x, single(2.0**-60))
  y = struct.unpack('<f', struct.pack('<I', (_bits(x) >> 1) + 0x1FC00000))[0]
  for _ in range(4):
    y = single(single(y + single(x / y)) * 0.5)
  return y


def _bits(value):
  return struct.unpack('<I', struct.pack('<f', value))[0]


def down(value):
  return reference.bfloat16((_bits(value) + (0xFFFF if value < 0 else 0)) >> 16)


def up(value):
  return reference.bfloat16((_bits(value) + (0xFFFF if value > 0 else 0)) >> 16)
