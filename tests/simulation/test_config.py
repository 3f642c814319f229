"""Settings from flags and YAML: every field of RunConfig can be set, and nothing else."""

import dataclasses

import pytest

from tff_compress.simulation import config
from tff_compress.simulation import config_file
from tff_compress.simulation import datasets
from tff_compress.simulation import settings as settings_lib
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.settings import ConfigError
from tff_compress.simulation.settings import setting


def write(tmp_path, text):
  path = tmp_path / 'run.yaml'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def test_every_field_of_a_run_is_a_setting_with_its_default():
  settings = config.settings()
  assert list(settings) == [field.name for field in dataclasses.fields(RunConfig)]
  assert config.make({name: setting.default for name, setting in settings.items()}) == RunConfig()


@dataclasses.dataclass(frozen=True)
class Baking:
  """How a cake is baked."""
  minutes: int = setting(30, 'oven', 'time in the oven', least=1, most=10**6)
  degrees: float | None = setting(None, 'oven', 'temperature; none: as the oven has it', above=0, below=500)
  form: str = setting('round', 'form', 'shape of the cake', words=('round', 'square'))
  greased: bool = setting(True, 'form', 'the form is greased')
  recipe: str | None = setting(None, 'form', 'where the recipe is; none: nowhere', path=True)

  def __post_init__(self):
    settings_lib.check_all(self)


def test_everything_about_a_setting_follows_from_its_declaration():
  found = settings_lib.settings_of(Baking)
  assert [(s.name, s.kind, s.optional, s.default, s.flag, s.metavar, s.values) for s in found.values()] == [
      ('minutes', int, False, 30, '--minutes', 'N', 'a whole number from 1 to 10^6'),
      ('degrees', float, True, None, '--degrees', 'X', 'a number above 0 and below 500, or none'),
      ('form', str, False, 'round', '--form', 'round|square', 'round or square'),
      ('greased', bool, False, True, '--greased', 'true|false', 'true or false'),
      ('recipe', str, True, None, '--recipe', 'PATH', 'a path, or none')]
  assert found['form'].flag_help == 'shape of the cake (round)' and found['degrees'].parse('180') == 180.0
  assert Baking(degrees=180) == Baking(degrees=180.0) and type(Baking(degrees=180).degrees) is float
  assert settings_lib.documented(Baking).__doc__.splitlines()[:4] == [
      'How a cake is baked.', '', '  Attributes:', '    minutes: time in the oven.']
  for wrong, says in ((dict(minutes=0), 'minutes must be a whole number from 1 to 10^6, not 0.'),
                      (dict(degrees=500), 'degrees must be a number above 0 and below 500, not 500.'),
                      (dict(form='heart'), "form must be round or square, not 'heart'."),
                      (dict(greased=1), 'greased must be True or False, not 1.'),
                      (dict(recipe=''), "recipe must be the path of a folder or file, not ''.")):
    with pytest.raises(ConfigError) as error:
      Baking(**wrong)
    assert str(error.value) == says


def test_a_limit_that_does_not_exist_is_a_mistake_of_the_programmer():
  with pytest.raises(TypeError, match='no limit at_least'):
    setting(1, 'oven', 'time in the oven', at_least=1)


def test_options_of_data_sets_are_settings_behind_the_folder_of_the_data():
  names = list(config.settings())
  position = names.index('data_dir') + 1
  assert set(names[position:position + len(datasets.options())]) == set(datasets.options())
  for option, owners in datasets.options().items():
    assert len({(owned.kind, owned.optional, owned.default) for owned in owners.values()}) == 1, option
    assert config.settings()[option].help.startswith(' and '.join(owners) + ': ')


def test_the_docstring_has_every_setting_and_its_help():
  text = ' '.join(RunConfig.__doc__.split())
  for declared in config.settings().values():
    assert f' {declared.name}: {declared.help}.' in text


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
  with pytest.raises(ConfigError, match=f'^{name} must be .* not ') as error:
    config.settings()[name].parse(value)
  assert len(str(error.value)) < 200


@pytest.mark.parametrize('values', [
    {'rounds': 0}, {'rounds': -1}, {'client_learning_rate': float('nan')}, {'client_learning_rate': float('inf')},
    {'clients': 5, 'clients_per_round': 6}, {'uplink': 'hadamrd | pack'}, {'uplink': 'tff:nothing'},
    {'downlink': 'tff:compression_aggregator'},
    {'model': 'resnet'}, {'seed': -1}, {'ema': 1.0}, {'batch_size': 0},
])
def test_values_no_run_can_have_are_config_errors(values):
  with pytest.raises(ConfigError) as error:
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
  assert config_file.load_yaml(path) == {
      'rounds': 3, 'client_learning_rate': 0.01, 'clients': None, 'split': 'natural', 'dropout': True,
      'uplink': 'hadamard | uniform:bits=2 | pack', 'downlink': '*/bias => float32; * => uniform:bits=8 | pack'}


def test_lists_only_where_they_are_asked_for(tmp_path):
  path = write(tmp_path, 'uplink: [int8, drive]')
  assert config_file.load_yaml(path, lists=('uplink',)) == {'uplink': ['int8', 'drive']}
  with pytest.raises(ConfigError, match='uplink must be a text, not a list'):
    config_file.load_yaml(path)
  with pytest.raises(ConfigError, match='empty list'):
    config_file.load_yaml(write(tmp_path, 'uplink: []'), lists=('uplink',))


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
    pytest.param(b'#' * (config_file.MAX_YAML + 1), 'too many', id='long'),
])
def test_bad_yaml_is_one_short_sentence(tmp_path, text, says):
  with pytest.raises(ConfigError) as error:
    config_file.load_yaml(write(tmp_path, text))
  assert says in str(error.value) and '\n' not in str(error.value) and len(str(error.value)) < 700


def test_yaml_that_refers_to_itself_a_billion_times_is_refused_at_once(tmp_path):
  lines = ['a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]']
  lines += [f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join(["*" + chr(97 + i)] * 10)}]' for i in range(12)]
  with pytest.raises(ConfigError, match='no setting'):
    config_file.load_yaml(write(tmp_path, '\n'.join(lines)))
  with pytest.raises(ConfigError, match='rounds must be a whole number, not a list'):
    config_file.load_yaml(write(tmp_path, '\n'.join(['seed: &a [1, 1]', 'rounds: &b [*a, *a]',
                                                'clients: [*b, *b]'][1:]).replace('*a', '1')))


def test_what_is_not_a_file_is_refused(tmp_path):
  for path in (str(tmp_path), str(tmp_path / 'missing.yaml'), '/dev/zero', 'a\0b'):
    with pytest.raises(ConfigError):
      config_file.load_yaml(path)
