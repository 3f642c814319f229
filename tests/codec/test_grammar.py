"""The text of codecs: what is read, how it is written, and the sentence for everything else."""

import time

import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import grammar
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib


@pytest.mark.parametrize('text, canonical', [
    ('float32', 'float32'),
    (' hadamard|uniform:2|pack ', 'hadamard | uniform:bits=2 | pack'),
    ('hadamard : rotations = 2 , key=client | eden:2 | pack', 'hadamard:rotations=2,key=client | eden:bits=2 | pack'),
    ('uniform:block=1024,bits=4,range=block | pack', 'uniform:bits=4 | pack'),
    ('uniform:bits=8 | pack', 'uniform | pack'),
    ('subsample:0.0625 | float16', 'subsample:1/16 | float16'),
    ('subsample:fraction=2/32,key=client | float16', 'subsample:1/16,key=client | float16'),
    ('topk:1e-3 | float32', 'topk:1/1000 | float32'),
    ('hadamard:key=client | ternary:2 | rice', 'hadamard:key=client | ternary:threshold=2.0 | rice'),
    ('* => float32', 'float32'),
    ('concat | float32', 'concat | float32'),
    ('* => concat | float32', 'concat | float32'),
    ('*/bias=>float32;*=>uniform|pack;', '*/bias => float32; * => uniform | pack'),
    ('size < 20000 & */kernel => float32; * => float16', 'size<20000 & */kernel => float32; * => float16'),
    ('size>=007 => float32', 'size>=7 => float32'),
    ('hadamard | \n uniform | pack', 'hadamard | uniform | pack'),
    ('int8', 'uniform | pack'),
    ('drive : bits = 2', 'concat | hadamard:rotations=2,key=client | eden:bits=2 | pack'),
    ('drive:3', 'concat | hadamard:rotations=2,key=client | eden:bits=3 | pack'),
    ('sketch:fraction=0.25,bits=1', 'size<20000 => float32; * => hadamard | subsample:1/4 | uniform:bits=1 | pack'),
])
def test_texts_have_one_canonical_form(text, canonical):
  codec = codec_lib(text)
  assert str(codec) == canonical
  assert codec_lib(canonical) == codec and hash(codec_lib(canonical)) == hash(codec)


def test_a_codec_is_returned_as_it_is():
  codec = codec_lib('float32')
  assert codec_lib(codec) is codec


