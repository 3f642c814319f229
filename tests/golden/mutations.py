"""Deliberate errors in the product, at least one for each rule of the format, and which golden frame finds each.

    python -m tests.golden.mutations            a line for each error: the frame that finds it
    python -m tests.golden.mutations --heavy    and the first frame of `heavy` values that does (takes some minutes)

An error is a replacement in the text of one module, of which the changed code is put in place of the product's. Whoever
changes such a line changes the error with it; whoever adds a rule to the format adds the errors that are easily made in
it.
"""

import contextlib
import dataclasses
import functools
import importlib
import pathlib
import sys
import types

import numpy as np

from tests.golden import regenerate
from tff_compress.codec import codec as codec_lib
from tff_compress.codec import grammar
from tff_compress.codec import pipeline as pipeline_lib


@dataclasses.dataclass(frozen=True)
class Mutation:
  """One error.

  Attributes:
    rule: what the error is.
    module: the module below `tff_compress` that it is in.
    old, new: a text that stands there once, and what is put in its place.
    frame: the golden frame to look at first, where the rule does not say it.
  """
  rule: str
  module: str
  old: str
  new: str
  frame: str = ''

  def __str__(self):
    return self.rule


_FLOATS, _RANDOM, _SUMS = 'codec.floats', 'codec.random', 'codec.sums'

