"""What every command promises: exit codes, one sentence per error, quiet ends, and no TensorFlow where none is needed."""

import subprocess
import sys

import pytest

import tff_compress
from tff_compress import cli
from tff_compress.cli import codecs
from tff_compress.codec.errors import CompressionError

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
])
def test_unknown_words_are_one_sentence_with_the_nearest(arguments, says, capsys):
  assert cli.main(arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1 and says in captured.err


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


@pytest.mark.parametrize('error', [RuntimeError('roof'), CompressionError('roof')])
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
      for arguments in (['--help'], ['--version'], ['run', '--help'], ['compare', '--help'], ['codecs'], ['codecs', 'eden'],
                        ['inspect', 'missing'], ['run', '--rounds', 'nan'], ['run', '--uplink', 'hadamrd']):
        cli.main(arguments)
      heavy = {'tensorflow', 'tensorflow_federated', 'matplotlib', 'jax', 'pandas', 'sklearn', 'yaml', 'scipy'} & set(sys.modules)
      sys.exit(f'imported: {heavy}' if heavy else 0)
  """
  done = run(code)
  assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_not_an_error():
  # 'true' reads nothing, so that the first write already fails or, at the latest, the last flush.
  for arguments in ('codecs', '--help'):
    done = subprocess.run(['bash', '-c', f'"{sys.executable}" -m tff_compress.cli {arguments} | true; exit ${{PIPESTATUS[0]}}'],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ''
    assert done.returncode in (0, 141)
