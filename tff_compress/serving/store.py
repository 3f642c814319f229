"""What the server knows. Every change is one transaction, and bytes are kept before a row names them, so that a process
that is killed anywhere leaves nothing half done.

The states are those of `protocol`, and every step between them is looked up there. SQLite by default, with a
write-ahead log; any database of SQLAlchemy by its URL.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import json
import secrets
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from tff_compress.codec.errors import CompressionError
from tff_compress.serving import protocol
from tff_compress.serving import tables
from tff_compress.serving.blobs import Blobs
from tff_compress.serving.settings import Settings

ACCESS_SECONDS = 3600.0
REFRESH_SECONDS = 90 * 86400.0


class StoreError(CompressionError):
  """The database cannot be used, or knows nothing of what is asked."""


class Denied(CompressionError):
  """A code, token or lease is not good, or not any more."""


@dataclasses.dataclass(frozen=True)
class Lease:
  """A row of `tables.LEASES`."""
  lease: str
  task: str
  round: int
  client: int
  device: str
  state: str
  expires: float
  upload: str
  sent: int
  weight: int


class Store:
  """Args:
    url: of a database, as SQLAlchemy takes it.
    blobs: where bytes are that are the server's own: frames, exact models.
    public: where those are that every device may have.
    clock: gives the time in seconds, which only this process's steps are compared by.
    at: called with the name of each point where a process may be killed, before and after each write.

  Raises:
    StoreError: the database cannot be opened, or is of a later release.
  """

  def __init__(self, url: str, blobs: Blobs, public: Blobs, clock: Callable[[], float] = time.time,
               at: Callable[[str], None] = lambda point: None) -> None:
    self.blobs, self.public, self.clock, self._at = blobs, public, clock, at
    try:
      self._engine = sa.create_engine(url)
      if self._engine.dialect.name == 'sqlite':
        _set_up_sqlite(self._engine)
      self._check_version()
    except exc.SQLAlchemyError as error:
      reason = ' '.join(str(error).split())[:200].rstrip('.')
      raise StoreError(f'the database cannot be used: {reason}.') from None

  def close(self) -> None:
    self._engine.dispose()

  def _check_version(self) -> None:
    names = sa.inspect(self._engine).get_table_names()
    if not names:
      tables.METADATA.create_all(self._engine)
      with self._write('tables') as db:
        db.execute(tables.PROPERTIES.insert().values(name='version', value=str(tables.VERSION)))
      return
    found = None
    if 'properties' in names:
      with self._read() as db:
        found = db.scalar(sa.select(tables.PROPERTIES.c.value).where(tables.PROPERTIES.c.name == 'version'))
    if found is None or not found.isdigit():
      raise StoreError('the database is not one of this server: name another one.')
    if int(found) > tables.VERSION:
      raise StoreError(f'the database is too new: it has version {found}, and this release reads {tables.VERSION}.')

  @contextlib.contextmanager
  def _write(self, point: str) -> Iterator[sa.Connection]:
    """A block that changes something, all of it or nothing."""
    self._at(f'before {point}')
    with self._engine.connect().execution_options(writes=True) as db, db.begin():
      yield db
      self._at(f'within {point}')
    self._at(f'after {point}')

  @contextlib.contextmanager
  def _read(self) -> Iterator[sa.Connection]:
    with self._engine.connect() as db, db.begin():
      yield db

  def ready(self) -> bool:
    """Whether the database answers."""
    try:
      with self._read() as db:
        return db.scalar(sa.select(sa.func.count()).select_from(tables.PROPERTIES)) is not None
    except exc.SQLAlchemyError:
      return False

  def property(self, name: str, first: Callable[[], str]) -> str:
    """A text that is kept by its name; made the first time."""
    query = sa.select(tables.PROPERTIES.c.value).where(tables.PROPERTIES.c.name == name)
    with self._write('property') as db:
      found = db.scalar(query)
      if found is None:
        found = first()
        db.execute(tables.PROPERTIES.insert().values(name=name, value=found))
      return found

  # Tasks and rounds.

  def begin_task(self, plan: str, settings: Settings, *, seed: str, model: str, optimizer: str, timeline: str) -> str:
    """A new task with its first round; all but settings and seed (16 hexadecimal digits) are digests of blobs. Returns
    its number."""
    task, now = secrets.token_hex(8), self.clock()
    with self._write('task') as db:
      db.execute(tables.TASKS.insert().values(
          task=task, state=protocol.TASK.start, seed=seed, plan=plan, round=1,
          settings=json.dumps(dataclasses.asdict(settings))))
      self._open_round(db, task, 1, settings, now, model, optimizer, timeline)
    return task

  def _open_round(self, db: sa.Connection, task: str, number: int, settings: Settings, now: float, model: str,
                  optimizer: str, timeline: str) -> None:
    db.execute(tables.ROUNDS.insert().values(
        task=task, round=number, state=protocol.ROUND.start, opened=now, closes=now + settings.deadline, extended=0,
        accepted=0, model=model, optimizer=optimizer, timeline=timeline))

  def tasks(self) -> list[str]:
    """The numbers of all tasks, in no order."""
    with self._read() as db:
      return list(db.scalars(sa.select(tables.TASKS.c.task)))

  def task(self, task: str) -> Any:
    """The row of a task, with `settings` as `Settings`. Raises StoreError where there is none."""
    with self._read() as db:
      return self._task(db, task)

  def _task(self, db: sa.Connection, task: str) -> Any:
    row = db.execute(sa.select(tables.TASKS).where(tables.TASKS.c.task == task)).mappings().first()
    if row is None:
      raise StoreError(f'there is no task {task}.')
    return {**row, 'settings': Settings(**json.loads(row['settings']))}

  def rounds(self, task: str, newest: int | None = None) -> list[dict[str, Any]]:
    """Rows of rounds, the oldest first: all, or so many of the newest."""
    query = sa.select(tables.ROUNDS).where(tables.ROUNDS.c.task == task).order_by(tables.ROUNDS.c.round.desc())
    with self._read() as db:
      return [dict(row) for row in db.execute(query.limit(newest)).mappings()][::-1]

  def round(self, task: str, number: int) -> dict[str, Any]:
    """The row of a round. Raises StoreError where there is none."""
    with self._read() as db:
      return self._round(db, task, number)

  def _round(self, db: sa.Connection, task: str, number: int) -> dict[str, Any]:
    row = db.execute(sa.select(tables.ROUNDS).where(*_is(tables.ROUNDS, task, number))).mappings().first()
    if row is None:
      raise StoreError(f'task {task} has no round {number}.')
    return dict(row)

  def close_due(self, task: str, number: int) -> str:
    """Closes a round whose deadline is over, or gives it more time; returns its state."""
    now = self.clock()
    with self._write('deadline') as db:
      row, settings = self._round(db, task, number), self._task(db, task)['settings']
      if row['state'] == 'collecting' and now >= row['closes']:
        event = 'deadline' if row['accepted'] >= settings.minimum else 'extend'
        values = {'state': protocol.ROUND.after('collecting', event)}
        values |= {'closed_by': event} if event == 'deadline' else {
            'closes': now + settings.deadline, 'extended': row['extended'] + 1}
        # Nobody accepted another one in between: then the next look decides.
        db.execute(tables.ROUNDS.update().where(
            *_is(tables.ROUNDS, task, number), tables.ROUNDS.c.state == 'collecting',
            tables.ROUNDS.c.accepted == row['accepted']).values(**values))
      return self._round(db, task, number)['state']

  def lead(self, task: str, who: str, seconds: float) -> bool:
    """Whether a process, by a name of its own, is the one that ends rounds, from now on for so many seconds: where no
    other one is. 0 seconds give that up."""
    now, columns = self.clock(), tables.TASKS.c
    with self._write('leader') as db:
      return db.execute(tables.TASKS.update().where(
          columns.task == task,
          columns.leader.is_(None) | (columns.leader == who) | (columns.leads_until <= now)).values(
              leader=who, leads_until=now + seconds)).rowcount == 1

  def accepted(self, task: str, number: int, after: int = 0) -> list[tuple[int, int, str, int]]:
    """[(place in the order, client, SHA-256 of the frame, weight)] of a round, those behind a place."""
    receipts = tables.RECEIPTS.c
    query = sa.select(receipts.number, receipts.client, receipts.sha256, receipts.weight).where(
        *_is(tables.RECEIPTS, task, number), receipts.number > after).order_by(receipts.number)
    with self._read() as db:
      return [tuple(row) for row in db.execute(query)]

  def commit_round(self, task: str, number: int, *, result: str, optimizer: str, timeline: str, figures: dict) -> None:
    """Ends a closed round, and begins the next or finishes the task. Does nothing where that was done already."""
    now = self.clock()
    with self._write('commit') as db:
      row, found = self._round(db, task, number), self._task(db, task)
      if row['state'] == 'committed':
        return
      last = number >= found['settings'].rounds
      received = db.scalar(sa.select(sa.func.sum(tables.RECEIPTS.c.bytes)).where(*_is(tables.RECEIPTS, task, number)))
      changed = db.execute(tables.ROUNDS.update().where(
          *_is(tables.ROUNDS, task, number), tables.ROUNDS.c.state == row['state']).values(
              state=protocol.ROUND.after(row['state'], 'commit'), result=result, committed=now, bytes=received or 0,
              figures=json.dumps(figures)))
      if changed.rowcount != 1:
        raise StoreError(f'round {number} was changed by another process while it was committed.')
      state = protocol.TASK.after(found['state'], 'last commit' if last else 'commit')
      db.execute(tables.TASKS.update().where(tables.TASKS.c.task == task).values(
          state=state, round=number if last else number + 1))
      if not last:
        self._open_round(db, task, number + 1, found['settings'], now, result, optimizer, timeline)

  # Devices.

  def enrol(self) -> protocol.Tokens:
    """A new device."""
    device = secrets.token_hex(8)
    with self._write('device') as db:
      db.execute(tables.DEVICES.insert().values(device=device, enrolled=self.clock(), revoked=False))
      return self._tokens(db, device)

  def renew(self, refresh: str) -> protocol.Tokens:
    """New tokens for a refresh token, which is of no more use; one that was used already revokes its device.

    Raises:
      Denied: it is not known, too old, or used.
    """
    now, denied = self.clock(), Denied('the refresh token is not good, or not any more: enrol again.')
    with self._write('tokens') as db:
      row = db.execute(sa.select(tables.TOKENS).where(
          tables.TOKENS.c.hash == _hash(refresh), tables.TOKENS.c.use == 'refresh')).mappings().first()
      if row is None or row['expires'] < now:
        raise denied
      fresh = db.execute(tables.TOKENS.update().where(
          tables.TOKENS.c.hash == row['hash'], tables.TOKENS.c.used.is_(False)).values(used=True)).rowcount == 1
      revoked = db.scalar(sa.select(tables.DEVICES.c.revoked).where(tables.DEVICES.c.device == row['device']))
      if fresh and not revoked:
        return self._tokens(db, row['device'])
      db.execute(tables.DEVICES.update().where(tables.DEVICES.c.device == row['device']).values(revoked=True))
    raise denied  # After the commit of the revocation.

  def _tokens(self, db: sa.Connection, device: str) -> protocol.Tokens:
    access, refresh, now = secrets.token_urlsafe(24), secrets.token_urlsafe(24), self.clock()
    db.execute(tables.TOKENS.delete().where(tables.TOKENS.c.device == device, tables.TOKENS.c.expires < now))
    db.execute(tables.TOKENS.insert(), [
        {'hash': _hash(access), 'device': device, 'use': 'access', 'expires': now + ACCESS_SECONDS, 'used': False},
        {'hash': _hash(refresh), 'device': device, 'use': 'refresh', 'expires': now + REFRESH_SECONDS, 'used': False}])
    return protocol.Tokens(device=device, access=access, refresh=refresh, seconds=ACCESS_SECONDS)

  def device_of(self, access: str) -> str:
    """The device that an access token is of. Raises Denied."""
    query = sa.select(tables.TOKENS.c.device).join(tables.DEVICES).where(
        tables.TOKENS.c.hash == _hash(access), tables.TOKENS.c.use == 'access',
        tables.TOKENS.c.expires >= self.clock(), tables.DEVICES.c.revoked.is_(False))
    with self._read() as db:
      device = db.scalar(query)
    if device is None:
      raise Denied('the access token is not good, or not any more: renew it, or enrol.')
    return device

  # Leases and uploads.

  def assign(self, task: str, device: str, version: int) -> Lease | None:
    """A lease in the round under way; the same one for a device that has one. None where there is nothing to do.

    Args:
      task, device: numbers.
      version: of the model that the device holds, for the status page.
    """
    for _ in range(5):
      with contextlib.suppress(exc.IntegrityError):  # Another front gave away the same number.
        return self._assign(task, device, version)
    return None

  def _assign(self, task: str, device: str, version: int) -> Lease | None:
    now, leases = self.clock(), tables.LEASES.c
    with self._write('lease') as db:
      db.execute(tables.DEVICES.update().where(tables.DEVICES.c.device == device).values(seen=now, version=version))
      found = self._task(db, task)
      settings, number = found['settings'], found['round']
      row = self._round(db, task, number)
      if found['state'] != 'running' or row['state'] != 'collecting':
        return None
      own = db.execute(sa.select(tables.LEASES).where(
          *_is(tables.LEASES, task, number), leases.device == device)).mappings().first()
      if own is not None:
        lease = Lease(**own)
        if lease.state == 'held' and lease.expires < now:
          lease = dataclasses.replace(lease, state=protocol.LEASE.after(lease.state, 'expire'))
        if lease.state == 'expired':
          lease = dataclasses.replace(lease, state=protocol.LEASE.after(lease.state, 'check in'),
                                      expires=now + settings.lease)
          db.execute(tables.LEASES.update().where(leases.lease == lease.lease).values(
              state=lease.state, expires=lease.expires))
        return lease if lease.state == 'held' else None
      live = db.scalar(sa.select(sa.func.count()).where(
          *_is(tables.LEASES, task, number), leases.state == 'held', leases.expires >= now)) or 0
      if live + row['accepted'] >= settings.places:
        return None
      client = db.scalar(sa.select(sa.func.count()).where(*_is(tables.LEASES, task, number))) or 0
      lease = Lease(secrets.token_urlsafe(24), task, number, client, device, protocol.LEASE.start,
                    now + settings.lease, protocol.UPLOAD.start, 0, 1)
      db.execute(tables.LEASES.insert().values(**dataclasses.asdict(lease)))
      return lease

  def lease(self, lease: str, device: str) -> Lease:
    """A lease of a device. Raises Denied where it has none of this name."""
    with self._read() as db:
      return self._lease(db, lease, device)

  def _lease(self, db: sa.Connection, lease: str, device: str | None = None) -> Lease:
    row = db.execute(sa.select(tables.LEASES).where(tables.LEASES.c.lease == lease)).mappings().first()
    if row is None or device not in (None, row['device']):
      raise Denied('this device has no such lease.')
    return Lease(**row)

  def receipt(self, lease: str) -> protocol.Receipt | None:
    """What became of the upload of a lease; None as long as that is open."""
    with self._read() as db:
      return self._receipt(db, lease)

  def _receipt(self, db: sa.Connection, lease: str) -> protocol.Receipt | None:
    row = db.execute(sa.select(tables.RECEIPTS).where(tables.RECEIPTS.c.lease == lease)).mappings().first()
    if row is None:
      return None
    return protocol.Receipt(
        task=row['task'], round=row['round'], client=row['client'], outcome=protocol.Outcome(row['outcome']),
        reason=None if row['reason'] is None else protocol.Rejection(row['reason']), number=row['number'],
        sha256=row['sha256'])

  def begin_upload(self, lease: str) -> None:
    """Forgets what was sent, of an upload that is not whole."""
    with self._write('upload') as db:
      found = self._lease(db, lease)
      if found.upload != 'partial':
        return
      names = list(db.scalars(sa.select(tables.PARTS.c.name).where(tables.PARTS.c.lease == lease)))
      db.execute(tables.PARTS.delete().where(tables.PARTS.c.lease == lease))
      db.execute(tables.LEASES.update().where(tables.LEASES.c.lease == lease).values(
          upload=protocol.UPLOAD.after(found.upload, 'begin anew'), sent=0))
    for name in names:
      self.blobs.delete_part(name)

  def append(self, lease: str, start: int, data: bytes, last: bool, weight: int | None = None) -> Lease:
    """The lease after a part of its upload; where it does not begin at the end of what is there, nothing changes.

    Args:
      lease: its name.
      start: how many bytes stand before.
      data: the part.
      last: whether it is the last.
      weight: that the update counts with, as the first part says.
    """
    name = self.blobs.put_part(data)
    with self._write('part') as db:
      found = self._lease(db, lease)
      taken = found.upload in ('none', 'partial') and found.sent == start
      if taken:
        found = dataclasses.replace(found, sent=start + len(data), weight=weight or found.weight,
                                    upload=protocol.UPLOAD.after(found.upload, 'last part' if last else 'part'))
        changed = db.execute(tables.LEASES.update().where(
            tables.LEASES.c.lease == lease, tables.LEASES.c.sent == start,
            tables.LEASES.c.upload.in_(('none', 'partial'))).values(
                upload=found.upload, sent=found.sent, weight=found.weight)).rowcount
        taken = changed == 1
      if taken and data:
        db.execute(tables.PARTS.insert().values(lease=lease, start=start, bytes=len(data), name=name))
    if not (taken and data):
      self.blobs.delete_part(name)
    return found if taken else self.lease(lease, found.device)

  def sent(self, lease: str) -> bytes:
    """The bytes of an upload that came in parts."""
    with self._read() as db:
      names = list(db.scalars(sa.select(tables.PARTS.c.name).where(tables.PARTS.c.lease == lease).order_by(
          tables.PARTS.c.start)))
    return b''.join(map(self.blobs.get_part, names))

  def decide(self, lease: str, data: bytes, rejection: protocol.Rejection | None,
             weight: int | None = None) -> protocol.Receipt:
    """Judges an upload, once: whatever is asked later, the receipt is the first.

    An accepted frame is kept before, and gets the next number of its round in the transaction that accepts it.

    Args:
      lease: its name.
      data: what was sent, all of it.
      rejection: why it is not accepted; None where nothing is wrong with it.
      weight: that it counts with; None: as its first part said.
    """
    receipt = self.receipt(lease)
    if receipt is not None:
      return receipt
    self._at('before frame')
    digest = hashlib.sha256(data).hexdigest() if rejection else self.blobs.put(data)
    self._at('after frame')
    try:
      receipt = self._decide(lease, digest, len(data), rejection, weight)
    except exc.IntegrityError:  # Another front was first.
      receipt = self.receipt(lease)
      if receipt is None:
        raise
    if not rejection and (receipt.outcome, receipt.sha256) != (protocol.Outcome.ACCEPTED, digest):
      self._forget_frame(digest)
    self._forget_parts(lease)
    return receipt

  def _decide(self, lease: str, digest: str, size: int, rejection: protocol.Rejection | None,
              weight: int | None) -> protocol.Receipt:
    with self._write('receipt') as db:
      found = self._receipt(db, lease)
      if found is not None:
        return found
      row = self._lease(db, lease)
      goal = self._task(db, row.task)['settings'].goal
      number, rounds = None, tables.ROUNDS.c
      if rejection:
        outcome = protocol.Outcome.REJECTED
      else:
        taken = db.execute(tables.ROUNDS.update().where(
            *_is(tables.ROUNDS, row.task, row.round), rounds.state == 'collecting', rounds.accepted < goal).values(
                accepted=rounds.accepted + 1)).rowcount
        current = self._round(db, row.task, row.round)
        if taken:
          outcome, number = protocol.Outcome.ACCEPTED, current['accepted']
          if number >= goal:
            db.execute(tables.ROUNDS.update().where(*_is(tables.ROUNDS, row.task, row.round)).values(
                state=protocol.ROUND.after('collecting', 'goal'), closed_by='goal'))
        else:
          late = current['closed_by'] == 'deadline'
          outcome = protocol.Outcome.TOO_LATE if late else protocol.Outcome.GOAL_REACHED
      db.execute(tables.RECEIPTS.insert().values(
          lease=lease, task=row.task, round=row.round, client=row.client, outcome=str(outcome),
          reason=rejection and str(rejection), number=number, weight=weight or row.weight, sha256=digest, bytes=size,
          time=self.clock()))
      db.execute(tables.LEASES.update().where(tables.LEASES.c.lease == lease).values(
          state=protocol.LEASE.after(row.state, 'receipt'), sent=size,
          upload=protocol.UPLOAD.after('complete', 'decide')))
      receipt = self._receipt(db, lease)
      assert receipt is not None
      return receipt

  def _forget_frame(self, digest: str) -> None:
    """Deletes a frame unless it is an accepted one."""
    with self._read() as db:
      kept = db.scalar(sa.select(sa.func.count()).where(
          tables.RECEIPTS.c.sha256 == digest, tables.RECEIPTS.c.number.is_not(None)))
    if not kept:
      self.blobs.delete(digest)

  def _forget_parts(self, lease: str) -> None:
    with self._read() as db:
      names = list(db.scalars(sa.select(tables.PARTS.c.name).where(tables.PARTS.c.lease == lease)))
    if names:
      with self._write('parts') as db:
        db.execute(tables.PARTS.delete().where(tables.PARTS.c.lease == lease))
      for name in names:
        self.blobs.delete_part(name)

  def report(self, device: str, report: protocol.Report) -> None:
    """Keeps a report; all but a measurement give the lease back that they are about. Raises Denied for another's."""
    with self._write('report') as db:
      found = None if report.lease is None else self._lease(db, report.lease, device)
      if found is not None and report.event != protocol.Event.MEASURED:
        db.execute(tables.LEASES.update().where(tables.LEASES.c.lease == found.lease).values(
            state=protocol.LEASE.after(found.state, 'report')))
      db.execute(tables.REPORTS.insert().values(
          device=device, task=found and found.task, round=found and found.round, event=str(report.event),
          figures=json.dumps({**report.as_dict(), 'lease': None}), time=self.clock()))

  def outcomes(self, task: str) -> dict[tuple[int, str], int]:
    """{(round, outcome, or 'rejected: reason'): how many}."""
    receipts = tables.RECEIPTS.c
    query = sa.select(receipts.round, receipts.outcome, receipts.reason, sa.func.count()).where(
        receipts.task == task).group_by(receipts.round, receipts.outcome, receipts.reason)
    with self._read() as db:
      return {(number, f'{outcome}: {reason}' if reason else outcome): count
              for number, outcome, reason, count in db.execute(query)}


def _set_up_sqlite(engine: sa.Engine) -> None:
  """Transactions as SQLite has them, and not as Python's module guesses; a log that readers do not wait for."""
  @sa.event.listens_for(engine, 'connect')
  def connect(connection: Any, record: Any) -> None:
    connection.isolation_level = None
    for pragma in ('journal_mode=WAL', 'synchronous=FULL', 'foreign_keys=ON', 'busy_timeout=30000'):
      connection.execute(f'PRAGMA {pragma}')

  @sa.event.listens_for(engine, 'begin')
  def begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get('writes')
    connection.exec_driver_sql('BEGIN IMMEDIATE' if writes else 'BEGIN')


def _is(table: sa.Table, task: str, number: int) -> tuple:
  return table.c.task == task, table.c.round == number


def _hash(token: str) -> str:
  return hashlib.sha256(token.encode()).hexdigest()
