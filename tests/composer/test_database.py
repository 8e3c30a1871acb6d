from contextlib import closing, suppress

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.schema import CreateTable

from composer import decision_log, feedback_store, key_store, spending
from composer.database import Database

TABLES = [
    table
    for module in (decision_log, feedback_store, key_store, spending)
    for table in module._METADATA.sorted_tables
]
STATEMENTS = [
    spending._RESERVE,
    spending._SETTLE,
    spending._HOLD,
    spending._KEEP,
    spending._DROP,
    spending._DEAD,
]


@pytest.mark.parametrize("dialect", [postgresql, mysql], ids=["postgresql", "mysql"])
def test_tables_and_statements_can_be_written_for_servers(dialect):
    """This compiles them; no server was asked."""
    assert len(TABLES) == 6
    for table in TABLES:
        assert str(CreateTable(table).compile(dialect=dialect.dialect()))
    for statement in STATEMENTS:
        assert str(statement.compile(dialect=dialect.dialect()))


@pytest.mark.parametrize(("is_synced", "level"), [(True, 2), (False, 1)])
def test_a_database_waits_for_the_disk_unless_told_not_to(tmp_path, is_synced, level):
    tables = spending._METADATA.sorted_tables
    with (
        closing(Database(tmp_path / "x.db", "keys", tables, is_synced=is_synced)) as database,
        database.writing() as connection,
    ):
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == level
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"


def test_an_error_undoes_the_transaction(tmp_path):
    tables = spending._METADATA.sorted_tables
    row = {"key_id": "k", "period": "total", "spent": 1, "reserved": 0}
    with closing(Database(tmp_path / "x.db", "keys", tables)) as database:
        with suppress(KeyError), database.writing() as connection:
            connection.execute(sa.insert(spending._SUMS).values(row))
            raise KeyError
        with database.reading() as connection:
            assert connection.execute(sa.select(spending._SUMS)).all() == []


def test_a_table_of_an_older_version_gets_the_columns_it_lacks(tmp_path):
    older = sa.Table("things", sa.MetaData(), sa.Column("id", sa.String(9), primary_key=True))
    newer = sa.Table(
        "things",
        sa.MetaData(),
        sa.Column("id", sa.String(9), primary_key=True),
        sa.Column("size", sa.BigInteger),
    )
    with (
        closing(Database(tmp_path / "x.db", "keys", (older,))) as database,
        database.writing() as connection,
    ):
        connection.execute(sa.insert(older).values(id="old"))
    for _ in range(2):
        with closing(Database(tmp_path / "x.db", "keys", (newer,))) as database:
            with database.reading() as connection:
                assert connection.execute(sa.select(newer)).first() == ("old", None)
            with database.writing() as connection:
                connection.execute(sa.update(newer).values(size=None))
