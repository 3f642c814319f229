"""HTTP: check-ins, blobs, uploads, receipts and reports, as docs/protocol.md says, and a page to look at.

Nothing is kept here: several fronts may run on one store. What a request may be is looked at before its body is read,
bodies have a limit while they are read, and what computes runs in a few threads, for which a few requests may wait.
"""

import asyncio
import base64
from collections.abc import Awaitable
from collections.abc import Callable
import functools
import hashlib
import hmac
import os
import re
from typing import Any
from typing import TypeVar

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.responses import JSONResponse
from starlette.responses import PlainTextResponse
from starlette.responses import Response
from starlette.routing import Route

from tff_compress import pages
from tff_compress.serving import aggregator
from tff_compress.serving import messages
from tff_compress.serving import openapi
from tff_compress.serving import protocol
from tff_compress.serving.blobs import BlobError
from tff_compress.serving.store import Denied
from tff_compress.serving.store import Lease
from tff_compress.timeline import history
from tff_compress.timeline.timeline import Timeline

TEMPLATES = os.path.join(os.path.dirname(__file__), 'templates')

THREADS = 4
"""That look at the store, and judge frames."""

WAITING = 256
"""Requests that may wait for these threads; one more is told to come again."""

BODY_SECONDS = 120.0
"""In which a body has to be there."""

COME_BACK = (1.0, 5.0)
"""Seconds from now in which a device asks again, where nothing is to be done."""

_T = TypeVar('_T')


class Refused(Exception):
  """An answer that is a problem of RFC 9457."""

  def __init__(self, status: int, name: str, title: str, headers: dict[str, str] | None = None, **more: Any) -> None:
    super().__init__(title)
    self.status, self.headers, self.more = status, headers or {}, more
    self.problem = protocol.Problem(
        type=name if ':' in name else protocol.PROBLEMS + name, title=title, status=status)

  def response(self) -> Response:
    return JSONResponse({**self.problem.as_dict(), **self.more}, self.status, self.headers, 'application/problem+json')


def application(task: aggregator.Task, code: str, changed: Callable[[], None] = lambda: None) -> Starlette:
  """The application of a task.

  Args:
    task: what devices work at.
    code: with which they enrol.
    changed: called, from any thread, when an upload was accepted, so that the aggregator need not wait.
  """
  front = _Front(task, code, changed)
  routes = [
      ('/v1/devices', front.enrol, ['POST']), ('/v1/tokens', front.renew, ['POST']),
      ('/v1/checkin', front.check_in, ['POST']), ('/v1/blobs/{sha256}', front.blob, ['GET']),
      ('/v1/uploads/{lease}', front.upload, ['POST']), ('/v1/uploads/{lease}', front.append, ['PATCH']),
      ('/v1/uploads/{lease}', front.receipt, ['GET']), ('/v1/reports', front.report, ['POST']),
      ('/v1/rounds', front.rounds, ['GET']), ('/v1/openapi.json', front.openapi, ['GET']),
      ('/healthz', front.healthy, ['GET']), ('/readyz', front.ready, ['GET']), ('/', front.page, ['GET'])]
  return Starlette(routes=[Route(path, _answering(function), methods=methods) for path, function, methods in routes],
                   exception_handlers={404: _plain, 405: _plain})