MUTATIONS = [Mutation(*entry) for entry in (
    # -- frames, payloads and keys
    ('fingerprint: names without dtypes', 'codec.codec', '\\t{t.dtype}\\t', '\\t\\t'),
    ('fingerprint: sizes joined by spaces', 'codec.codec', '{",".join(map(str, t.shape))}',
     '{" ".join(map(str, t.shape))}'),
    ('fingerprint: defaults are written out', 'codec.stage', 'if value == field.default:', 'if False:'),
    ('fingerprint: floats without a point', 'codec.stage', 'return repr(value)', "return f'{value:g}'"),
    ('fingerprint: positional parameters are named', 'codec.stage',
     'text if position == 0 and _positional(self) else', ''),
    ('patterns: ? is any text', 'codec.codec', "    return '.'\n  if len", "    return '.*'\n  if len"),
    ('patterns: [!a] is one of ! and a', 'codec.codec', "negative = token[1] == '!'", 'negative = False'),
    ('patterns: case does not matter', 'codec.codec', 're.compile(text, re.DOTALL)',
     're.compile(text, re.DOTALL | re.I)'),
    ('patterns: a part of the name suffices', 'codec.codec', '.fullmatch(tensor.name)', '.search(tensor.name)'),
    ('rules: the last that matches', 'codec.codec', 'for rule in codec.rules if',
     'for rule in reversed(codec.rules) if'),
    ('rules: < takes equal sizes', 'codec.codec', "'<': tensor.size < self.size", "'<': tensor.size <= self.size"),
    ('segments: joined ones are named by their first variable', 'codec.codec', 'Segment(name, tuple(positions)',
     'Segment(tensors[0].name, tuple(positions)'),
    ('payload: lengths behind the segments', 'codec.codec', 'xp.concat(lengths + bodies + symbols)',
     'xp.concat(bodies + lengths + symbols)'),
    ('payload: symbols before the segments', 'codec.codec', 'xp.concat(lengths + bodies + symbols)',
     'xp.concat(lengths + symbols + bodies)'),
    ('counts: the mark is on the last byte', 'codec.counts',
     'place + xp.constant(1, np.int32) < lengths, np.int32) *',
     'xp.equal(place + xp.constant(1, np.int32), lengths), np.int32) *'),
    ('counts: groups of seven bits from the highest', 'codec.counts', 'xp.constant(_SHIFTS, np.int32)',
     'xp.constant(np.where((_SHIFTS < 14) & (np.max(numbers, initial=0) > 127), '
     '7 * (np.max(size(xp, numbers), initial=1) - 1) - _SHIFTS, _SHIFTS), np.int32)'),
    ('streams: apart where both cost the same', 'codec.streams', '<= xp.total(xp.concat(costs))',
     '< xp.total(xp.concat(costs))', 'larger.two-rotations'),
    ('streams: never together', 'codec.streams', '<= xp.total(xp.concat(costs))', '< 0 * xp.total(xp.concat(costs))'),
    ('streams: coded where packed is as short', 'codec.streams',
     'xp.vector(xp.size(stream))\n  return xp.cond(_with_count(xp, number)[0] <',
     'xp.vector(xp.size(stream))\n  return xp.cond(_with_count(xp, number)[0] <='),
    ('streams: the cost without the byte of a packed one', 'codec.streams', 'xp.vector(packed_size(signal) + 1))',
     'xp.vector(packed_size(signal)))', 'larger.two-rotations'),
    ('float16 variables: infinities beyond 65504', 'codec.codec', "if tensor.dtype == 'float16':", 'if False:'),
    ('keys: the round is left out', _RANDOM, 'seed, round, client, purpose, chunk, len',
     'seed, 0, client, purpose, chunk, len'),
    ('keys: the name in lower case', _RANDOM, "name.encode('utf-8')", "name.lower().encode('utf-8')"),
    ('keys: the name in ASCII', _RANDOM, "name.encode('utf-8')", "name.encode('ascii', 'replace')"),
    ('keys: the length of the name in characters', _RANDOM, 'chunk, len(text)) +', 'chunk, len(name)) +'),
    ('keys: the digest is read as big endian', _RANDOM, "digest()[:8], '<i4')", "digest()[:8], '>i4')"),
    ('keys: clients share their dithers', 'codec.keys', "return self.of('client', purpose)",
     "return self.of('round', purpose)"),
    ("keys: a second stage goes on with the first one's", 'codec.keys', 'CHUNKS_PER_OCCURRENCE = 1 << 16',
     'CHUNKS_PER_OCCURRENCE = 0'),
    ('keys: words behind the 2^24-th are of the same key', _RANDOM, 'self._key(chunk), chunk',
     'self._key(0 * chunk), chunk', 'special.long'),
    # -- random numbers
    ('words: one shift is by 16 in place of 15', _RANDOM, 'shift_right(x, 15)) * multiply_b + k2',
     'shift_right(x, 16)) * multiply_b + k2'),
    ('words: k1 is left out of k2', _RANDOM, 'k2 = k0 + k1 * xp', 'k2 = k0 + k0 * xp'),
    ('halves: the high one first', 'codec.ops', "'<i4').view('<u2').astype(np.float32)",
     "'<i4').view('<u2').reshape(-1, 2)[:, ::-1].reshape(-1).astype(np.float32)"),
    ('dithers: from 0', _RANDOM, 'np.float32(0.5)) * np', 'np.float32(0)) * np', 'irregular.uniform.bits-2'),
    ('signs: least significant bit first', 'codec.ops', "words.astype('>i4')", "words.astype('<i4')"),
    ('exactly k: words are compared without sign', 'codec.transforms.subsample',
     'xp.largest(stream.words(size), kept)', 'xp.largest(stream.words(size).view(np.uint32), kept)'),
    ('exactly k: the smallest words', 'codec.transforms.subsample', 'xp.largest(stream.words(size), kept)',
     'xp.largest(-stream.words(size), kept)'),
    ('one of every s: rounded to nearest', 'codec.transforms.subsample',
     'high * factor + xp.shift_right(low * factor, 16), 16)',
     'high * factor + xp.shift_right(low * factor, 16) + xp.constant(1 << 15, np.int32), 16) % factor'),
    # -- numbers in blocks
    ('bfloat16: nearest, ties to even', _FLOATS, 'xp.bits_of(x) + xp.constant(0x8000, np.int32), 16)',
     'xp.bits_of(x) + xp.constant(0x7FFF, np.int32) + xp.shift_right(xp.bits_of(x), 16) % '
     'xp.constant(2, np.int32), 16)', 'irregular.elias.ternary-threshold-1.728'),
    ('bfloat16: nearest is cut off', _FLOATS, 'xp.constant(0x8000, np.int32), 16)', 'xp.constant(0, np.int32), 16)'),
    ('bfloat16: down is towards zero', _FLOATS, 'xp.where(x < 0, xp.constant(0xFFFF',
     'xp.where(x < 0, xp.constant(0'),
    ('bfloat16: up is towards zero', _FLOATS, 'xp.where(x > 0, xp.constant(0xFFFF', 'xp.where(x > 0, xp.constant(0'),
    ('live: from 2^-65', _FLOATS, 'SMALLEST = np.float32(2.0**-64)', 'SMALLEST = np.float32(2.0**-65)'),
    ('live: not at 2^-64 itself', _SUMS, 'live = xp.cast(largest >= floats', 'live = xp.cast(largest > floats'),
    ('denormals are kept', _FLOATS, 'SMALLEST_NORMAL = np.float32(2.0**-126)', 'SMALLEST_NORMAL = np.float32(1e-45)'),
    ('square root: two steps', _FLOATS, 'for _ in range(4):', 'for _ in range(2):', 'irregular.sigma-clip'),
    ('square root: rounded rightly', _FLOATS, '  for _ in range(4):', '  return np.sqrt(x)\n  for _ in range(4):'),
    ('filling: the last value everywhere', _FLOATS, 'if fill_last else', 'if True else'),
    ('filling: zeros everywhere', _FLOATS, 'if fill_last else', 'if False else',
     'irregular.uniform.bits-5-block-100'),
    ('whole numbers: ties to even', _SUMS, 'xp.floor(xp.abs(x) * up + np.float32(0.5))', 'np.rint(xp.abs(x) * up)'),
    ('whole numbers: cut off', _SUMS, 'xp.abs(x) * up + np.float32(0.5)', 'xp.abs(x) * up'),
    ('whole numbers: 22 bits for 23', _SUMS, 'BITS = 23', 'BITS = 22', 'irregular.cluster'),
    ('sums: added up in float32', _SUMS, 'xp.reshape(xp.cast(xp.total(whole_numbers), np.float32), [1])',
     'np.cumsum(whole_numbers.astype(np.float32), dtype=np.float32)[-1:] if '
     'whole_numbers.size else np.zeros(1, np.float32)'),
    ('blocks: magnitudes with ties to even', 'codec.quantizers.moments',
     'xp.floor(xp.abs(rows) * up + np.float32(0.5))', 'np.rint(xp.abs(rows) * up)',
     'irregular.eden.bits-2-scale-least-error'),
    ('blocks: squares added up in float32', 'codec.quantizers.moments',
     'return xp.reduce_sum(high) * np.float32(2.0**12) + xp.reduce_sum(low)',
     'return np.cumsum(product, axis=-1, dtype=np.float32)[..., -1:]', 'irregular.symmetric.levels-7'),
    ('blocks: filling counts for the mean', 'codec.quantizers.moments', 'values[-1, 0] = size - (rows - 1) * block',
     'pass'),
    # -- transforms
    ('hadamard: blocks of powers of two', 'codec.transforms.hadamard', '4**int(math.log(max(size, 1), 4) + 1e-9)',
     '2**int(math.log(max(size, 1), 2) + 1e-9) if size > 3 and int(math.log(size, 2) + '
     '1e-9) % 2 == 0 else 1'),
    ('hadamard: the rest is the first block', 'codec.transforms.hadamard', 'steps.append((size - block, 1',
     'steps.append((0, 1'),
    ('hadamard: the second rotation along the first', 'codec.transforms.hadamard', 'rotation == 1))', 'False))'),
    ('hadamard: dithers of their own for every row', 'codec.transforms.hadamard',
     '  integers = xp.floor(x * up + dither)',
     '  integers = xp.floor(x * up + np.resize(dither, x.size + 1)[:x.size].reshape(x.shape)[:, ::-1])'),
    ('hadamard: a dither for each step anew', 'codec.transforms.hadamard',
     '      used += block\n      part = _unrows', '      used += 0\n      part = _unrows'),
    ('hadamard: rounded to nearest', 'codec.transforms.hadamard', 'xp.floor(x * up + dither)',
     'xp.floor(x * up + np.float32(0.5))'),
    ('hadamard: a bit less', 'codec.transforms.hadamard', 'bits = 24 - int', 'bits = 23 - int'),
    ('hadamard: signs before rounding', 'codec.transforms.hadamard',
     'integers = xp.floor(x * up + dither)\n  return transform(xp, integers * signs)',
     'integers = xp.floor(x * signs * up + dither)\n  return transform(xp, integers)'),
    ('hadamard: without the transposition', 'codec.transforms.hadamard', '[-1, order, order]), [0, 2, 1])',
     '[-1, order, order]), [0, 1, 2])'),
    ('subsample: k rounded down', 'codec.transforms.subsample', 'max(1, self.least, round(self.fraction * size))',
     'max(1, int(self.fraction * size))'),
    ('subsample: k rounded up from a half', 'codec.transforms.subsample',
     'max(1, self.least, round(self.fraction * size))', 'max(1, int(self.fraction * size * 2 + 1) // 2)'),
    ('subsample: multiplied by 1 / fraction', 'codec.transforms.subsample',
     'signal.size / max(self.kept(signal.size), 1))', '1 / self.fraction)'),
    ('subsample: every stride', 'codec.transforms.subsample', 'stride <= 1 << 16', 'stride <= 1 << 17',
     'special.long'),
    ('topk: k rounded up from a half', 'codec.selection', 'round(fraction * size)',
     'int(fraction * size * 2 + 1) // 2'),
    ('topk: k from a float', 'codec.selection', 'round(fraction * size)',
     'round(np.float32(fraction) * np.float32(size) + np.float32(0.2))'),
    ('topk: of equal ones the higher positions', 'codec.ops', 'np.flatnonzero(x == threshold)[:k - above.size]',
     'np.flatnonzero(x == threshold)[::-1][:k - above.size]'),
    ('topk: of the largest values', 'codec.selection', 'xp.largest(floats.without_denormals(xp, xp.abs(x)), k)',
     'xp.largest(floats.without_denormals(xp, x), k)'),
    ('sigma-clip: sigma from 23 bits', _SUMS, '_SQUARE_BITS = 14', '_SQUARE_BITS = 13'),
    ('sigma-clip: divided by d', _SUMS, 'total(xp, numbers * numbers) * np.float32(1 / size))',
     'total(xp, numbers * numbers) / np.float32(size))'),
    ('pool: p of each kernel', 'codec.transforms.pool',
     'numbers, unit = sums.fixed_point(xp, kernel, bits, xp.reduce_max(xp.abs(kernel)))',
     'grid = kernel.reshape(places, values)\n  numbers, unit = sums.fixed_point(xp, grid, bits, '
     'np.max(np.abs(grid), axis=0))\n  numbers = numbers.reshape(-1)'),
    ('pool: a bit less for large kernels', 'codec.transforms.pool', '29 - (places', '25 - (places'),
    ('pool: the mean is divided', 'codec.transforms.pool', '* np.float32(1 / places) * unit',
     '/ np.float32(places) * unit'),
    ('pool: thresholds are for means', 'codec.transforms.pool', 'np.float32(self.threshold / places)',
     'np.float32(self.threshold)'),
    ('countsketch: columns from the whole word', 'codec.transforms.countsketch', 'xp.shift_right(words, 1) %',
     'words %'),
    ('countsketch: turned the other way', 'codec.transforms.countsketch',
     'start + (column + xp.constant(columns, np.int32) - turn)', 'start + (column + turn)'),
    ('countsketch: signs behind those of the words', 'codec.transforms.countsketch', 'count * columns, 32 * count',
     'count * columns, 0'),
    ('countsketch: rounded to nearest', 'codec.transforms.countsketch',
     'xp.floor(x * up + draws.client(Purpose.COUNT_SKETCH_ROUNDING).dither(size))',
     'xp.floor(x * up + np.float32(0.5))'),
    ('countsketch: 17 bits', 'codec.transforms.countsketch', 'min(16, 23 -', 'min(17, 23 -'),
    ('lowrank: one p for a variable', 'codec.transforms.lowrank', 'xp.reduce_max(xp.abs(rows)))',
     'np.max(xp.abs(rows)) * np.ones((rows.shape[0], 1), np.float32))'),
    ('lowrank: dithers anew for each variable', 'codec.transforms.lowrank', 'dithers.dither(layout.short, start)',
     'dithers.dither(layout.short, 0)'),
    ('lowrank: words anew for each variable', 'codec.transforms.lowrank', 'start += -(-layout.short // 32)',
     'start = 0'),
    ('lowrank: blocks of powers of two', 'codec.transforms.lowrank', 'order //= 4', 'order //= 16'),
    ('lowrank: the rank rounded up from a half', 'codec.transforms.lowrank', 'max(1, round(share * short))',
     'max(1, int(share * short * 2 + 1) // 2)'),
    ('autoencoder: one part in place of two', 'codec.network', '+ _total(xp, finer, weights) * (unit',
     '+ _total(xp, finer * 0, weights) * (unit'),
    ('autoencoder: a bit more', 'codec.network', '.bit_length() - 1\n', '.bit_length()\n'),
    ('autoencoder: the input is added behind the activation', 'codec.network',
     '      y = y + rows\n    if self.activation != NONE:\n      y = xp.maximum(y, '
     'xp.constant(0, np.float32))',
     '      y = xp.maximum(y, xp.constant(0, np.float32)) + rows\n    elif self.activation '
     '!= NONE:\n      y = xp.maximum(y, xp.constant(0, np.float32))', 'special.learned'),
    ('autoencoder: divided by the deviation', 'codec.network', '(part - self.means[i]) * inverse[i]',
     '(part - self.means[i]) / self.deviations[i]', 'special.learned'),
    ('autoencoder: rows for columns', 'codec.transforms.autoencoder', "if self.order == 'rows':", 'if True:'),
    # -- quantizers
    ('uniform: divided by the levels', 'codec.quantizers.uniform', '* np.float32(1 / (2**self.bits - 1))',
     '/ np.float32(2**self.bits - 1)'),
    ('uniform: ranges rounded to nearest', 'codec.quantizers.uniform', 'floats.rounded_up_bfloat16(xp, high)',
     'floats.nearest_bfloat16(xp, high)'),
    ('uniform: symbols beyond the last', 'codec.quantizers.uniform',
     'xp.minimum(xp.maximum(position, np.float32(0)), levels)', 'xp.maximum(position, np.float32(0))',
     'irregular.uniform.bits-8'),
    ('uniform: ranges below 2^-80 as they are', 'codec.quantizers.uniform', 'np.float32(2.0**-80)',
     'np.float32(2.0**-140)'),
    ('uniform: nearest, ties to even', 'codec.quantizers.uniform', 'position = xp.floor((x - low) / width + dither)',
     'position = np.rint((x - low) / width) if dither.size == 1 else xp.floor((x - low) / '
     'width + dither)'),
    ('uniform: nearest, ties downwards', 'codec.quantizers.uniform', 'dither: Array = np.float32(0.5)',
     'dither: Array = np.float32(0.4999999)'),
    ('uniform: multiplied by 1 / width', 'codec.quantizers.uniform', '(x - low) / width',
     '(x - low) * (np.float32(1) / width)'),
    ('eden: boundaries belong to the lower level', 'codec.quantizers.eden', 'stats.magnitudes >= deviation',
     'stats.magnitudes > deviation'),
    ('eden: centroids unrounded', 'codec.quantizers.eden', 'integers = np.round(centroids * _UNITS).astype',
     'integers = (centroids * _UNITS).astype'),
    ('eden: filling counts for the energy', 'codec.quantizers.eden', ' - filling * np.float32(integers[0])**2', ''),
    ('eden: denormals have signs', 'codec.quantizers.eden', 'rows > -floats.SMALLEST_NORMAL', 'rows >= 0'),
    ('eden: zero is negative', 'codec.quantizers.eden', 'rows > -floats.SMALLEST_NORMAL', 'rows > 0'),
    ('ternary: at least one is not kept', 'codec.quantizers.ternary',
     'xp.minimum(limit, xp.reduce_max(stats.magnitudes))', 'limit'),
    ('ternary: above the threshold', 'codec.quantizers.ternary', 'stats.magnitudes >= limit',
     'stats.magnitudes > limit'),
    ('symmetric: more than the levels', 'codec.quantizers.symmetric',
     'xp.minimum(xp.floor(xp.abs(x) / width + dither), np.float32(self.levels))',
     'xp.floor(xp.abs(x) / width + dither)'),
    ('symmetric: norms to nearest', 'codec.quantizers.symmetric', 'floats.rounded_up_bfloat16(xp, norm)',
     'floats.nearest_bfloat16(xp, norm)'),
    ('symmetric: norms below the largest magnitude', 'codec.quantizers.symmetric', ', stats.largest)',
     ', stats.largest * 0)'),
    ('symmetric: norms below 2^-64', 'codec.quantizers.symmetric', 'norm < floats.SMALLEST',
     'norm < floats.SMALLEST * 0'),
    ('symmetric: rounds x, not its magnitude', 'codec.quantizers.symmetric',
     'xp.cast(xp.where(x < 0, -level, level), np.int32)', 'xp.cast(xp.floor(x / width + dither), np.int32)'),
    ('sign: zero is negative', 'codec.quantizers.sign', 'x > -floats.SMALLEST_NORMAL', 'x > 0'),
    ('sign: denormals have signs', 'codec.quantizers.sign', 'x > -floats.SMALLEST_NORMAL', 'x >= 0'),
    ('sparse-binary: of equal sides the one above', 'codec.quantizers.sparse_binary', 'sum_above > sum_below',
     'sum_above >= sum_below'),
    ('sparse-binary: p of each side', 'codec.quantizers.sparse_binary', 'sums.BITS, largest)',
     'sums.BITS, xp.reduce_max(xp.maximum(signed, np.float32(0))))'),
    ('sparse-ternary: the mean over all positions', _SUMS, 'xp.maximum(total(xp, positive), np.float32(1))',
     'np.float32(max(whole_numbers.size, 1))'),
    ('cluster: half-way belongs to the lower', 'codec.quantizers.cluster', '[-1, 1]) >= xp.reshape(boundaries',
     '[-1, 1]) > xp.reshape(boundaries'),
    ('cluster: an iteration less', 'codec.quantizers.cluster', 'range(self.iterations)',
     'range(self.iterations - 1)'),
    ('cluster: starts unrounded', 'codec.quantizers.cluster', 'low + xp.floor((high - low) * np.float32(i / last))',
     'low + (high - low) * np.float32(i / last)'),
    ('cluster: an empty one becomes zero', 'codec.quantizers.cluster', 'xp.where(counts > 0, means, centroids)',
     'means'),
    ('bound: steps to nearest', 'codec.quantizers.bound', 'bits = floats.rounded_down_bfloat16(xp, width)',
     'bits = floats.nearest_bfloat16(xp, width)'),
    ('bound: the relative step in full', 'codec.quantizers.bound', '(1 - 2.0**-21)', '1'),
    ('bound: ties to even', 'codec.quantizers.bound',
     'quotient = xp.floor(x / xp.where(step > 0, step, xp.constant(1, np.float32)) + np.float32(0.5))',
     'quotient = np.rint(x / xp.where(step > 0, step, xp.constant(1, np.float32)))', 'bound.0.01-mode-relative'),
    ('bound: values at the bound are outliers', 'codec.quantizers.bound', '<= step * np.float32(0.5)',
     '< step * np.float32(0.5)'),
    ('bound: widths below 2^-64', 'codec.quantizers.bound', 'width < floats.SMALLEST', 'width < floats.SMALLEST * 0'),
    ('sparsify: two rounds', 'codec.quantizers.sparsify', 'range(_ROUNDS)', 'range(2)'),
    ('sparsify: a threshold below one', 'codec.quantizers.sparsify', 'limit = xp.maximum(limit, np.float32(1))',
     'pass'),
    ('sparsify: values at the threshold are rounded', 'codec.quantizers.sparsify', 'magnitudes >= threshold)',
     'magnitudes > threshold)'),
    ('float32: -0 as it is', 'codec.quantizers.float', 'xp.bits_of(floats.without_denormals(xp, x)), 4), {}',
     'xp.bits_of(x), 4), {}'),
    ('nonzero: the first way where both are as long', 'codec.quantizers.float', '+ head >= 4 * signal.size',
     '+ head > 4 * signal.size'),
    ('float16: denormal ones', 'codec.quantizers.float', 'xp.abs(scaled) < np.float32(2.0**-14)',
     'xp.abs(scaled) < np.float32(0)'),
    ('float16: cut off', 'codec.ops', 'return x.astype(np.float16).view(np.uint16)', 'return (x.view(np.uint32) & '
     'np.uint32(0xFFFFE000)).view(np.float32).astype(np.float16).view(np.uint16)'),
    ('float16: ties away from zero', 'codec.ops', 'return x.astype(np.float16).view(np.uint16)',
     'return (x * np.float32(1 + 2.0**-23)).astype(np.float16).view(np.uint16)'),
    # -- positions and coders
    ('positions: the largest of equal parameters', 'codec.gaps',
     'return xp.argmin(unary + xp.constant([*range(1, MAX_PARAMETER + 2)], np.int64) * count)',
     'return MAX_PARAMETER - xp.argmin((unary + xp.constant([*range(1, MAX_PARAMETER + 2)], np.int64) * count)[::-1])',
     'special.nonzero.sparse'),
    ('positions: a parameter from the density', 'codec.gaps', '[*range(1, MAX_PARAMETER + 2)]',
     '[b + 2 - (b > 3) for b in range(MAX_PARAMETER + 1)]'),
    ('bits: most significant first', 'codec.bits', 'sum(1 << (24 - (8 - step) * i) for i in range(4))',
     'sum(1 << (8 * i + step * i) for i in range(4))'),
    ('elias: the middle is rounded down', 'codec.coders.elias', '(signal.low + signal.high + 1) // 2',
     '(signal.low + signal.high) // 2'),
    ('elias: negative ones are odd', 'codec.coders.elias', 'offset * -2, offset * 2 + 1',
     'offset * -2 + 1, offset * 2'),
    ('elias: planes from the highest', 'codec.elias_gamma', 'planes = xp.concat(planes) if',
     'planes = xp.concat(planes[::-1]) if'),
    ('rice: 1 for positive symbols', 'codec.coders.rice', 'xp.cast(kept < 0, np.int32), 1)',
     'xp.cast(kept > 0, np.int32), 1)'),
    ('frequencies: what is missing goes to the last of equals', 'codec.coders.frequencies', 'xp.argmax(counts)',
     'alphabet - 1 - xp.argmax(counts[::-1])'),
    ('frequencies: shares of 4096', 'codec.coders.frequencies', 'left = xp.long(TOTAL) - xp.total(used)',
     'left = xp.long(TOTAL) - xp.long(0) * xp.total(used)'),
    ('rans: the last row ends with symbol 0', 'codec.coders.rans', 'xp.vector(xp.argmax(table)), 1)',
     'xp.vector(0 * xp.argmax(table)), 1)', 'special.many.rans'),
    ('rans: a lane for 2048 symbols', 'codec.coders.rans', 'powers <= size // 4096', 'powers <= size // 2048',
     'special.many.rans'),
    ('rans: states stay below 2^31', 'codec.coders.rans', 'if x >= f << 32 - frequencies.PRECISION:\n      words',
     'if x >= f << 31 - frequencies.PRECISION:\n      words'),
    ('rans: states stay below 2^31, side by side', 'codec.coders.rans', '1 << (32 - frequencies',
     '1 << (31 - frequencies', 'special.lanes.rans'),
    ('rans: words in the order they are made, side by side', 'codec.coders.rans', 'words = xp.reshape(words, [-1])',
     'words = xp.reshape(words[::-1], [-1])', 'special.lanes.rans'),
    ('rans: words in the order they are made', 'codec.coders.rans', 'np.asarray(words[::-1]', 'np.asarray(words[:]'),
    ('rans: lanes from the last', 'codec.coders.rans', 'lane = lanes - 1\n', 'lane = 0\n'),
    ('rans: its cost without the states', 'codec.coders.rans', '3 * self._lanes', '0 * self._lanes',
     'special.cost.rans'),
    ('huffman: of equal groups the last', 'codec.coders.huffman', 'first = xp.argmax(-weight)',
     'first = alphabet - 1 - xp.argmax(-weight[::-1])'),
    ('huffman: a new group is the last of equals', 'codec.coders.huffman', 'second = xp.argmax(-without)',
     'second = alphabet - 1 - xp.argmax(-without[::-1])'),
    ('huffman: of equal lengths the last symbol first', 'codec.coders.huffman',
     '         + xp.iota(xp.size(lengths)))\n', '         + xp.reverse(xp.iota(xp.size(lengths))))\n'),
    ('huffman: lowest bit of a word first', 'codec.coders.huffman',
     'words = _reversed(xp, starts % xp.constant(1 << LONGEST, np.int32))',
     'words = xp.cast(starts % (1 << LONGEST) >> (16 - lengths), np.int32)'),
    ('huffman: a lane for 4096 symbols', 'codec.coders.huffman', '_LANE = 2048', '_LANE = 4096'),
    ('huffman: differences of lengths the other way', 'codec.coders.huffman',
     'xp.where(steps < 0, steps * -2 - 1, steps * 2)', 'xp.where(steps > 0, steps * 2 - 1, steps * -2)'),
)]


