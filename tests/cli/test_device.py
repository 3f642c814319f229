"""`tff-compress device`, `serve` and `replay`: what is wrong is one sentence, and nothing is half-written."""

import os
import socket
import sys

import pytest

from tff_compress.cli import extras
from tff_compress.cli import main
from tff_compress.serving import server


def said(capsys, *arguments):
  assert main(list(arguments)) == 2
  text = capsys.readouterr().err
  assert text.count('\n') == 1, text
  return text


@pytest.mark.parametrize('arguments, sentence', [
    (['http://example.org', '--data', 'digits:client=0,of=2'], 'use https'),
    (['example.org', '--data', 'digits:client=0,of=2'], 'no address'),
    (['http://127.0.0.1:1', '--data', 'digits:client=2,of=2'], 'count from 0'),
    (['http://127.0.0.1:1', '--data', 'letters:client=0,of=2'], 'no data set'),
    (['http://127.0.0.1:1', '--data', 'digits:client=0,of=2', '--rounds', '0'], '--rounds must be'),
    (['http://127.0.0.1:1'], '--data must be given')])
def test_a_device_that_cannot_begin_says_why(capsys, tmp_path, monkeypatch, arguments, sentence):
  monkeypatch.chdir(tmp_path)
  assert sentence in said(capsys, 'device', *arguments)
  assert os.listdir(tmp_path) == []


def test_a_server_that_is_not_there_is_one_sentence_in_the_end(capsys, tmp_path):
  with socket.socket() as sock:
    sock.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{sock.getsockname()[1]}'
  assert main(['device', url, '--data', 'digits:client=0,of=20', '--patience', '0', '--code', 'ABCD', '--state',
               str(tmp_path / 'device')]) == 2
  assert f'{url} does not answer' in capsys.readouterr().err.splitlines()[-1]


def test_a_port_that_is_in_use_is_one_sentence():
  with socket.create_server(('127.0.0.1', 0)) as sock:
    with pytest.raises(server.ServerError, match='cannot be listened on.*--port'):
      server.listening('127.0.0.1', sock.getsockname()[1])


@pytest.mark.parametrize('command', ['serve', 'device', 'replay'])
def test_what_is_not_installed_is_named_with_its_extra(capsys, monkeypatch, command):
  absent = {'serve': 'starlette', 'device': 'ai_edge_litert', 'replay': 'sqlalchemy'}[command]
  real = extras.importlib.util.find_spec
  monkeypatch.setattr(extras.importlib.util, 'find_spec', lambda name: None if name == absent else real(name))
  arguments = {'serve': ['plan', '--model', 'm.keras'], 'device': ['http://127.0.0.1:1', '--data', 'digits'],
               'replay': ['folder']}[command]
  extra, before = 'tflite' if command == 'device' else 'serve', set(sys.modules)
  assert f'this needs {absent}, which is not installed: install the extra {extra!r}' in said(
      capsys, command, *arguments)
  assert 'tensorflow_federated' not in set(sys.modules) - before


def test_replay_needs_the_folder_of_a_server(capsys, tmp_path):
  assert 'no folder of a server' in said(capsys, 'replay', str(tmp_path))
  assert os.listdir(tmp_path) == []
