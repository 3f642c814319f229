"""What every command promises: exit codes, one sentence per error, quiet ends, and no TensorFlow where none is
needed."""

import errno
import os
import subprocess
import sys

import pytest

import tff_compress
from tff_compress import cli
from tff_compress.cli import codecs
from tff_compress.cli import extras
from tff_compress.cli import program
from tff_compress.codec.errors import CompressionError
from tflite_export import cli as export_cli

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMANDS = ('run', 'compare', 'codecs', 'inspect', 'report', 'demo')


def test_version(capsys):
  assert cli.main(['--version']) == 0
  assert capsys.readouterr().out == f'tff-compress {tff_compress.__version__}\n'


def test_help_names_every_command(capsys):
  assert cli.main(['--help']) == 0
  shown = capsys.readouterr().out
  for command in COMMANDS:
    assert f'\n    {command} ' in shown


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_help(command, capsys):
  assert cli.main([command, '--help']) == 0
  assert f'tff-compress {command}' in capsys.readouterr().out


def test_without_a_command_the_help_is_shown_and_nothing_succeeds(capsys):
  assert cli.main([]) == 2
  assert 'commands:' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, says', [
    (['rnu'], 'did you mean run'),
    (['frobnicate'], 'choose from'),
    (['codecs', '--jsn'], 'did you mean --json'),
    (['codecs', 'int8', 'drive'], 'too many'),
    (['--colour'], '--colour'),
    (['run', 'int8'], 'too many'),
    (['--debug', 'run'], "'--debug' stands before the command; options come after it, as in tff-compress run --debug"),
    (['--uplink', 'int8', 'run'], "'--uplink' stands before the command"),
    (['run', '--rounds'], '--rounds needs a value'),
    (['inspect'], 'FILE must be given'),
    (['codecs', '--json=1'], "--json takes no value, and '1' is one"),
    (['fit-autoencoder', 'a.npz', '-o', 'b', '--held-out', 'x'],
     "--held-out must be a whole number from 1 to 2^20, not 'x'"),
])
def test_unknown_words_are_one_sentence_with_the_nearest(arguments, says, capsys):
  assert cli.main(arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1 and says in captured.err


def _options():
  """(program, command, option) of every command of both programs."""
  for main in (cli.PROGRAM, export_cli.PROGRAM):
    for name, *_ in main.commands:
      _, commands = program._parser(main, name)
      for action in commands[name]._actions:
        if action.option_strings and action.dest != 'help':
          yield main, name, action


def test_every_option_that_is_no_list_is_refused_where_it_is_given_twice(capsys):
  """argparse would take the last: a run that was asked for two codecs would train one of them."""
  lists = set()
  for main, command, action in _options():
    value = [] if action.nargs == 0 else [
        'random-mask' if action.dest == 'structure' else next(iter(action.choices or '1'))]
    for first in action.option_strings:
      assert main.main([command, first, *value, action.option_strings[-1], *value, '--frobnicate']) == 2
      said = capsys.readouterr().err
      if 'append' in type(action).__name__.lower() or 'extend' in type(action).__name__.lower():
        lists.add((main.name, command, action.dest))
        assert 'given twice' not in said
      else:
        assert f'{action.option_strings[-1]} is given twice' in said and said.count('\n') == 1
  assert {(command, name) for _, command, name in lists} == {
      ('compare', 'uplink'), ('compare', 'downlink'), ('compare', 'recipe'), ('encoder', 'examples'),
      *((command, 'autoencoder') for command in ('run', 'compare', 'inspect', 'plan', 'encoder', 'decoder'))}


# Commands in an interpreter that cannot find some packages.
WITHOUT = """if True:
    import sys
    sys.path.insert(0, {root!r})
    class Absent:
      def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {absent!r}:
          raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
    sys.meta_path.insert(0, Absent())
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name in {absent!r} else found(name)
    from tff_compress import cli
    from tflite_export import cli as export_cli
    for main, arguments in {commands!r}:
      code = (cli if main == 'tff-compress' else export_cli).main(arguments)
      print(code, file=sys.stderr)
"""


@pytest.mark.thorough
@pytest.mark.parametrize('absent, commands, says', [
    (('tensorflow', 'tensorflow_federated', 'sklearn', 'ai_edge_litert'), [
        ('tff-compress', ['run']), ('tff-compress', ['compare', '--uplink', 'int8']), ('tff-compress', ['demo'])],
     "needs tensorflow_federated, which is not installed: install the extra 'tff'"),
    (('tensorflow', 'tensorflow_federated', 'sklearn', 'ai_edge_litert'), [
        ('tflite-export', [command, 'model.keras', '-o', 'x']) for command in ('training', 'inference')] + [
            ('tflite-export', ['plan', 'model.keras', '--uplink', 'int8', '-o', 'x']),
            ('tflite-export', ['encoder', 'int8', 'model.json', '-o', 'x']),
            ('tflite-export', ['compare', 'model.keras', '--data', 'x.npz'])],
     "needs tensorflow, which is not installed: install the extra 'tflite'"),
    (('tensorflow', 'tensorflow_federated'), [('tff-compress', ['fit-autoencoder', 'a.npz', '-o', 'x'])],
     "needs tensorflow, which is not installed: install the extra 'tff'"),
    (('ai_edge_litert',), [('tflite-export', ['check-edgetpu', 'x.tflite'])],
     "needs ai_edge_litert, which is not installed: install the extra 'tflite'"),
    (('matplotlib',), [('tff-compress', ['report', '.']), ('tff-compress', ['run', '--output', 'there-is-none'])],
     "needs matplotlib, which is not installed: install the extra 'plots'"),
    (('jinja2',), [('tff-compress', ['report', '.']), ('tff-compress', ['run', '--output', 'there-is-none'])],
     "needs jinja2, which is not installed: install the extra 'plots'"),
    (('yaml',), [('tff-compress', ['run', '--config', __file__])],
     "needs yaml, which is not installed: install the extra 'yaml'"),
])
def test_a_package_that_is_missing_is_one_sentence_with_the_extra_that_brings_it(absent, commands, says, tmp_path):
  code = WITHOUT.format(root=ROOT, absent=absent, commands=commands)
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False,
                        cwd=tmp_path)
  lines = done.stderr.splitlines()
  assert len(lines) == 2 * len(commands), done.stderr
  for (main, _), line, code in zip(commands, lines[::2], lines[1::2]):
    assert line.startswith(f'{main}: this ') and says in line and code == '2'
  assert not os.listdir(tmp_path)


