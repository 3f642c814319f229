"""The OpenAPI description is that of the code, and says what the front answers."""

import json
import pathlib

import jsonschema
import pytest

from tests.serving import tasks
from tests.serving.test_front import Client
from tests.serving.test_front import CODE
from tff_compress.serving import front
from tff_compress.serving import openapi
from tff_compress.serving.aggregator import open_store

COPY = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'openapi.json'


@pytest.fixture
def app(tmp_path):
  store = open_store(str(tmp_path))
  yield front.application(tasks.begin(store), CODE)
  store.close()


def test_the_copy_is_the_description():
  again = 'python -m tff_compress.serving.openapi > docs/openapi.json'
  assert COPY.read_text(encoding='utf-8') == openapi.text(), again


def test_every_route_is_described_and_nothing_else(app):
  routes = {(route.path, method.lower()) for route in app.routes for method in route.methods if method != 'HEAD'}
  described = {(path, method) for path, methods in openapi.description()['paths'].items() for method in methods
               if method not in ('parameters', 'head')}
  assert routes == described


def test_answers_are_those_that_are_described(app):
  """Each path asked without a token and without a body: a status that is named there, and its schema."""
  schemas = openapi.description()
  with tasks.serving(app) as port:
    client = Client(port)
    for path, methods in schemas['paths'].items():
      for method, operation in methods.items():
        if method in ('parameters', 'head'):
          continue
        status, headers, data = client(method.upper(), path.format(sha256='0' * 64, lease='l' * 32))
        answer = operation['responses'][str(status)]
        kind = headers['content-type'].partition(';')[0]
        assert kind in answer['content'], (path, method)
        if 'json' in kind:
          jsonschema.Draft202012Validator({**answer['content'][kind]['schema'], 'components': schemas['components']}
                                          ).validate(json.loads(data))
