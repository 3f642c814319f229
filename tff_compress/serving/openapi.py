"""The OpenAPI description of the protocol, made from its messages. `python -m tff_compress.serving.openapi` prints it;
docs/openapi.json is a copy, and the server answers with it under `/v1/openapi.json`.
"""

import json
from typing import Any

from tff_compress.serving import protocol

JSON = 'application/json'
OCTETS = 'application/octet-stream'
PARTIAL = 'application/partial-upload'


def _name(message: type[protocol.Message]) -> dict[str, str]:
  return {'$ref': f'#/components/schemas/{message.__name__}'}


def _answer(text: str, schema: Any = None, kind: str = JSON, headers: dict[str, Any] | None = None) -> dict[str, Any]:
  found: dict[str, Any] = {'description': text}
  if schema is not None:
    found['content'] = {kind: {'schema': schema}}
  if headers:
    found['headers'] = headers
  return found


def _problems(*statuses: int) -> dict[str, Any]:
  return {str(status): _answer('a problem', _name(protocol.Problem), 'application/problem+json')
          for status in sorted({*statuses, 503})}


def _header(name: str, schema: dict[str, Any], text: str, required: bool = True) -> dict[str, Any]:
  return {'name': name, 'in': 'header', 'required': required, 'schema': schema, 'description': text}


def _body(schema: Any, kind: str = JSON) -> dict[str, Any]:
  return {'required': True, 'content': {kind: {'schema': schema}}}


_BOOLEAN = {'type': 'string', 'enum': ['?0', '?1']}
_OFFSET = {'type': 'integer', 'minimum': 0}
_BYTES = {'type': 'string', 'format': 'binary'}
_COMPLETE = _header('Upload-Complete', _BOOLEAN, '?1 where this is the last part')
_DIGEST = _header('Content-Digest', {'type': 'string'}, 'sha-256 of the part, RFC 9530')
_PROGRESS = {name: {'schema': schema, 'description': text} for name, schema, text in (
    ('Upload-Offset', _OFFSET, 'how many bytes are there'), ('Upload-Complete', _BOOLEAN, 'whether these are all'))}
_LEASE = {'name': 'lease', 'in': 'path', 'required': True, 'schema': protocol.SECRET.schema,
          'description': 'of the assignment'}
_SHA256 = {'name': 'sha256', 'in': 'path', 'required': True, 'schema': protocol.SHA256.schema,
           'description': 'of the blob'}


def _operations() -> dict[str, dict[str, Any]]:
  """{path: {method: operation}}."""
  receipt = _answer('the receipt', _name(protocol.Receipt))
  free: dict[str, Any] = {'security': []}
  return {
      '/v1/devices': {'post': {
          'summary': 'enrol', **free, 'requestBody': _body(_name(protocol.Enrolment)),
          'responses': {'201': _answer('the tokens', _name(protocol.Tokens)), **_problems(400, 403, 408, 413)}}},
      '/v1/tokens': {'post': {
          'summary': 'renew tokens', **free, 'requestBody': _body(_name(protocol.Renewal)),
          'responses': {'200': _answer('the tokens', _name(protocol.Tokens)), **_problems(400, 401, 408, 413)}}},
      '/v1/checkin': {'post': {
          'summary': 'check in', 'requestBody': _body(_name(protocol.CheckIn)),
          'responses': {'200': _answer('what to do', {'oneOf': [_name(kind) for kind in protocol.ANSWERS]}),
                        **_problems(400, 401, 408, 413)}}},
      '/v1/blobs/{sha256}': {'parameters': [_SHA256], 'get': {
          'summary': 'fetch a file of the plan or a message that leads to a model',
          'parameters': [_header('Range', {'type': 'string'}, 'one range of bytes', False),
                         _header('If-None-Match', {'type': 'string'}, 'the SHA-256, in quotes', False)],
          'responses': {'200': _answer('the bytes', _BYTES, OCTETS), '206': _answer('some of them', _BYTES, OCTETS),
                        '304': _answer('it is held already'), **_problems(401, 404, 416)}}},
      '/v1/uploads/{lease}': {
          'parameters': [_LEASE],
          'post': {
              'summary': 'send an update, or its first part', 'parameters': [_COMPLETE, _DIGEST],
              'requestBody': _body(_BYTES, f'{protocol.FRAME_TYPE}; fingerprint=01020304; examples=52'),
              'responses': {'200': receipt, '201': _answer('the part is there', headers=_PROGRESS),
                            **_problems(400, 401, 404, 408, 413, 415)}},
          'patch': {
              'summary': 'send the next part',
              'parameters': [_COMPLETE, _DIGEST, _header('Upload-Offset', _OFFSET, 'where the part begins')],
              'requestBody': _body(_BYTES, PARTIAL),
              'responses': {'200': receipt, '204': _answer('the part is there', headers=_PROGRESS),
                            **_problems(400, 401, 404, 408, 409, 413, 415)}},
          'head': {'summary': 'how far an upload came',
                   'responses': {'204': _answer('so far', headers=_PROGRESS), '401': _answer('no token'),
                                 '404': _answer('no lease'), '503': _answer('busy')}},
          'get': {'summary': 'the receipt', 'responses': {'200': receipt, **_problems(401, 404)}}},
      '/v1/reports': {'post': {
          'summary': 'report how it went', 'requestBody': _body(_name(protocol.Report)),
          'responses': {'204': _answer('noted'), **_problems(400, 401, 404, 408, 413)}}},
      '/v1/rounds': {'get': {'summary': 'the rounds', **free, 'responses': {
          '200': _answer('as the status page shows them', {'type': 'object'}), **_problems()}}},
      '/v1/openapi.json': {'get': {'summary': 'this description', **free, 'responses': {
          '200': _answer('OpenAPI 3.1', {'type': 'object'})}}},
      '/healthz': {'get': {'summary': 'whether the process answers', **free, 'responses': {
          '200': _answer('ok', {'type': 'string'}, 'text/plain')}}},
      '/readyz': {'get': {'summary': 'whether its database answers', **free, 'responses': {
          '200': _answer('ready', {'type': 'string'}, 'text/plain'), **_problems()}}},
      '/': {'get': {'summary': 'the status page', **free, 'responses': {
          '200': _answer('a page', {'type': 'string'}, 'text/html'), **_problems()}}},
  }


def description() -> dict[str, Any]:
  """OpenAPI 3.1."""
  return {
      'openapi': '3.1.0',
      'info': {'title': 'tff-compress', 'version': protocol.PATH.removeprefix('/'),
               'description': 'Devices that train with compressed updates: docs/protocol.md.'},
      'security': [{'token': []}],
      'paths': _operations(),
      'components': {
          'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
          'schemas': {message.__name__: {**message.schema(), 'description': message.__doc__}
                      for message in protocol.MESSAGES}},
  }


def text() -> str:
  """As docs/openapi.json has it."""
  return json.dumps(description(), indent=1, ensure_ascii=False) + '\n'


if __name__ == '__main__':
  print(text(), end='')
