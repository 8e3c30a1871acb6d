"""A Ray cluster as an operator starts it, and our config file given to ``serve deploy``."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml

from tests.composer.http.processes import COMMAND, descendants
from tests.composer.http.servers import until

pytestmark = pytest.mark.ray

BIN = Path(sys.executable).parent
FILE = """\
version: 1
experts:
  - {name: bird, kind: llm, backend: echo, model: echo}
  - {name: sloth, kind: llm, backend: echo, model: echo, options: {delay: 1}}
"""


class Cluster:
    """A head node with the environment that ``deploy --environment`` prints."""

    def __init__(self, folder, short, free_port):
        self.folder, self.port, self.dashboard = folder, free_port(), free_port()
        (folder / "experts.yaml").write_text(FILE)
        self.url = f"http://127.0.0.1:{free_port()}"
        printed = self.run([*COMMAND, "deploy", "--environment", f"{short}/e"], os.environ)
        exported = [line.removeprefix("export ").split("=", 1) for line in printed.splitlines()]
        self.environment = {**os.environ, **{name: value.strip("'") for name, value in exported}}
        self.process = subprocess.Popen(
            [BIN / "ray", "start", "--head", "--block", f"--port={self.port}", "--num-cpus=4",
             f"--dashboard-port={self.dashboard}", f"--temp-dir={short}",
             "--object-store-memory=100000000"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment,
        )  # fmt: skip
        until(self.is_up, seconds=60)

    def is_up(self):
        try:
            return httpx.get(f"http://127.0.0.1:{self.dashboard}", trust_env=False).status_code
        except httpx.HTTPError:
            return False

    def run(self, command, environment=None):
        done = subprocess.run(
            command, env=environment or self.environment, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def config(self, **door):
        """Return the file that ``deploy --print-config`` prints, with other values for the door."""
        options = ["--port", self.url.rpartition(":")[2], "--max-replicas", "2", "--load", "2"]
        path = str(self.folder / "experts.yaml")
        config = yaml.safe_load(self.run([*COMMAND, "deploy", path, *options, "--print-config"]))
        deployment = config["applications"][0]["deployments"][0]
        deployment["autoscaling_config"] |= {"metrics_interval_s": 1.0, "upscale_delay_s": 1.0}
        deployment |= door
        return config

    def deploy(self, **door):
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config(**door)))
        address = f"http://127.0.0.1:{self.dashboard}"
        self.run([BIN / "serve", "deploy", str(self.folder / "config.yaml"), "-a", address])
        until(lambda: self.get("/health").is_success, seconds=60)

    def get(self, path):
        try:
            return httpx.get(f"{self.url}{path}", trust_env=False, timeout=20)
        except httpx.HTTPError:
            return httpx.Response(503)

    def say(self, model):
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, trust_env=False, timeout=60)

    def replicas(self):
        answers = [self.get("/admin/registry") for _ in range(8)]
        return {a.headers["x-composer-replica"]: a.json()["generation"] for a in answers}


@pytest.fixture(scope="module")
def cluster(free_port, tmp_path_factory):
    # Ray puts sockets deep inside of its folder, and their paths must be short.
    with TemporaryDirectory(prefix="r") as short:
        cluster = Cluster(tmp_path_factory.mktemp("config"), short, free_port)
        with cluster.process:
            try:
                cluster.deploy()
                yield cluster
            finally:  # at once: when told to end, Ray takes half a minute
                for pid in (*descendants(cluster.process.pid), cluster.process.pid):
                    os.kill(pid, signal.SIGKILL)


def test_the_config_file_serves_and_the_number_of_replicas_follows_the_load(cluster):
    assert len(cluster.replicas()) == 1
    is_enough, statuses = threading.Event(), []

    def ask():
        while not is_enough.is_set():
            statuses.append(cluster.say("sloth").status_code)

    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(ask) for _ in range(12)]
        try:
            until(lambda: len(cluster.replicas()) == 2, seconds=60)
        finally:
            is_enough.set()
        for one in asking:
            one.result()
    assert set(statuses) == {200}


def test_a_new_user_config_reaches_every_replica_in_its_place(cluster):
    before = cluster.replicas()
    owl = "  - {name: owl, kind: llm, backend: echo, model: echo}\n"
    cluster.deploy(user_config={"file": FILE + owl})
    until(lambda: min(cluster.replicas().values()) == 2, seconds=60)
    assert cluster.replicas().keys() <= before.keys()
    assert cluster.say("owl").status_code == 200


def test_the_command_deploys_on_a_cluster_that_runs_and_leaves_it_serving(cluster):
    environment = {**cluster.environment, "RAY_ADDRESS": f"127.0.0.1:{cluster.port}"}
    port = cluster.url.rpartition(":")[2]
    path = str(cluster.folder / "experts.yaml")
    options = ["--no-blocking", "--port", port, "--replicas", "1"]
    said = cluster.run([*COMMAND, "deploy", path, *options], environment)
    assert f"Serving {cluster.url}/v1" in said
    assert cluster.say("bird").status_code == 200
