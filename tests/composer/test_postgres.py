"""Keys, spending and the decision log on a PostgreSQL server, by the tests that SQLite passes.

    EXPERT_COMPOSER_TEST_POSTGRES=postgresql+psycopg://user@127.0.0.1/base pytest <this file>

Each test gets a schema of its own, which is dropped after it.
"""

import os
import subprocess
import sys
from contextlib import closing
from uuid import uuid4

import pytest
import sqlalchemy as sa

from composer.decision_log import DecisionLog, Logged
from composer.key_store import KeyStore
from experts_registry.errors import DataError
from tests.composer.test_admission import (  # noqa: F401 - run here, on the fixture `where` below
    admission,
    clock,
    test_a_budget_returns_with_the_next_period,
    test_a_call_is_settled_in_the_period_it_was_reserved_in,
    test_a_call_that_cost_more_than_was_reserved_is_charged_in_full,
    test_a_call_that_outlives_its_reservation_is_charged_once,
    test_a_client_that_hangs_up_while_reserving_leaves_nothing_reserved,
    test_a_client_that_hangs_up_while_settling_is_charged_all_the_same,
    test_a_hundred_tasks_on_a_budget_for_ten_calls_get_exactly_ten,
    test_a_hundred_threads_on_a_budget_for_ten_calls_get_exactly_ten,
    test_a_key_without_a_budget_still_tells_what_it_spent,
    test_an_absurd_cost_is_charged_as_far_as_it_can_be_written,
    test_four_processes_of_25_calls_on_a_budget_for_ten_get_exactly_ten,
    test_only_the_first_of_settle_and_release_counts,
    test_what_is_left_of_a_reservation_is_there_for_others,
)
from tests.composer.test_decision_log import (  # noqa: F401
    log,
    test_a_failed_request_is_logged_with_the_class_of_its_error,
    test_a_row_comes_back_as_it_was,
    test_a_row_that_is_no_json_is_dropped_and_the_writer_goes_on,
    test_closing_writes_what_waits,
    test_odd_rows_do_not_cost_their_neighbours,
    test_pruning_deletes_what_is_older_and_no_more,
    test_recent_filters_by_each_column_and_gives_the_newest_first,
    test_rows_are_safe_after_the_stated_interval_without_a_flush,
    test_threads_may_log_at_once,
    test_two_processes_write_at_once_and_lose_nothing,
    test_what_was_flushed_survives_a_kill_and_only_the_last_batch_is_lost,
)
from tests.composer.test_keys import (  # noqa: F401
    store,
    test_a_token_opens_its_key_with_all_its_limits,
    test_an_unknown_id_is_told_with_the_nearest,
    test_scopes_allow_what_they_name,
    test_the_async_twin_says_the_same,
    test_two_processes_see_each_others_keys,
)

SERVER = os.environ.get("EXPERT_COMPOSER_TEST_POSTGRES", "")
if not SERVER:
    reason = "EXPERT_COMPOSER_TEST_POSTGRES names no PostgreSQL server"
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def where():
    schema = f"test_{uuid4().hex}"
    engine = sa.create_engine(SERVER)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    query = {"options": f"-csearch_path={schema}", "application_name": schema[:60]}
    url = sa.make_url(SERVER).update_query_dict(query)
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))
    engine.dispose()


BEGINNER = """
import sys
from composer.decision_log import DecisionLog, Logged
from composer.key_store import KeyStore
from composer.spending import Spending
sys.stdin.readline()
KeyStore(sys.argv[1]).create("name")
spending = Spending(sys.argv[1])
spending.settle(spending.reserve("key", 1.0, budget=100.0, per="total"), 1.0)
log = DecisionLog(sys.argv[1])
log.add(Logged.ended(request_id="r", status=200, model="auto"))
log.close()
assert log.dropped == 0
"""


def test_processes_may_make_the_tables_at_once(where):
    beginners = [
        subprocess.Popen([sys.executable, "-c", BEGINNER, where], stdin=subprocess.PIPE)
        for _ in range(6)
    ]
    for beginner in beginners:
        beginner.stdin.write(b"go\n")
        beginner.stdin.flush()
    for beginner in beginners:
        beginner.communicate(timeout=60)
    assert [beginner.returncode for beginner in beginners] == [0] * 6
    with closing(KeyStore(where)) as keys, closing(DecisionLog(where)) as decisions:
        assert len(keys.all()) == 6
        assert len(decisions.recent()) == 6


def test_connections_that_the_server_ended_are_made_anew(where):
    with closing(KeyStore(where)) as keys:
        keys.create("before")
        engine = sa.create_engine(SERVER)
        with engine.begin() as connection:
            connection.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = :name"
                ),
                {"name": sa.make_url(where).query["application_name"]},
            )
        engine.dispose()
        keys.create("after")
        assert [key.name for key in keys.all()] == ["before", "after"]


def test_a_server_that_is_not_there_is_one_clear_error_without_the_password():
    url = "postgresql+psycopg://user:canary-password@127.0.0.1:9/base"
    with closing(KeyStore(url)) as keys, pytest.raises(DataError) as error:
        keys.all()
    assert "keys: postgresql+psycopg://user:***@127.0.0.1:9/base: " in str(error.value)
    assert "canary-password" not in str(error.value)
    with closing(DecisionLog(url)) as decisions:
        decisions.add(Logged.ended(request_id="r", status=200, model="auto"))
        decisions.flush()
        assert decisions.dropped == 1
