"""What the README and the guides show is true: examples run, commands are valid, links lead somewhere, figures are
measured."""

import json
import pathlib
import re
import shlex
import types

import pytest

from tests import needs
from tests.simulation import finished_runs
from tff_compress import cli
from tff_compress import codec as codec_lib
from tff_compress.cli import codecs
from tff_compress.cli import specs
from tff_compress.cli import training
from tff_compress.codec import artefacts
from tff_compress.codec import network
from tff_compress.codec import presets
from tff_compress.codec.errors import CompressionError
from tff_compress.processes import methods
from tff_compress.processes.figures import CLIENT_STATES
from tff_compress.simulation import config as config_lib
from tff_compress.simulation import config_file
from tff_compress.simulation import report
from tff_compress.simulation import run as run_lib
from tff_compress.simulation.report import table
from tflite_export import cli as tflite_cli

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])


def blocks(language, documents=None):
  """[(name, text)] of the fenced blocks of a language."""
  found = []
  for path in documents or DOCUMENTS:
    for match in re.finditer(rf'^```{language}\n(.*?)^```$', path.read_text(encoding='utf-8'),
                             re.MULTILINE | re.DOTALL):
      line = path.read_text(encoding='utf-8')[:match.start()].count('\n') + 1
      found.append(pytest.param(match[1], id=f'{path.name}:{line}'))
  return found


def is_light(text):
  """Whether an example runs by itself and at once: without training, and without other files of a guide."""
  return not re.search(r'tensorflow|keras|simulation|tflite|memories\.', text)


PYTHON = blocks('python')
README_PYTHON = blocks('python', [ROOT / 'README.md'])


def test_there_is_something_to_test():
  assert len(README_PYTHON) >= 3 and len(blocks('console')) >= 3
  assert sum(is_light(block.values[0]) for block in README_PYTHON) >= 1


@pytest.mark.parametrize('text', PYTHON)
def test_python_compiles(text):
  compile(text, 'example', 'exec')


def marked(block):
  """The block with the marker of what it needs."""
  return pytest.param(*block.values, id=block.id, marks=getattr(pytest.mark, needs.of_text(*block.values)))


@pytest.mark.parametrize('text', [marked(block) for block in PYTHON if is_light(block.values[0])])
def test_light_examples_run(text):
  # Dataclasses look their module up by name.
  module = types.ModuleType('example')
  exec(compile(text, 'example', 'exec'), module.__dict__)


@pytest.mark.xdist_group('tff')
@pytest.mark.parametrize('text', [block for block in README_PYTHON if not is_light(block.values[0])])
def test_training_examples_of_the_readme_run(text, tff_runtime, monkeypatch, capsys):
  from tff_compress import runtime
  monkeypatch.setattr(runtime, 'install', lambda: tff_runtime, raising=False)  # There is one in this process already.
  exec(compile(text, 'example', 'exec'), types.ModuleType('example').__dict__)
  assert capsys.readouterr().out


@pytest.mark.parametrize('line', [line for block in blocks('console') for line in block.values[0].splitlines()])
def test_commands_are_valid(line, tmp_path, monkeypatch):
  """Trains nothing: it stops where training would start."""
  started = []
  monkeypatch.setattr(run_lib, 'compare', lambda configs, **unused: started.extend(configs) or [])
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'run.yaml').write_text('rounds: 1')
  artefacts.save(network.cosine(8, 2), str(tmp_path / 'updates.autoencoder'))
  prompt, command, *arguments = shlex.split(line)
  assert prompt == '$'
  if command == 'tflite-export':
    tflite_cli.PROGRAM.parse(arguments)
    return
  assert command == 'tff-compress'
  if arguments[0] in ('run', 'compare'):
    try:
      code = cli.main([*arguments, '--debug'])
    except (ValueError, CompressionError):
      code = None  # Nothing came back from training.
    assert code is None and started
  elif arguments[0] in ('serve', 'device', 'replay'):
    cli.PROGRAM.parse(arguments)
  elif arguments[0] in ('inspect', 'fit-autoencoder'):
    if '--codec' in arguments:
      codec_lib.parse(arguments[arguments.index('--codec') + 1])
    with pytest.raises(CompressionError, match='No such file'):
      cli.main([*arguments, '--debug'])
  else:
    assert cli.main(arguments) == 0


@pytest.mark.parametrize('name', [*presets.registry(), *methods.registry()])
def test_commands_of_presets_and_methods_are_valid(name, tmp_path, monkeypatch):
  test_commands_are_valid('$ ' + codecs.entry(name).command, tmp_path, monkeypatch)


@pytest.mark.parametrize('text', blocks('yaml'))
def test_yaml_examples_are_settings(text, tmp_path):
  (tmp_path / 'run.yaml').write_text(text)
  config_lib.make(config_file.load_yaml(str(tmp_path / 'run.yaml')))


@pytest.mark.parametrize('text', [block for block in blocks('json') if '"variables"' in block.values[0]])
def test_json_examples_are_specs(text, tmp_path):
  (tmp_path / 'spec.json').write_text(text)
  assert len(specs.read_spec(str(tmp_path / 'spec.json')).tensors) == len(json.loads(text)['variables'])


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
  for target in re.findall(r'\]\(([^)#]+)[^)]*\)', path.read_text(encoding='utf-8')):
    if not target.startswith('http'):
      assert (path.parent / target).exists(), target


def test_codecs_in_the_guide_are_valid():
  text = (ROOT / 'docs' / 'choosing-a-codec.md').read_text(encoding='utf-8')
  for codec in re.findall(r'`([^`\n…]*(?: \\?\| | => )[^`\n…]*)`', text):
    codec_lib.parse(codec.replace('\\|', '|'))


def test_presets_of_the_readme_exist_and_cost_what_it_says():
  rows = re.findall(r'^\| `([a-z0-9-]+)` \| ([0-9.]+) \| (.+) \|$', (ROOT / 'README.md').read_text(encoding='utf-8'),
                    re.MULTILINE)
  names = [name for name, _, _ in rows]
  assert len(names) >= 5 and names == sorted(names) and set(names) <= set(presets.registry())
  for name, bits, _ in rows:
    assert bits == f'{codecs.entry(name).bits_per_parameter:.3f}', name


def test_demo_of_the_readme_is_what_the_demo_prints():
  """But for its figures, which depend on the machine."""
  series = report.summarize([finished_runs.run(*links, settings=training.DEMO, figures=_figures(links[0]))
                             for links in training.DEMO_LINKS])
  text = next(block.values[0] for block in blocks('text', [ROOT / 'README.md']) if '\nuplink ' in block.values[0])
  shown = next(line for line in text.splitlines() if line.startswith('uplink '))
  assert re.split(r'  +', shown) == table.rows(series)[0], 'put what `make demo` prints into README.md'
  assert table.caption(series) in ' '.join(text.split())


def _figures(uplink):
  """{name: 1} of what a method measures beside what all do."""
  method = methods.method(uplink)
  return {figure.name: 1 for figure in (*method.figures, *([] if method.codec_suffices else [CLIENT_STATES]))}


def test_no_placeholders_are_left():
  for path in DOCUMENTS:
    assert not re.search(r'\bTODO\b|\bTBD\b|[A-Z]+_[A-Z_]*(?:TABLE|OUTPUT)\b', path.read_text(encoding='utf-8')), path