# What is remembered from before an error.
_CACHES = (codec_lib.Codec.plan, pipeline_lib.Pipeline.signals, grammar._parse)


def _functions(owner, module):
  """{name: function} of what is defined in a module or class, behind properties and caches."""
  found = {}
  for name, value in vars(owner).items():
    for attribute in ('fget', 'func', '__func__', '__wrapped__'):
      value = getattr(value, attribute, value)
    if isinstance(value, types.FunctionType) and value.__module__ == module and not name.startswith('__init__'):
      found[name] = value
    elif isinstance(value, type) and value.__module__ == module and isinstance(owner, types.ModuleType):
      found.update({f'{name}.{inner}': function for inner, function in _functions(value, module).items()})
  for name, value in vars(owner).items():
    if name == '__init__' and isinstance(value, types.FunctionType) and not hasattr(owner, '__dataclass_fields__'):
      found[name] = value
  return found


@contextlib.contextmanager
def made(mutation):
  """The product with an error in it. Raises ValueError where the text to replace does not stand there once."""
  module = importlib.import_module(f'tff_compress.{mutation.module}')
  source = pathlib.Path(module.__file__).read_text(encoding='utf-8')
  if source.count(mutation.old) != 1:
    raise ValueError(f'{mutation.module} has {source.count(mutation.old)} times {mutation.old!r}: change the mutation '
                     f'{mutation.rule!r} with the code.')
  for golden in regenerate.goldens():
    _expected(golden)  # Before there is an error.
  changed = types.ModuleType(module.__name__)
  changed.__file__ = module.__file__
  exec(compile(source.replace(mutation.old, mutation.new), module.__file__, 'exec'), changed.__dict__)
  kept = {name: (function, function.__code__, function.__defaults__)
          for name, function in _functions(module, module.__name__).items()}
  constants = {name: value for name, value in vars(module).items()
               if isinstance(value, (int, float, np.generic, tuple))
               and repr(getattr(changed, name, value)) != repr(value)}
  try:
    for name, function in _functions(changed, module.__name__).items():
      kept[name][0].__code__, kept[name][0].__defaults__ = function.__code__, function.__defaults__
    for name in constants:
      setattr(module, name, getattr(changed, name))
    _forget()
    yield
  finally:
    for function, code, defaults in kept.values():
      function.__code__, function.__defaults__ = code, defaults
    for name, value in constants.items():
      setattr(module, name, value)
    _forget()


