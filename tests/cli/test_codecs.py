"""`tff-compress codecs`: everything that is registered is listed, with what it measurably costs."""

import json

import pytest

from tff_compress import codec as codec_lib
from tff_compress.cli import codecs
from tff_compress.cli import main
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib
from tff_compress.processes import methods


@pytest.fixture(scope='module')
def entries():
  return {entry.name: entry for entry in codecs.entries()}


def test_every_registered_stage_preset_and_method_is_listed(entries):
  assert set(entries) == set(stage_lib.registry()) | set(presets.registry()) | set(methods.registry())


def test_bits_are_those_of_the_payload(entries):
  size = codecs.SHAPE[0] * codecs.SHAPE[1]
  for entry in entries.values():
    # PowerSGD sends the coordinates of 256 rows on two columns.
    shape = (256, 2) if entry.name == 'powersgd' else codecs.SHAPE
    spec = codec_lib.Spec((codec_lib.TensorSpec('kernel', shape),))
    exact = codec_lib.parse(entry.measured).plan(spec).payload_size
    if exact is not None:
      assert entry.bits_per_parameter == 8 * exact / size, entry.name
  assert entries['float32'].bits_per_parameter == 32
  assert entries['rice'].bits_per_parameter < entries['pack'].bits_per_parameter


def test_bias_and_linearity_are_told_from_the_configurations(entries):
  assert entries['topk'].bias == 'biased'
  assert entries['uniform'].bias == 'either'  # stochastic or nearest
  assert entries['float32'].bias == 'unbiased'
  assert entries['hadamard'].linear == 'either'  # the round's key or the client's
  assert entries['shared-mask'].linear == 'yes'
  assert entries['rotated-ternary'].linear == 'no'


def test_measured_codec_holds_the_stage(entries):
  for name, entry in entries.items():
    parsed = codec_lib.parse(entry.measured)
    if entry.kind not in ('preset', 'method'):
      assert name in {stage.name for stage in parsed.rules[0].pipeline.stages}


def test_list_shows_a_line_per_entry(entries, capsys):
  assert main(['codecs']) == 0
  lines = capsys.readouterr().out.splitlines()
  for entry in entries.values():
    line, = (line for line in lines if line.split()[:1] == [entry.name])
    assert f'{entry.bits_per_parameter:.3f}' in line and entry.summary in line and entry.source in line
    if entry.kind == 'method':
      assert line.split()[1].startswith(entry.memory.split(",")[0])
    else:
      assert entry.bias in line


def test_json_holds_what_the_list_holds(entries, capsys):
  assert main(['codecs', '--json']) == 0
  listed = json.loads(capsys.readouterr().out)
  assert [item['name'] for item in listed] == list(entries)
  assert listed[0].keys() >= {'kind', 'summary', 'source', 'bits_per_parameter', 'nmse', 'bias', 'linear'}


def test_one_stage_is_shown_with_docstring_parameters_and_examples(capsys):
  assert main(['codecs', 'uniform']) == 0
  shown = capsys.readouterr().out
  uniform = stage_lib.registry()['uniform']
  assert uniform.__doc__.strip().splitlines()[0] in shown
  assert 'stochastic or nearest' in shown
  for example in uniform.examples:
    assert f'uniform:{example}'.replace('bits=8', '').rstrip(':') in shown


def test_one_preset_is_shown_with_what_it_stands_for(capsys):
  assert main(['codecs', 'int8', '--json']) == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown['measured'] == str(codec_lib.parse('int8'))
  assert shown['parameters'] == [] and shown['examples'][0]['codec'] == 'int8'


def test_a_method_is_shown_with_its_schedule_page_and_command(capsys):
  assert main(['codecs', 'dgc']) == 0
  shown = capsys.readouterr().out
  for part in ('topk:1/4 | float32 @1 topk:1/16 | float32', 'docs/methods/sparse-and-sign.md',
               'tff-compress run --uplink dgc',
               'momentum', 'Lin et al. 2018'):
    assert part in shown
  assert main(['codecs', 'stc']) == 0
  assert 'tff-compress run --uplink stc --downlink stc' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['drve', pytest.param('x' * 500, id='long'), 'a\x1b[31mb', ''])
def test_unknown_name_is_one_sentence(name, capsys):
  assert main(['codecs', name]) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.count('\n') == 1 and len(captured.err) < 200 and '\x1b' not in captured.err


def test_misspelt_name_is_answered_with_the_nearest(capsys):
  assert main(['codecs', 'drve']) == 2
  assert 'did you mean drive?' in capsys.readouterr().err
