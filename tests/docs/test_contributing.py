"""CONTRIBUTING.md names what is there: every file, folder, test and command."""

import itertools
import pathlib
import re

import pytest

import tff_compress

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')

FOLDERS = ('tff_compress', 'tflite_export', 'tests', 'docs', 'benchmarks', 'golden', 'contract', 'wire')


def _rows():
  """(what is added, files, tests, documents) of the table of what can be added."""
  table = TEXT.partition('| to add |')[2].partition('\n\n')[0]
  return [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines()[2:]]


def _paths(text):
  """Patterns of the paths in a text: `a/{b,c}/NAME.py` is a/b/*.py and a/c/*.py."""
  for path in re.findall(r'`([\w.]+/[\w./{},-]*)`', text):
    parts = [part.split(',') for part in re.split(r'[{}]', path)]
    yield from (''.join(part).replace('NAME', '*') for part in itertools.product(*parts))


def _exists(pattern):
  return any(any(folder.glob(pattern.rstrip('/'))) for folder in (ROOT, ROOT / 'tff_compress', ROOT / 'tests'))


def test_every_path_is_there():
  found = set(_paths(TEXT))
  assert len(found) > 25 and not [pattern for pattern in found if not _exists(pattern)]


@pytest.mark.parametrize('row', _rows(), ids=lambda row: row[0])
def test_what_can_be_added_has_files_tests_and_a_document(row):
  _, files, tests, documents = row
  assert list(_paths(files)) and all(_exists(pattern) for pattern in _paths(files))
  found = list(_paths(tests))
  assert found and all(re.fullmatch(r'tests/.*/test_\w+\.py', path) and (ROOT / path).is_file() for path in found)
  links = re.findall(r'\]\(([^)#]+)', documents)
  assert links and all((ROOT / link).is_file() for link in links)


def test_every_command_is_one():
  targets = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE))
  named = set(re.findall(r'`make ([a-z]+)', TEXT))
  assert {'fast', 'lint', 'docs', 'test', 'setup'} <= named <= targets


def test_the_changelog_keeps_its_form():
  text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  releases = re.findall(r'^## (.*)$', text, re.MULTILINE)
  assert all(re.fullmatch(r'\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d', release) for release in releases[1:])
  assert releases[0] == '[Unreleased]' or releases[0].startswith(f'[{tff_compress.__version__}] - ')
  assert set(re.findall(r'^### (.*)$', text, re.MULTILINE)) <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed',
                                                                'Security'}


def test_pages_on_adding_something_are_named():
  for page in sorted((ROOT / 'docs').glob('adding-*.md')):
    assert f'(docs/{page.name})' in TEXT, page.name
