"""Settings from flags and YAML: every field of RunConfig can be set, and nothing else."""

import dataclasses

import pytest

from tff_compress.simulation import config
from tff_compress.simulation.run import RunConfig


def write(tmp_path, text):
  path = tmp_path / 'run.yaml'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def test_every_field_of_a_run_is_a_setting_with_its_default():
  settings = config.settings()
  assert list(settings) == [field.name for field in dataclasses.fields(RunConfig)]
  assert config.make({name: setting.default for name, setting in settings.items()}) == RunConfig()


@pytest.mark.parametrize('name, text, value', [
    ('rounds', '12', 12), ('clients', 'none', None), ('client_learning_rate', '1e-3', 1e-3), ('ema', 'none', None),
    ('dropout', 'true', True), ('only_digits', 'no', False), ('uplink', 'none', 'none'),
    ('seed', '18446744073709551615', 2**64 - 1),
])
def test_texts_become_values_of_the_field(name, text, value):
  parsed = config.settings()[name].parse(text)
  assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize('name, value', [
    ('rounds', '1.5'), ('rounds', 1.0), ('rounds', True), ('rounds', ''), ('rounds', None),
    pytest.param('rounds', '9' * 5000, id='long'), ('rounds', [1]),
    ('client_learning_rate', 'fast'), ('client_learning_rate', {}), ('dropout', 'maybe'), ('dropout', 1.5),
    ('uplink', 7), ('uplink', False),
])
def test_a_value_of_another_type_is_a_config_error(name, value):
  with pytest.raises(config.ConfigError, match=f'^{name} must be .* not ') as error:
    config.settings()[name].parse(value)
  assert len(str(error.value)) < 200


@pytest.mark.parametrize('values', [
    {'rounds': 0}, {'rounds': -1}, {'client_learning_rate': float('nan')}, {'client_learning_rate': float('inf')},
    {'clients': 5, 'clients_per_round': 6}, {'uplink': 'hadamrd | pack'}, {'uplink': 'tff:nothing'},
    {'downlink': 'tff:compression_aggregator'},
    {'model': 'resnet'}, {'seed': -1}, {'ema': 1.0}, {'batch_size': 0},
])
def test_values_no_run_can_have_are_config_errors(values):
  with pytest.raises(config.ConfigError) as error:
    config.make(values)
  assert '\n' not in str(error.value)


def test_yaml_gives_what_the_same_flags_give(tmp_path):
  path = write(tmp_path, """
      rounds: 3            # a comment
      client_learning_rate: 1e-2
      clients: none
      split: natural
      uplink: hadamard | uniform:bits=2 | pack
      downlink: "*/bias => float32; * => uniform:bits=8 | pack"
      dropout: true
      """.replace('\n      ', '\n'))
  assert config.load_yaml(path) == {
      'rounds': 3, 'client_learning_rate': 0.01, 'clients': None, 'split': 'natural', 'dropout': True,
      'uplink': 'hadamard | uniform:bits=2 | pack', 'downlink': '*/bias => float32; * => uniform:bits=8 | pack'}


def test_lists_only_where_they_are_asked_for(tmp_path):
  path = write(tmp_path, 'uplink: [int8, drive]')
  assert config.load_yaml(path, lists=('uplink',)) == {'uplink': ['int8', 'drive']}
  with pytest.raises(config.ConfigError, match='uplink must be a text, not a list'):
    config.load_yaml(path)
  with pytest.raises(config.ConfigError, match='empty list'):
    config.load_yaml(write(tmp_path, 'uplink: []'), lists=('uplink',))


@pytest.mark.parametrize('text, says', [
    ('round: 3', 'did you mean rounds?'),
    ('client-learning-rat: 3', 'did you mean client_learning_rate?'),
    ('colour: red', 'there are dataset'),
    ('7: red', 'there is no setting 7'),
    ('rounds: 3\nrounds: 4', 'twice'),
    ('rounds', 'name: value'),
    ('', 'name: value'),
    ('- rounds', 'name: value'),
    ('rounds: [', 'not valid YAML'),
    ('uplink: * => float32', 'in quotes'),
    ('rounds: !!python/object/apply:os.system ["true"]', 'not valid YAML'),
    pytest.param('rounds: ' + '[' * 300 + ']' * 300, 'opening brackets', id='nested'),
    pytest.param('- ' * 3000, 'nested too deeply', id='indented'),
    (b'\xff\xfe\x00', 'not valid YAML'),
    (b'rounds: \x00', 'not valid YAML'),
    ('{[1]: 2}', 'not valid YAML'),
    pytest.param(b'#' * (config.MAX_YAML + 1), 'too many', id='long'),
])
def test_bad_yaml_is_one_short_sentence(tmp_path, text, says):
  with pytest.raises(config.ConfigError) as error:
    config.load_yaml(write(tmp_path, text))
  assert says in str(error.value) and '\n' not in str(error.value) and len(str(error.value)) < 700


def test_yaml_that_refers_to_itself_a_billion_times_is_refused_at_once(tmp_path):
  lines = ['a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]']
  lines += [f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join(["*" + chr(97 + i)] * 10)}]' for i in range(12)]
  with pytest.raises(config.ConfigError, match='no setting'):
    config.load_yaml(write(tmp_path, '\n'.join(lines)))
  with pytest.raises(config.ConfigError, match='rounds must be a whole number, not a list'):
    config.load_yaml(write(tmp_path, '\n'.join(['seed: &a [1, 1]', 'rounds: &b [*a, *a]',
                                                'clients: [*b, *b]'][1:]).replace('*a', '1')))


def test_what_is_not_a_file_is_refused(tmp_path):
  for path in (str(tmp_path), str(tmp_path / 'missing.yaml'), '/dev/zero', 'a\0b'):
    with pytest.raises(config.ConfigError):
      config.load_yaml(path)