def test_help_and_commands_of_the_core_need_numpy_alone():
  absent = ('tensorflow', 'tensorflow_federated', 'sklearn', 'ai_edge_litert', 'matplotlib', 'jinja2', 'yaml', 'h5py',
            'tqdm', 'scipy', 'grpc')
  commands = [(main.name, [name, '--help']) for main in (cli.PROGRAM, export_cli.PROGRAM) for name, *_ in main.commands]
  commands += [('tff-compress', ['codecs', 'drive']), ('tff-compress', ['codecs'])]
  code = WITHOUT.format(root=ROOT, absent=absent, commands=commands)
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)
  assert done.stderr.split() == ['0'] * len(commands)


def test_extras_bring_what_setup_says():
  with open(os.path.join(ROOT, 'setup.py'), encoding='utf-8') as file:
    text = file.read()
  for extra in extras.EXTRAS:
    assert f"    '{extra}': [" in text


@pytest.mark.parametrize('text, says', [
    ('clients_per_round is 6: use at most that many.', '--clients-per-round is 6: use at most that many.'),
    ('rounds must be at least 1.', '--rounds must be at least 1.'), ('there are 6 rounds.', 'there are 6 rounds.'),
    ('compile the model with one, or give loss=.', 'compile the model with one, or give --loss.'),
    ('use workers=1.', 'use --workers 1.'), ("a run with loss='mse', not 'x'.", "a run with --loss 'mse', not 'x'."),
    ('remove it, or give overwrite=True.', 'remove it, or give --overwrite.'),
    ('/a/clients_per_round is no file: x:loss=1 in clients_per_round/a.',
     '/a/clients_per_round is no file: x:loss=1 in clients_per_round/a.'),
    ('y of train_data holds NaN.', 'y of x_train of --data holds NaN.'),
])
def test_errors_name_what_is_typed_and_not_what_python_calls_it(text, says):
  flags = {name: '--' + name.replace('_', '-')
           for name in ('clients_per_round', 'rounds', 'loss', 'workers', 'overwrite')}
  assert program.in_flags(text, flags, {'train_data': 'x_train of --data'}) == says


