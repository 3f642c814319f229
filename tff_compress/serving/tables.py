"""The tables of the database, in SQLAlchemy Core: nothing that only one database knows."""

import sqlalchemy as sa

VERSION = 1
"""Of these tables. A database of a later one is refused, and one of an earlier one has to be brought here."""

METADATA = sa.MetaData()

PROPERTIES = sa.Table(
    'properties', METADATA,
    sa.Column('name', sa.String(40), primary_key=True),
    sa.Column('value', sa.String(200), nullable=False))

TASKS = sa.Table(
    'tasks', METADATA,
    sa.Column('task', sa.String(32), primary_key=True),
    sa.Column('state', sa.String(20), nullable=False),
    sa.Column('seed', sa.String(16), nullable=False),
    sa.Column('plan', sa.String(64), nullable=False),      # The manifest, a blob.
    sa.Column('settings', sa.Text, nullable=False),        # JSON of `settings.Settings`.
    sa.Column('round', sa.Integer, nullable=False),        # The one under way, or the last.
    sa.Column('leader', sa.String(32)),                    # The aggregator that ends its rounds,
    sa.Column('leads_until', sa.Float))                    # for so long.

ROUNDS = sa.Table(
    'rounds', METADATA,
    sa.Column('task', sa.String(32), sa.ForeignKey('tasks.task'), primary_key=True),
    sa.Column('round', sa.Integer, primary_key=True),
    sa.Column('state', sa.String(20), nullable=False),
    sa.Column('opened', sa.Float, nullable=False),
    sa.Column('closes', sa.Float, nullable=False),
    sa.Column('extended', sa.Integer, nullable=False),
    sa.Column('accepted', sa.Integer, nullable=False),
    sa.Column('closed_by', sa.String(20)),
    # What it begins with, each a blob:
    sa.Column('model', sa.String(64), nullable=False),     # Exact weights, a frame of float32.
    sa.Column('optimizer', sa.String(64), nullable=False),
    sa.Column('timeline', sa.String(64), nullable=False),
    # What came of it:
    sa.Column('result', sa.String(64)),                    # Exact weights.
    sa.Column('committed', sa.Float),
    sa.Column('bytes', sa.BigInteger),
    sa.Column('figures', sa.Text))                         # JSON.

DEVICES = sa.Table(
    'devices', METADATA,
    sa.Column('device', sa.String(32), primary_key=True),
    sa.Column('enrolled', sa.Float, nullable=False),
    sa.Column('revoked', sa.Boolean, nullable=False),
    sa.Column('seen', sa.Float),
    sa.Column('version', sa.Integer))

TOKENS = sa.Table(
    'tokens', METADATA,
    sa.Column('hash', sa.String(64), primary_key=True),    # SHA-256: who reads the database cannot use it.
    sa.Column('device', sa.String(32), sa.ForeignKey('devices.device'), nullable=False, index=True),
    sa.Column('use', sa.String(10), nullable=False),       # 'access' or 'refresh'.
    sa.Column('expires', sa.Float, nullable=False),
    sa.Column('used', sa.Boolean, nullable=False))

LEASES = sa.Table(
    'leases', METADATA,
    sa.Column('lease', sa.String(64), primary_key=True),
    sa.Column('task', sa.String(32), nullable=False),
    sa.Column('round', sa.Integer, nullable=False),
    sa.Column('client', sa.BigInteger, nullable=False),
    sa.Column('device', sa.String(32), sa.ForeignKey('devices.device'), nullable=False),
    sa.Column('state', sa.String(20), nullable=False),
    sa.Column('expires', sa.Float, nullable=False),
    # The upload:
    sa.Column('upload', sa.String(20), nullable=False),
    sa.Column('sent', sa.Integer, nullable=False),
    sa.Column('weight', sa.Integer, nullable=False),       # As the first part said.
    sa.UniqueConstraint('task', 'round', 'client'),
    sa.UniqueConstraint('task', 'round', 'device'))

PARTS = sa.Table(
    'parts', METADATA,
    sa.Column('lease', sa.String(64), sa.ForeignKey('leases.lease'), primary_key=True),
    sa.Column('start', sa.Integer, primary_key=True),
    sa.Column('bytes', sa.Integer, nullable=False),
    sa.Column('name', sa.String(32), nullable=False))     # In `Blobs`.

RECEIPTS = sa.Table(
    'receipts', METADATA,
    sa.Column('lease', sa.String(64), sa.ForeignKey('leases.lease'), primary_key=True),
    sa.Column('task', sa.String(32), nullable=False),
    sa.Column('round', sa.Integer, nullable=False),
    sa.Column('client', sa.BigInteger, nullable=False),
    sa.Column('outcome', sa.String(20), nullable=False),
    sa.Column('reason', sa.String(40)),
    sa.Column('number', sa.Integer),
    sa.Column('weight', sa.Integer, nullable=False),       # In the mean, of an accepted one.
    sa.Column('sha256', sa.String(64), nullable=False),
    sa.Column('bytes', sa.Integer, nullable=False),
    sa.Column('time', sa.Float, nullable=False),
    sa.UniqueConstraint('task', 'round', 'client'),
    sa.UniqueConstraint('task', 'round', 'number'))

REPORTS = sa.Table(
    'reports', METADATA,
    sa.Column('report', sa.Integer, primary_key=True),
    sa.Column('device', sa.String(32), nullable=False),
    sa.Column('task', sa.String(32)),
    sa.Column('round', sa.Integer),
    sa.Column('event', sa.String(20), nullable=False),
    sa.Column('figures', sa.Text, nullable=False),         # JSON of the report.
    sa.Column('time', sa.Float, nullable=False))