def _forget():
  for cache in _CACHES:
    cache.cache_clear()


@functools.cache
def _expected(golden):
  """(frame, what it decodes to) of a golden frame, from its file."""
  frame = (regenerate.FOLDER / golden.file).read_bytes()
  return frame, regenerate.decoded(golden, frame)[0]


def finds(golden):
  """Whether a golden frame differs, or what is decoded from it, from what the product makes now."""
  frame, expected = _expected(golden)
  try:
    if golden.frame() != frame:
      return True
    decoded, _ = regenerate.decoded(golden, frame)
  except Exception:  # Whatever it is, it is found.
    return True
  tolerance = 0 if golden.exact else regenerate.TOLERANCE
  for name, array in expected.items():
    if array.size:
      wide, found = array.astype(np.float64), decoded[name].astype(np.float64)
      if np.max(np.abs(wide - found)) > tolerance * np.max(np.abs(wide)):
        return True
  return False


def finder(mutation, goldens):
  """The first golden frame that differs while an error is made, those first that are likely to; None if none does."""
  word = mutation.rule.partition(':')[0]

  def unlikely(golden):
    return (golden.name != mutation.frame, golden.update == 'long', golden.update.startswith('heavy'),
            word not in golden.text, not golden.name.startswith('special'))
  return next((golden for golden in sorted(goldens, key=unlikely) if finds(golden)), None)


def main(heavy):
  """Prints a line for each error; returns whether one is not found."""
  everywhere = regenerate.goldens()
  missed = unseen = 0
  for mutation in MUTATIONS:
    with made(mutation):
      found = [finder(mutation, everywhere)]
      if heavy:
        found.append(finder(mutation, [golden for golden in everywhere if golden.update.startswith('heavy')]))
    missed += found[0] is None
    unseen += found[-1] is None
    print(f'{mutation.rule:60} ' + ' | '.join(str(golden or 'NOT FOUND') for golden in found), flush=True)
  print(f'{len(MUTATIONS) - missed} of {len(MUTATIONS)} errors are found'
        + (f', {len(MUTATIONS) - unseen} of them by frames of heavy values.' if heavy else '.'))
  return bool(missed)


if __name__ == '__main__':
  sys.exit(main('--heavy' in sys.argv[1:]))