def _answering(function: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
  """An endpoint whose errors are problems."""
  async def answer(request: Request) -> Response:
    try:
      return await function(request)
    except Refused as refused:
      response = refused.response()
    except messages.MessageError as error:
      response = Refused(400, 'message', _sentence(error)).response()
    except Denied as error:
      response = Refused(401, 'denied', _sentence(error), {'WWW-Authenticate': 'Bearer'}).response()
    except ClientDisconnect:
      response = Refused(400, 'cut-short', 'The body was cut short.').response()
    if request.method not in ('GET', 'HEAD'):
      response.headers['Connection'] = 'close'  # Whatever is left of the body is not read.
    return response
  return answer


async def _plain(request: Request, error: Any) -> Response:
  return Refused(error.status_code, 'about:blank', error.detail, dict(error.headers or {})).response()


def _sentence(error: Exception) -> str:
  return ''.join(c if c.isprintable() else '?' for c in str(error))[:1000]


class _Front:
  """The endpoints."""

  def __init__(self, task: aggregator.Task, code: str, changed: Callable[[], None]) -> None:
    self._task, self._store, self._code, self._changed = task, task.store, code, changed
    self._limiter = anyio.CapacityLimiter(THREADS)
    manifest = task.manifest
    self._files = [protocol.Item(role=role, sha256=entry['sha256'], bytes=entry['bytes'])
                   for role, entry in manifest['files'].items() if role != 'inference']
    self._plan = protocol.Item(role='plan', sha256=task.plan, bytes=self._store.public.size(task.plan))
    self._ways: dict[tuple[str, int], protocol.Item] = {}
    # That of the present round is asked for in every check-in, and a digest stands for the same bytes for good.
    self._timeline = functools.lru_cache(maxsize=2)(
        lambda digest: Timeline.from_bytes(self._store.blobs.get(digest)))

  async def _run(self, function: Callable[..., _T], *arguments: Any) -> _T:
    """A function in one of the threads."""
    if self._limiter.statistics().tasks_waiting >= WAITING:
      raise Refused(503, 'busy', 'The server is busy.', {'Retry-After': '5'})
    return await anyio.to_thread.run_sync(functools.partial(function, *arguments), limiter=self._limiter)

  async def _device(self, request: Request) -> str:
    scheme, _, token = request.headers.get('authorization', '').partition(' ')
    if scheme.lower() != 'bearer' or re.fullmatch(r'[A-Za-z0-9_-]{22,64}', token) is None:
      raise Denied('an access token is missing: Authorization: Bearer.')
    return await self._run(self._store.device_of, token)

  async def _message(self, request: Request, kind: type[protocol.Message]) -> Any:
    return kind.read(await _body(request, messages.LARGEST))

  # Devices.

  async def enrol(self, request: Request) -> Response:
    enrolment = await self._message(request, protocol.Enrolment)
    if not hmac.compare_digest(enrolment.code.encode(), self._code.encode()):
      await asyncio.sleep(0.5)  # Who tries codes is to take long.
      raise Refused(403, 'wrong-code', 'The enrolment code is not the one that the server printed.')
    return _json(await self._run(self._store.enrol), 201)

  async def renew(self, request: Request) -> Response:
    return _json(await self._run(self._store.renew, (await self._message(request, protocol.Renewal)).refresh))

  async def check_in(self, request: Request) -> Response:
    device = await self._device(request)
    return _json(await self._run(self._answer, device, await self._message(request, protocol.CheckIn)))

  def _answer(self, device: str, asked: protocol.CheckIn) -> protocol.Answer:
    task, needed = self._task, self._task.manifest['min_runtime_version']
    if protocol.newer(needed, asked.runtime):
      return protocol.CannotTakePart(reason=protocol.Refusal.RUNTIME_TOO_OLD)
    if asked.memory is not None and asked.memory < 8 * 4 * task.spec.parameters:
      return protocol.CannotTakePart(reason=protocol.Refusal.TOO_LITTLE_MEMORY)
    lease = self._store.assign(task.task, device, asked.version)
    if lease is None:
      if self._store.task(task.task)['state'] == 'finished':
        return protocol.CannotTakePart(reason=protocol.Refusal.FINISHED)
      return protocol.ComeBack(not_before=COME_BACK[0], not_after=COME_BACK[1])
    model, version = self._way(lease.round, asked)
    has_plan = asked.plan == task.plan
    return protocol.Assignment(
        task=task.task, round=lease.round, client=lease.client, seed=f'{task.seed:016x}', plan=task.plan,
        version=version, fetch=(*(() if has_plan else (self._plan, *self._files)), model),
        fingerprint=task.rules.fingerprint, epochs=task.settings.epochs, learning_rate=task.settings.learning_rate,
        weighting=protocol.Weighting(task.settings.weighting),
        lease=lease.lease, seconds=max(0.0, lease.expires - self._store.clock()), upload=f'/v1/uploads/{lease.lease}')

  def _way(self, round: int, asked: protocol.CheckIn) -> tuple[protocol.Item, int]:
    """(the message that leads a device to the model of a round, its version)"""
    digest = self._store.round(self._task.task, round)['timeline']
    timeline = self._timeline(digest)
    try:
      timeline.check(asked.version, None if asked.digest is None else bytes.fromhex(asked.digest))
      held = asked.version if asked.version == timeline.version else history.UNKNOWN
    except history.VersionError:
      held = history.UNKNOWN  # It holds a model of another run: it gets all of this one.
    if (digest, held) not in self._ways:
      message = timeline.way(held)
      if len(self._ways) > 100:
        self._ways.clear()
      self._ways[digest, held] = protocol.Item(role='model', sha256=self._store.public.put(message), bytes=len(message))
    return self._ways[digest, held], timeline.version

  async def blob(self, request: Request) -> Response:
    await self._device(request)
    digest = request.path_params['sha256']
    if re.fullmatch('[0-9a-f]{64}', digest) is None:
      raise Refused(404, 'no-blob', 'There is no such blob.')
    headers = {'ETag': f'"{digest}"', 'Cache-Control': 'public, max-age=31536000, immutable', 'Accept-Ranges': 'bytes'}
    if f'"{digest}"' in re.split(r'\s*,\s*', request.headers.get('if-none-match', '')):
      return Response(status_code=304, headers=headers)
    try:
      size = await self._run(self._store.public.size, digest)
      start, stop = _range(request.headers.get('range'), size)
      data = await self._run(self._store.public.get, digest, start, stop)
    except BlobError:
      raise Refused(404, 'no-blob', 'There is no such blob.') from None
    if (start, stop) != (0, None):
      headers['Content-Range'] = f'bytes {start}-{start + len(data) - 1}/{size}'
      return Response(data, 206, headers, 'application/octet-stream')
    headers['Repr-Digest'] = f'sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:'
    return Response(data, 200, headers, 'application/octet-stream')

  # Uploads.

  async def _lease(self, request: Request) -> Lease:
    device = await self._device(request)
    lease = request.path_params['lease']
    if re.fullmatch(r'[A-Za-z0-9_-]{22,64}', lease) is None:
      raise Refused(404, 'no-lease', 'This device has no such lease.')
    try:
      return await self._run(self._store.lease, lease, device)
    except Denied:
      raise Refused(404, 'no-lease', 'This device has no such lease.') from None

  async def upload(self, request: Request) -> Response:
    lease = await self._lease(request)
    last = _boolean(request, 'upload-complete')
    kind, _, parameters = request.headers.get('content-type', '').partition(';')
    said = dict(re.findall(r';\s*([a-z]{1,20})="?([0-9a-z]{1,20})"?\s*(?=;|$)', f';{parameters}'[:200]))
    if kind.strip().lower() != protocol.FRAME_TYPE:
      raise Refused(415, 'media-type', f'An upload has the media type {protocol.FRAME_TYPE}.')
    if said.get('fingerprint') != self._task.rules.fingerprint:
      raise Refused(415, 'other-model', 'The fingerprint is missing, or of another codec or model.')
    examples = said.get('examples', '1' if self._task.settings.weighting == protocol.Weighting.UNIFORM else '')
    if re.fullmatch('[1-9][0-9]{0,9}', examples) is None or int(examples) > protocol.MOST_EXAMPLES:
      raise Refused(415, 'examples', 'The media type does not say how many examples the update is made of.')
    weight = self._task.settings.weight(int(examples))
    receipt = await self._run(self._store.receipt, lease.lease)
    if receipt is not None:
      return self._decided(receipt)
    if lease.upload == 'complete':
      return await self._decide(lease)
    data = await self._part(request, 0)
    if lease.upload == 'partial':
      await self._run(self._store.begin_upload, lease.lease)
    if last:
      return await self._decide(lease, data, weight)
    found = await self._run(self._store.append, lease.lease, 0, data, False, weight)
    return Response(status_code=201, headers={'Location': request.url.path, **self._headers(found)})

  async def append(self, request: Request) -> Response:
    if request.headers.get('content-type') != 'application/partial-upload':
      raise Refused(415, 'media-type', 'A part has the media type application/partial-upload.')
    lease = await self._lease(request)
    last, offset = _boolean(request, 'upload-complete'), _whole(request, 'upload-offset')
    receipt = await self._run(self._store.receipt, lease.lease)
    if receipt is not None:
      return self._decided(receipt)
    if offset == lease.sent and lease.upload in ('none', 'partial'):
      data = await self._part(request, offset)
      lease = await self._run(self._store.append, lease.lease, offset, data, last)
      if lease.sent != offset + len(data):
        raise self._mismatch(lease, offset)
    elif not (lease.upload == 'complete' and offset == lease.sent):
      raise self._mismatch(lease, offset)
    if lease.upload == 'complete':
      return await self._decide(lease)
    return Response(status_code=204, headers=self._headers(lease))

  async def receipt(self, request: Request) -> Response:
    """GET, and HEAD for how far an upload came."""
    lease = await self._lease(request)
    if request.method == 'HEAD':
      return Response(status_code=204, headers={**self._headers(lease), 'Cache-Control': 'no-store'})
    receipt = await self._run(self._store.receipt, lease.lease)
    if receipt is None and lease.upload == 'complete':
      return await self._decide(lease)
    if receipt is None:
      raise Refused(404, 'no-receipt', 'The upload is not whole yet.')
    return self._decided(receipt)

  async def _part(self, request: Request, offset: int) -> bytes:
    """The body of a part that begins at an offset, checked."""
    largest = self._task.rules.largest
    data = await _body(request, largest - offset)
    if _digest(request) != hashlib.sha256(data).digest():
      raise Refused(400, 'digest', 'The bytes are not those of Content-Digest: they were damaged on the way.')
    return data

  async def _decide(self, lease: Lease, data: bytes | None = None, weight: int | None = None) -> Response:
    receipt = await self._run(self._judge, lease, data, weight)
    if receipt.outcome == protocol.Outcome.ACCEPTED:
      self._changed()
    return self._decided(receipt)

  def _judge(self, lease: Lease, data: bytes | None, weight: int | None) -> protocol.Receipt:
    data = self._store.sent(lease.lease) if data is None else data
    return self._store.decide(lease.lease, data, self._task.rules.judge(data, lease.round, lease.client), weight)

  def _decided(self, receipt: protocol.Receipt) -> Response:
    return _json(receipt, headers={'Upload-Complete': '?1'})

  def _headers(self, lease: Lease) -> dict[str, str]:
    return {'Upload-Offset': str(lease.sent), 'Upload-Limit': f'max-size={self._task.rules.largest}',
            'Upload-Complete': '?1' if lease.upload in ('complete', 'decided') else '?0'}

  def _mismatch(self, lease: Lease, offset: int) -> Refused:
    if lease.upload in ('complete', 'decided'):
      return Refused(400, protocol.COMPLETED_PROBLEM, 'The upload is whole already.')
    return Refused(409, protocol.OFFSET_PROBLEM, 'The part does not begin where the upload ends.', self._headers(lease),
                   **{'expected-offset': lease.sent, 'provided-offset': offset})

  async def report(self, request: Request) -> Response:
    device = await self._device(request)
    report = await self._message(request, protocol.Report)
    try:
      await self._run(self._store.report, device, report)
    except Denied:
      raise Refused(404, 'no-lease', 'This device has no such lease.') from None
    return Response(status_code=204)

  # To read.

  async def rounds(self, request: Request) -> Response:
    return JSONResponse(await self._run(self._status))

  def _status(self) -> dict[str, Any]:
    task, store = self._task, self._store
    outcomes: dict[int, dict[str, int]] = {}
    for (number, outcome), count in store.outcomes(task.task).items():
      outcomes.setdefault(number, {})[outcome] = count
    now = store.clock()
    rounds = [{
        'round': row['round'], 'state': row['state'], 'accepted': row['accepted'], 'extended': row['extended'],
        'closed_by': row['closed_by'], 'outcomes': outcomes.get(row['round'], {}), 'bytes': row['bytes'],
        'seconds': (row['committed'] or now) - row['opened'], **{'figures': aggregator.figures(row)}}
              for row in store.rounds(task.task, 1000)]
    return {'task': task.task, 'state': store.task(task.task)['state'], 'of': task.settings.rounds,
            'goal': task.settings.goal, 'uplink': str(task.rules.codec), 'downlink': str(task.downlink),
            'float32_bytes': 4 * task.spec.parameters, 'rounds': rounds}

  async def openapi(self, request: Request) -> Response:
    return Response(openapi.text(), media_type='application/json')

  async def healthy(self, request: Request) -> Response:
    return PlainTextResponse('ok\n')

  async def ready(self, request: Request) -> Response:
    if not await self._run(self._store.ready):
      raise Refused(503, 'not-ready', 'The database does not answer.', {'Retry-After': '5'})
    return PlainTextResponse('ready\n')

  async def page(self, request: Request) -> Response:
    status = await self._run(self._status)
    html = await self._run(lambda: pages.render(TEMPLATES, 'status.html', status=status))
    return HTMLResponse(html, headers={'Cache-Control': 'no-store'})


def _json(message: protocol.Message, status: int = 200, headers: dict[str, str] | None = None) -> Response:
  return Response(message.to_bytes(), status, {'Cache-Control': 'no-store', **(headers or {})}, 'application/json')


async def _body(request: Request, limit: int) -> bytes:
  """The body, of at most so many bytes, in time; what is said to be longer is refused before it is read."""
  too_long = Refused(413, 'too-long', f'The body may have at most {max(0, limit)} bytes.')
  if 'content-length' in request.headers and _whole(request, 'content-length') > limit:
    raise too_long
  found = bytearray()
  try:
    async with asyncio.timeout(BODY_SECONDS):
      async for chunk in request.stream():
        found += chunk
        if len(found) > limit:
          raise too_long
  except TimeoutError:
    raise Refused(408, 'too-slow', 'The body took too long.') from None
  return bytes(found)


def _boolean(request: Request, name: str) -> bool:
  value = request.headers.get(name)
  if value not in ('?0', '?1'):
    raise Refused(400, 'header', f'The header {name} must be ?0 or ?1.')
  return value == '?1'


def _whole(request: Request, name: str) -> int:
  value = request.headers.get(name, '')
  if re.fullmatch('[0-9]{1,15}', value) is None:
    raise Refused(400, 'header', f'The header {name} must be digits, 15 at most.')
  return int(value)


def _digest(request: Request) -> bytes:
  """The SHA-256 in Content-Digest (RFC 9530)."""
  found = re.search(r'(?:^|[,\s])sha-256=:([A-Za-z0-9+/]{43}=):', request.headers.get('content-digest', ''))
  if found is None:
    raise Refused(400, 'header', 'The header Content-Digest must have a sha-256.')
  return base64.b64decode(found[1])


def _range(value: str | None, size: int) -> tuple[int, int | None]:
  """(first byte, one behind the last) that a header Range asks for; (0, None) for all, also where it is not one range
  of bytes, which RFC 9110 lets a server pass over."""
  found = re.fullmatch(r'bytes=([0-9]{0,15})-([0-9]{0,15})', value or '')
  if found is None or found[0] == 'bytes=-':
    return 0, None
  if not found[1]:
    start, stop = max(0, size - int(found[2])), size
  else:
    start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
  if not start < stop:
    raise Refused(416, 'range', 'The range is not in the blob.', {'Content-Range': f'bytes */{size}'})
  return start, stop