ERRORS = [
    ('', 'is empty'),
    ('  \n', 'is empty'),
    (None, 'not as NoneType'),
    (['float32'], 'not as list'),
    ('x' * 10_001, 'at most 10000 characters'),
    ('float32\ud800', 'surrogate'),
    ('quux | pack', 'no stage \'quux\'; there are'),
    ('unifrom | pack', 'did you mean uniform?'),
    ('Float32', 'did you mean float32?'),
    ('rotated-ternry', 'did you mean rotated-ternary?'),
    ('float32 |', 'a stage is missing'),
    ('| float32', 'a stage is missing'),
    ('hadamard || float32', 'a stage is missing'),
    ('pack', 'takes integer symbols but comes first'),
    ('uniform | float32', 'takes real values but is given integer symbols'),
    ('float32 | pack', 'takes integer symbols but is given bytes'),
    ('hadamard', 'ends with hadamard, which gives real values: add a last stage'),
    ('uniform', 'add a last stage such as elias, huffman, pack, rans, rice'),
    ('pack | uniform', 'The order uniform | pack works.'),
    ('uniform | hadamard | pack', 'The order hadamard | uniform | pack works.'),
    ('uniform | uniform | pack', 'takes real values but is given integer symbols'),
    ('uniform:bits=9 | pack', 'bits must be 1 … 8'),
    ('uniform:bits=two | pack', 'must be a whole number'),
    ('uniform:bits= | pack', 'must be a whole number'),
    ('uniform:bits=1.5 | pack', 'must be a whole number'),
    ('uniform: | pack', 'must be a whole number'),
    ('uniform:bits=2,bits=2 | pack', 'given twice'),
    ('uniform:2,bits=2 | pack', 'given twice'),
    ('uniform:bits=2,3 | pack', 'write field=value'),
    ('uniform:bitz=2 | pack', 'no parameter \'bitz\'; it takes bits, rounding, range, block'),
    ('uniform:rounding=up | pack', 'stochastic or nearest'),
    ('uniform:rounding=' + 'u' * 3000 + ' | pack', 'stochastic or nearest'),
    ('float32:1', 'takes none'),
    ('float32:a=1', 'takes none'),
    ('subsample | float32', 'needs a value for fraction, such as subsample:1/16'),
    ('subsample:1/0 | float32', 'a number or a fraction'),
    ('subsample:nan | float32', 'a number or a fraction'),
    ('subsample:1/3333333333 | float32', 'nine digits'),
    ('hadamard:key=client | ternary:threshold=nan | rice', 'threshold must be'),
    ('hadamard:key=client | ternary:threshold=wide | rice', 'must be a number'),
    ('hadamard:key=client | ternary:threshold=1e999 | rice', 'threshold must be'),
    ('eden | pack', 'put hadamard:key=client'),
    ('hadamard | eden | pack', 'directly before it'),
    ('concat', 'needs at least one stage'),
    ('hadamard | concat | float32', 'concat may only stand first'),
    ('concat:2 | float32', 'concat may only stand first'),
    (';', '"=>" is missing'),
    ('float32; float16', '"=>" is missing'),
    ('* => float32; float16', 'each rule is'),
    ('a => b => float32', 'each rule is'),
    ('=> float32', 'a condition is'),
    ('a & => float32', 'a condition is'),
    ('a b => float32', 'a condition is'),
    ('size=5 => float32', 'a condition is'),
    ('size<-5 => float32', 'a condition is'),
    ('size<1e4 => float32', 'a condition is'),
    ('size<9999999999999 => float32', 'a condition is'),
    ('* =>', 'a stage is missing'),
    ('int8:bits=4', 'takes none'),
    ('drive:bits=5', 'bits must be 1 … 4'),
    ('int8 | pack', 'is a preset'),
    ('* => int8', 'is a preset'),
]