@pytest.fixture
def failing(monkeypatch):
  """Makes `codecs` raise what the test says."""
  def fail_with(error):
    def fail(as_json):
      del as_json
      raise error
    monkeypatch.setattr(codecs, 'list_all', fail)
  return fail_with


def test_bad_input_is_exit_code_2(failing, capsys):
  failing(CompressionError('the number\nmust be finite.'))
  assert cli.main(['codecs']) == 2
  assert capsys.readouterr().err == 'tff-compress: the number must be finite.\n'


def test_an_unexpected_error_is_one_sentence_and_says_how_to_see_more(failing, capsys):
  failing(RuntimeError('the roof\nis on fire'))
  assert cli.main(['codecs']) == 1
  said = capsys.readouterr().err
  assert said.count('\n') == 1 and 'RuntimeError: the roof is on fire' in said and '--debug' in said


def test_a_file_that_the_system_refuses_is_named_with_the_reason(failing, capsys):
  failing(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), '/a/b'))
  assert cli.main(['codecs']) == 2
  assert capsys.readouterr().err == 'tff-compress: /a/b: Disk quota exceeded.\n'


@pytest.mark.thorough
@pytest.mark.parametrize('arguments', [['codecs'], ['codecs', '--json'], ['--help'], ['codecs', '--help']])
def test_output_that_has_no_room_is_one_sentence(arguments):
  with open('/dev/full', 'wb') as full:
    done = subprocess.run([sys.executable, '-m', 'tff_compress.cli', *arguments], stdout=full, stderr=subprocess.PIPE,
                          check=False, timeout=120)
  assert done.returncode == 2
  assert done.stderr == b'tff-compress: standard output cannot be written: No space left on device.\n'


@pytest.mark.parametrize('error', [RuntimeError('roof'), CompressionError('roof'), OSError(errno.EACCES, 'roof')])
def test_debug_shows_the_traceback(failing, error):
  failing(error)
  with pytest.raises(type(error), match='roof'):
    cli.main(['codecs', '--debug'])


def test_interrupt_is_130(failing, capsys):
  failing(KeyboardInterrupt())
  assert cli.main(['codecs']) == 130
  assert 'stopped' in capsys.readouterr().err


def run(code):
  return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False)


def test_commands_that_do_not_train_import_neither_tensorflow_nor_matplotlib():
  code = """if True:
      import sys
      from tff_compress import cli
      for arguments in (['--help'], ['--version'], ['run', '--help'], ['compare', '--help'], ['codecs'],
                        ['codecs', 'eden'],
                        ['inspect', 'missing'], ['run', '--rounds', 'nan'], ['run', '--uplink', 'hadamrd']):
        cli.main(arguments)
      heavy = {'tensorflow', 'tensorflow_federated', 'matplotlib', 'jax', 'pandas', 'sklearn', 'yaml', 'scipy'}
      heavy &= set(sys.modules)
      sys.exit(f'imported: {heavy}' if heavy else 0)
  """
  done = run(code)
  assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_not_an_error():
  # 'true' reads nothing, so that the first write already fails or, at the latest, the last flush.
  for arguments in ('codecs', '--help'):
    done = subprocess.run(['bash', '-c',
                           f'"{sys.executable}" -m tff_compress.cli {arguments} | true; exit ${{PIPESTATUS[0]}}'],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ''
    assert done.returncode in (0, 141)
