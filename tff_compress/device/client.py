"""The device: checks in, fetches, trains, encodes, sends, and keeps what it needs for the next time."""

import base64
from collections.abc import Callable
import hashlib
import time
from typing import Any

import numpy as np

from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import PayloadError
from tff_compress.device import runtime as runtime_lib
from tff_compress.device.errors import DeviceError
from tff_compress.device.http import Answer
from tff_compress.device.http import Session
from tff_compress.device.keeping import Keeping
from tff_compress.device.runtime import Runtime
from tff_compress.serving import messages
from tff_compress.serving import protocol
from tff_compress.timeline.copy import Copy
from tflite_export import plans

PART = 1 << 20
"""Bytes of a part of an upload."""

LARGEST = 1 << 30
"""Bytes of the largest file that is fetched."""


class Device:
  """Args:
    session: to the server.
    keeping: of this device.
    x, y: its examples.
    code: with which it enrols; None for one that is enrolled.
    say: is told what happens, in sentences.
    at: called with the name of each point where a process may be killed.
  """

  def __init__(self, session: Session, keeping: Keeping, x: np.ndarray, y: np.ndarray, code: str | None = None,
               say: Callable[[str], None] = lambda text: None, at: Callable[[str], None] = lambda point: None) -> None:
    self._session, self._keeping, self._x, self._y, self._code = session, keeping, x, y, code
    self._say, self._at = say, at
    self._runtime: tuple[str, Runtime] | None = None

  def run(self, rounds: int | None = None) -> int:
    """Takes part until the task is finished, or so many updates were counted; returns how many were.

    Raises:
      DeviceError: the server does not answer, or refuses this device.
    """
    counted = 0
    while rounds is None or counted < rounds:
      pending = self._keeping.update()
      if pending is not None:
        counted += self._send(*pending, resumed=True)
        continue
      self._keeping.settle(False)  # What is left of an update that was not whole.
      answer = self._check_in()
      if isinstance(answer, protocol.ComeBack):
        self._session.sleep(self._session.rng.uniform(answer.not_before, max(answer.not_before, answer.not_after)))
      elif isinstance(answer, protocol.CannotTakePart):
        if answer.reason != protocol.Refusal.FINISHED:
          raise DeviceError(f'this device cannot take part: {protocol.MEANING[answer.reason]}.')
        self._say('The task is finished.')
        return counted
      else:
        counted += self._take_part(answer)
    return counted

  # A round.

  def _take_part(self, assignment: protocol.Assignment) -> int:
    """Trains and sends; 1 where that is counted."""
    start = time.monotonic()
    try:
      runtime, copy, down = self._prepared(assignment)
      seed = int(assignment.seed, 16)
      received = runtime.model(bytes(copy.held['frame']), seed)
      self._at('before training')
      trained = runtime.train(received, self._x, self._y, epochs=assignment.epochs,
                              learning_rate=assignment.learning_rate,
                              order=(seed, assignment.round, assignment.client))
      update = {name: trained.weights[name] - received[name] for name in received}
      frame, residuals = runtime.encode(update, self._keeping.residuals(assignment.fingerprint), seed=seed,
                                        round=assignment.round, client=assignment.client)
    except CompressionError as error:
      self._report(protocol.Event.FAILED, assignment)
      if isinstance(error, DeviceError):
        raise
      raise DeviceError(f'round {assignment.round} failed on this device: {error}') from error
    except MemoryError:
      self._report(protocol.Event.OUT_OF_MEMORY, assignment)
      raise DeviceError('there is too little memory for the plan.') from None
    self._at('before keeping')
    self._keeping.keep_update(assignment, frame, residuals)
    self._at('before sending')
    counted = self._send(assignment, frame)
    self._report(protocol.Event.MEASURED, assignment, loss=float(np.clip(trained.loss, -1e30, 1e30)),
                 examples=len(self._x), seconds=time.monotonic() - start, down=down, up=len(frame))
    return counted

  def _prepared(self, assignment: protocol.Assignment) -> tuple[Runtime, Copy, int]:
    """(the plan's files, the model that the round starts from, how many bytes were fetched)"""
    items = {item.role: item for item in assignment.fetch}
    down = 0

    def fetched(sha256: str, size: int) -> bytes:
      nonlocal down
      data = self._keeping.cached(sha256)
      if data is None:
        data = self._fetch(sha256, size)
        down += len(data)
      return data

    manifest_size = items['plan'].bytes if 'plan' in items else plans.LARGEST
    if self._runtime is None or self._runtime[0] != assignment.plan:
      manifest = plans.read_form(fetched(assignment.plan, min(manifest_size, plans.LARGEST)), 'the plan')
      plans.check_form(manifest)
      files = {role: fetched(entry['sha256'], entry['bytes']) for role, entry in manifest['files'].items()
               if role != 'inference'}
      self._runtime = assignment.plan, Runtime(manifest, files)
    runtime = self._runtime[1]
    if runtime.fingerprint != assignment.fingerprint:
      raise DeviceError('the plan has another uplink than the server says.')
    if 'model' not in items:
      raise DeviceError('the server names no model to train from.')
    copy = self._held(runtime)
    message = fetched(items['model'].sha256, items['model'].bytes)
    try:
      copy = copy.follow(message)
    except PayloadError:
      # What is held is of no use for it: the next check-in asks for everything.
      self._keeping.copy = b''
      raise
    if copy.version != assignment.version:
      raise DeviceError(f'the message leads to version {copy.version} of the model, not {assignment.version}.')
    self._keeping.copy = copy.to_bytes()
    return runtime, copy, down

  def _held(self, runtime: Runtime) -> Copy:
    data = self._keeping.copy
    try:
      return Copy.from_bytes(runtime.history, data) if data else Copy(runtime.history)
    except PayloadError:
      return Copy(runtime.history)  # Of another plan.

  def _fetch(self, sha256: str, size: int) -> bytes:
    if size > LARGEST:
      raise DeviceError(f'the server names a file of {size} bytes.')
    answer = self._asked('GET', f'{protocol.PATH}/blobs/{sha256}', largest=size)
    if answer.status != 200 or hashlib.sha256(answer.body).hexdigest() != sha256:
      what = answer.problem if answer.status != 200 else 'its SHA-256 differs'
      raise DeviceError(f'a file cannot be had from the server: {what}.')
    self._keeping.cache(answer.body)
    return answer.body

  # Sending.

  def _send(self, assignment: protocol.Assignment, frame: bytes, resumed: bool = False) -> int:
    """Sends an update until there is a receipt; 1 where it is counted."""
    receipt = self._receipt(assignment, frame, resumed)
    self._at('before settling')
    counted = receipt is not None and receipt.outcome == protocol.Outcome.ACCEPTED
    self._keeping.settle(counted)
    self._at('after settling')
    what = 'the server knows nothing of it' if receipt is None else str(receipt.outcome)
    reason = f', {protocol.MEANING[receipt.reason]}' if receipt and receipt.reason else ''
    self._say(f'Round {assignment.round}: {len(frame):,} bytes as client {assignment.client}: {what}{reason}.')
    return int(counted)

  def _receipt(self, assignment: protocol.Assignment, frame: bytes, resumed: bool) -> protocol.Receipt | None:
    path, offset = assignment.upload, 0
    if resumed:
      answer = self._asked('HEAD', path)
      if answer.status == 404:
        return None
      whole = answer.headers.get('upload-complete') == '?1'
      offset = 0 if whole else _offset(answer, len(frame))
    while True:
      part = frame[offset:offset + PART]
      last = offset + len(part) == len(frame)
      headers = {'Upload-Complete': '?1' if last else '?0', 'Content-Digest': _digest(part)}
      if offset:
        headers |= {'Upload-Offset': str(offset), 'Content-Type': 'application/partial-upload'}
      else:
        headers |= {'Content-Type': f'{protocol.FRAME_TYPE}; fingerprint={assignment.fingerprint}'}
        if assignment.weighting == protocol.Weighting.EXAMPLES:
          headers['Content-Type'] += f'; examples={len(self._x)}'
      self._at('before part')
      answer = self._asked('PATCH' if offset else 'POST', path, headers, part)
      self._at('after part')
      if answer.status == 200:
        receipt = protocol.Receipt.read(answer.body)
        if (receipt.task, receipt.round, receipt.client) != (assignment.task, assignment.round, assignment.client):
          raise DeviceError('the server answers with the receipt of another update.')
        return receipt
      if answer.status == 404:
        return None
      if answer.status in (201, 204):
        offset += len(part)
      elif answer.status == 409:
        offset = _offset(answer, len(frame))
      else:
        raise DeviceError(f'the server refuses the update: {answer.problem}.')

  def _report(self, event: protocol.Event, assignment: protocol.Assignment, **figures: Any) -> None:
    """Best effort: a report is no reason to stop."""
    try:
      report = protocol.Report(event=event, lease=assignment.lease, **figures)
      self._asked('POST', f'{protocol.PATH}/reports', {'Content-Type': 'application/json'}, report.to_bytes())
    except CompressionError:
      pass

  # Talking.

  def _check_in(self) -> protocol.Answer:
    plan, version, digest = None, -1, None
    if self._runtime is not None:
      copy = self._held(self._runtime[1])
      plan, version = self._runtime[0], copy.version
      digest = None if copy.digest is None else copy.digest.hex()
    asked = protocol.CheckIn(runtime=runtime_lib.VERSION, plan=plan, version=version, digest=digest)
    answer = self._asked('POST', f'{protocol.PATH}/checkin', {'Content-Type': 'application/json'}, asked.to_bytes())
    if answer.status != 200:
      raise DeviceError(f'the server refuses the check-in: {answer.problem}.')
    return protocol.answer(answer.body)

  def _asked(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None,
             largest: int = messages.LARGEST) -> Answer:
    """The answer to a request with the access token, which is renewed where it is not good any more."""
    for renewed in (False, True):
      tokens = self._keeping.tokens or self._enrol()
      answer = self._session.request(method, path, {**(headers or {}), 'Authorization': f'Bearer {tokens.access}'},
                                     body, max(largest, messages.LARGEST))
      if answer.status != 401 or renewed:
        break
      self._renew(tokens)
    return answer

  def _renew(self, tokens: protocol.Tokens) -> None:
    answer = self._post('tokens', protocol.Renewal(refresh=tokens.refresh))
    if answer.status == 200:
      self._keeping.tokens = protocol.Tokens.read(answer.body)
    else:
      self._enrol()

  def _enrol(self) -> protocol.Tokens:
    if self._code is None:
      raise DeviceError('this device is not enrolled: give the code that the server printed, with --code.')
    answer = self._post('devices', protocol.Enrolment(code=self._code))
    if answer.status != 201:
      raise DeviceError(f'the server does not enrol this device: {answer.problem}.')
    self._keeping.tokens = tokens = protocol.Tokens.read(answer.body)
    return tokens

  def _post(self, what: str, message: protocol.Message) -> Answer:
    return self._session.request('POST', f'{protocol.PATH}/{what}', {'Content-Type': 'application/json'},
                                 message.to_bytes())


def _digest(data: bytes) -> str:
  return f'sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:'


def _offset(answer: Answer, most: int) -> int:
  text = answer.headers.get('upload-offset', '')
  if not text.isdigit() or len(text) > 15 or int(text) > most:
    raise DeviceError('the server names an offset that is not in the update.')
  return int(text)