@pytest.mark.parametrize('text, message', ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_what_is_wrong_is_said_in_one_sentence(text, message):
  with pytest.raises(codec_lib.CodecError) as raised:
    codec_lib(text)
  said = str(raised.value)
  assert message in said
  assert said[-1] in '.?' and '\n' not in said and len(said) < 400


def test_huge_numbers_are_refused_and_not_written_out():
  """10^99999999 has forty megabytes."""
  for number in ('1e-99999999', '1e99999999', '9' * 5000, '0.' + '1' * 5000, '1/' + '7' * 5000):
    for text in (f'subsample:{number} | float32', f'topk:{number} | float32', f'uniform:bits={number} | pack'):
      with pytest.raises(codec_lib.CodecError):
        codec_lib(text)


def test_a_pattern_of_many_stars_is_matched_in_time():
  codec = codec_lib('*a' * 200 + ' => float32; * => float16')
  spec = codec_lib.Spec((codec_lib.TensorSpec('a' * 3000 + 'b', (2,)),))
  with pytest.warns(codec_lib.UnmatchedRuleWarning):
    assert codec.plan(spec).payload_size == 5


@pytest.mark.parametrize('pattern, names, others', [
    ('*/bias', ['a/bias', '/bias', 'a/b/bias'], ['bias', 'a/Bias', 'a/bias_1', 'a/biasx']),
    ('dense', ['dense'], ['dense_1', 'Dense', 'a/dense']),
    ('*', ['a', 'a/b', '*'], []),
    ('d?/*', ['d1/', 'dü/kernel', 'd//'], ['d/kernel', 'd12/kernel']),
    ('*a*b*', ['ab', 'xaxbx'], ['ba', 'a']),
    ('*aa', ['aa', 'aaa'], ['aab', 'a']),
    ('x[ab]', ['xa', 'xb'], ['x', 'xc', 'x[ab]']),
    ('x[!ab]', ['xc', 'x!', 'x-'], ['xa', 'x']),
    ('x[a-c-e]', ['xb', 'x-', 'xe'], ['xd']),
    ('x[a-]', ['xa', 'x-'], ['xb']),
    ('x[]a]', ['x]', 'xa'], ['x[]a]']),
    ('x[!]a]', ['xb'], ['x]', 'xa']),
    ('x[c-a]y', [], ['xby', 'xcy', 'x-y']),
    ('x[!c-a]', ['xb'], ['x']),
    ('x[', ['x['], ['x']),
    ('x[]', ['x[]'], ['x']),
    ('x[!]', ['x[!]'], ['xa']),
    ('x[*]', ['x*'], ['xa', 'x**']),
    ('a.b^\\d', ['a.b^\\d'], ['axb^5']),
])
def test_patterns_match_whole_names(pattern, names, others):
  condition, = codec_lib(f'{pattern} => float32').rules[0].conditions
  for name in names + others:
    assert condition.matches(codec_lib.TensorSpec(name, ())) == (name in names), name


@pytest.mark.thorough
def test_no_text_takes_long():
  """Everything that may stand in a text, repeated up to its limit; none is super-linear, and messages stay short."""
  spec = codec_lib.Spec((codec_lib.TensorSpec('a' * 65535, (2,)), codec_lib.TensorSpec('b', (3,))))
  pieces = ('[', '[a-', '[!', '][', '*', '*a', '*a&', '?', 'é', ' ', '\n', '|', '=>', ';', '&', ',', ':', '=', '9',
            '1/3', '.', 'e+', 'size<1&', 'hadamard|', 'topk:1/2|', 'sign|pack;', 'a=>float32;', '*a=>float32;',
            '[a-=>float32;', 'bits=2,', 'quux')
  for piece in pieces:
    for start, end in (('', ''), ('', ' => float32; * => sign | pack'), ('* => ', ' | float32'),
                       ('uniform:', ' | pack'), ('topk:', ' | float32'), ('size<', '=>float32')):
      text = start + piece * ((grammar.MAX_TEXT - len(start) - len(end)) // len(piece)) + end
      before = time.process_time()
      try:
        codec_lib(text).plan(spec)
      except codec_lib.CodecError as error:
        assert len(str(error)) < 500 or '|' in piece, text[:40]
      assert time.process_time() - before < 1, text[:40]
  pattern = '*' + 'a' * 998 + 'b'
  with pytest.raises(codec_lib.CodecError, match='at most 1000 characters'):
    codec_lib(f'*{pattern} => float32')
  before = time.process_time()
  assert not codec_lib(f'{pattern} => float32').rules[0].matches(spec.tensors[0])
  assert time.process_time() - before < 1


def test_every_stage_and_preset_is_described():
  """`tff-compress codecs` and the guides print these."""
  for kind in (*stage_lib.registry().values(), *presets.registry().values()):
    assert kind.summary and '\n' not in kind.summary and len(kind.summary) < 110, kind
    assert kind.source and kind.__doc__ and kind.examples, kind
  assert not set(stage_lib.registry()) & set(presets.registry())
  assert all(name == kind.name for name, kind in stage_lib.registry().items())


def test_presets_stand_for_codecs_without_presets():
  for kind in presets.registry().values():
    codec = codec_lib(kind.name)
    assert codec == codec_lib(kind().text)
    assert kind.name not in str(codec).split()


def test_texts_are_read_once():
  assert codec_lib('hadamard | float32') is codec_lib('hadamard | float32')
  assert grammar.parse('float32') == codec_lib('float32')
