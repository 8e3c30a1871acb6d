import socket
import stat
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from composer.deploying import Plan, config_text, deploy, environment, serve_config
from composer.key_store import KeyStore
from composer.ray_environment import proxy_binary
from experts_registry.errors import OptionError, RegistryError

# Of Ray Serve itself, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

WRITTEN_BY_SERVE = """\
global
    stats socket /tmp/haproxy-serve/admin.sock mode 666 level admin expose-fd listeners
defaults
    errorfile 502 /tmp/500.http
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind *:8000
listen stats
  bind *:{stats}
"""


@pytest.fixture
def plan(registry_path):
    return Plan(registry=registry_path)


@pytest.fixture
def ray_door():
    from composer import ray_door

    return ray_door


@pytest.mark.parametrize("replicas", [(3, 3), (1, 4)])
def test_the_config_file_is_one_that_serve_accepts(plan, replicas):
    from ray.serve.schema import ServeDeploySchema

    plan = Plan(registry=plan.registry, replicas=replicas)
    read = ServeDeploySchema.model_validate(yaml.safe_load(config_text(plan)))
    (door,) = read.applications[0].deployments
    if replicas == (3, 3):
        assert door.num_replicas == 3
    else:
        scale = door.autoscaling_config
        assert (scale["min_replicas"], scale["max_replicas"]) == replicas
    assert read.http_options.host == "127.0.0.1"


def test_what_the_config_file_names_builds_the_application(plan, ray_door):
    application = serve_config(plan)["applications"][0]
    assert application["import_path"] == "composer.ray_door:build"
    assert ray_door.build(ray_door.Arguments.model_validate(application["args"]))


def test_only_a_loopback_address_goes_without_keys(registry_path, ray_door):
    plan = Plan(registry=registry_path, host="0.0.0.0")
    arguments = ray_door.Arguments.model_validate(plan.arguments())
    with pytest.raises(OptionError, match="no API key"):
        ray_door.build(arguments)
    with pytest.raises(OptionError, match=r"--host: '0\.0\.0\.0' could be reached"):
        deploy(plan, is_fast=True, is_blocking=True, ready=print)
    store = KeyStore(registry_path.parent / "keys.db")
    store.create("alice")
    store.close()
    assert ray_door.build(arguments)


def test_a_wrong_file_is_told_before_anything_starts(plan):
    plan.registry.write_text("version: 1\nexperts: 3\n")
    with pytest.raises(RegistryError, match=r"experts.yaml:2: experts: "):
        deploy(plan, is_fast=True, is_blocking=True, ready=print)


def test_a_port_in_use_is_told_before_anything_starts(plan, free_listener, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = Plan(registry=plan.registry, port=free_listener)
    with pytest.raises(OptionError, match="choose another"):
        deploy(plan, is_fast=True, is_blocking=True, ready=print)


@pytest.fixture
def free_listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_cluster_of_this_command_cannot_outlive_it(plan, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(OptionError, match="--no-blocking: "):
        deploy(plan, is_fast=True, is_blocking=False, ready=print)


def test_fewer_at_most_than_at_least_is_refused(registry_path):
    with pytest.raises(OptionError, match="--min-replicas: 3 is above --max-replicas 2"):
        Plan(registry=registry_path, replicas=(3, 2))


@pytest.fixture
def short():
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_a_folder_too_deep_for_sockets_is_refused(short):
    with pytest.raises(OptionError, match=r"--environment: .* use at most 26"):
        environment(short / "a-folder-that-is-deep-down", is_fast=True)


def test_what_the_user_set_stays(short, monkeypatch):
    monkeypatch.setenv("RAY_SERVE_THROUGHPUT_OPTIMIZED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    chosen = environment(short / "e", is_fast=True)
    assert not {"RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_AUTH_MODE"} & chosen.keys()
    assert not {"RAY_SERVE_ENABLE_HA_PROXY"} & environment(short, is_fast=False).keys()


def test_the_token_of_the_cluster_is_for_this_user_alone(short, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    chosen = environment(short / "e", is_fast=True)
    assert chosen["RAY_AUTH_MODE"] == "token"
    assert stat.S_IMODE(Path(chosen["RAY_AUTH_TOKEN_PATH"]).stat().st_mode) == 0o600
    assert stat.S_IMODE((short / "e").stat().st_mode) == 0o700


@pytest.mark.skipif(proxy_binary() is None, reason="HAProxy comes with Ray on Linux only")
def test_haproxy_keeps_its_own_pages_on_this_machine(short):
    chosen = environment(short / "e", is_fast=True)
    stats = chosen["RAY_SERVE_HAPROXY_STATS_PORT"]
    metrics = chosen["RAY_SERVE_HAPROXY_METRICS_PORT"]
    config = short / "haproxy.cfg"
    config.write_text(WRITTEN_BY_SERVE.format(stats=stats, metrics=metrics))
    command = [chosen["RAY_SERVE_HAPROXY_BINARY_PATH"], "-c", "-f", str(config)]
    subprocess.run(command, check=False, capture_output=True, timeout=30)
    amended = config.read_text()
    binds = [line.split()[1] for line in amended.splitlines() if line.strip().startswith("bind")]
    assert binds == [f"127.0.0.1:{metrics}", "*:8000", f"127.0.0.1:{stats}"]
    assert "mode 600" in amended
    assert "unavailable.http" in amended
