"""The files of docs/deploy: parsed, and compared with the repository, the command line, the routes and the metrics."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from conftest import PROJECT, parse_command
from flask import Flask

from feedrank.api import config
from feedrank.api.cli.exit_codes import EXIT_BUSY, EXIT_REFUSED, EXIT_TOO_LITTLE
from feedrank.api.http.app import create_app
from feedrank.api.http.service import Service
from feedrank.api.metrics import Metrics
from feedrank.api.server import DRAIN_TIMEOUT_S

DEPLOY = PROJECT / "docs" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
IMAGES_HOME = "/data"


def dockerfile() -> list[tuple[str, str]]:
    """The (instruction, arguments) pairs of the Dockerfile, in order, with continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not re.match(r"\s*#", line)]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def last(instruction: str) -> str:
    """The last instruction of that name, which is the one that counts."""
    return [rest for name, rest in dockerfile() if name == instruction][-1]


def unit(name: str) -> dict[str, list[str]]:
    """The values by key of all sections of a unit."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@cache
def app() -> Flask:
    """The application, used for its route table only."""
    return create_app(Service(cast(Any, None)))


def scope(path: str) -> str:
    """The scope that GET of a path requires; fails if there is no such route."""
    endpoint, _ = app().url_map.bind("").match(path, "GET")
    kind, found = app().view_functions[endpoint].feedrank  # type: ignore[attr-defined]  # as the guards mark it
    assert kind == "none"
    return str(found)


def seconds(span: str) -> float:
    """Parse a duration such as `45s`, `15min` or `45`."""
    number, kind = re.fullmatch(r"(\d+)(s|min|)", span).groups()  # type: ignore[union-attr]
    return float(number) * (60 if kind == "min" else 1)


# --- the image


def copied() -> list[str]:
    return [one for name, rest in dockerfile() if name == "COPY" and "--from" not in rest for one in rest.split()[:-1]]


def ignored(path: str) -> bool:
    """Whether the build ignores a path: the last pattern that matches it or a parent folder decides."""
    found = False
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if pattern and not line.startswith("#"):
            anywhere = pattern.removeprefix("**/")
            names = [one.split("/")[-1] for one in above] if anywhere != pattern else above
            found = line[0] != "!" if any(fnmatch(one, anywhere) for one in names) else found
    return found


def test_the_image_copies_existing_files() -> None:
    for source in copied():
        assert (PROJECT / source).exists(), f"the Dockerfile copies {source}, which is not in the repository"
        assert not ignored(source), f"the Dockerfile copies {source}, which its .dockerignore leaves out"
    for secret in ("var/demo/keys.json", ".venv/bin/python", ".git/config", "docs/deploy/secrets/metrics_key"):
        assert ignored(secret)
    assert ignored("engine/__pycache__/watch.cpython-312.pyc")
    assert not ignored("engine/serving/deadline.py")


def test_the_image_has_what_the_package_needs() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(PROJECT / "setup.cfg")
    packages = {"engine", "features", "models", "api", setup["options.packages.find"]["where"]}
    assert packages | {"setup.cfg", "pyproject.toml", "constraints.txt"} <= set(copied())
    extras = next(rest for name, rest in dockerfile() if name == "ARG" and rest.startswith("EXTRAS="))
    assert set(extras.partition("=")[2].split(",")) <= set(setup["options.extras_require"])
    pinned = {line.partition("==")[0].lower() for line in (PROJECT / "constraints.txt").read_text().splitlines()}
    assert {"annoy", "torch"} <= pinned, "they are installed by name alone, at the version that constraints.txt has"
    versions = [re.fullmatch(r"python:(\d+\.\d+)-.*", rest.split()[0]) for name, rest in dockerfile() if name == "FROM"]
    (version,) = {found[1] for found in versions if found}
    assert f"Programming Language :: Python :: {version}" in setup["metadata"]["classifiers"]


def test_the_image_runs_unprivileged_and_forwards_signals() -> None:
    user, group = last("USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert last("STOPSIGNAL") == "SIGTERM"
    assert json.loads(last("ENTRYPOINT"))[0] == "feedrank", "a shell in between would keep the signals"
    command, parameters = parse_command(json.loads(last("ENTRYPOINT")) + json.loads(last("CMD")))
    assert (command, parameters["host"], str(parameters["folder"])) == ("serve", "0.0.0.0", IMAGES_HOME)
    assert last("VOLUME") == IMAGES_HOME
    assert re.search(r"\bHOME=(\S+)", last("ENV"))[1] == IMAGES_HOME  # type: ignore[index]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that answers /readyz with that status, and anything else with 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_the_health_check_of_the_image_reads_the_status() -> None:
    program, flag, code = json.loads(last("HEALTHCHECK").partition("CMD")[2])
    assert (program, flag) == ("python", "-c")
    assert scope("/readyz") == "open"
    assert f", {config.ServeConfig().port}, " in code

    def run(port: int) -> int:
        own = code.replace(str(config.ServeConfig().port), str(port))
        return subprocess.run([sys.executable, "-c", own], capture_output=True, timeout=30).returncode

    with answering(200) as port:
        assert run(port) == 0
    with answering(503) as port:
        assert run(port) == 1
    assert run(port) == 1, "no server listens there any more"


# --- compose


def test_paths_in_compose_exist() -> None:
    built = SERVICES["feedrank"]["build"]
    context = (DEPLOY / built["context"]).resolve()
    assert context == PROJECT
    assert (context / built["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    used: dict[str, set[str]] = {"volumes": set(), "networks": set(), "secrets": set()}
    for service in SERVICES.values():
        for kind in ("networks", "secrets"):
            used[kind] |= set(service.get(kind, []))
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), f"{source} is mounted, and not in the repository"
            else:
                used["volumes"].add(source)
    for kind, names in used.items():
        assert names == set(COMPOSE[kind]), f"the {kind} that are used are not those that are declared"


@pytest.mark.parametrize("name", SERVICES)
def test_compose_services_are_sandboxed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() >= {"cpus", "memory", "pids"}
    assert "restart" in service
    assert "healthcheck" in service or name == "feedrank", "it would have none; feedrank has that of its image"
    assert not service["image"].endswith(":latest")
    for key in service.get("environment", {}):
        assert not re.search("PASSWORD|SECRET|TOKEN|KEY", key) or key.endswith("_FILE"), f"{key}: name a file instead"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), "a proxy stands before them"


def test_compose_runs_the_image_as_it_is() -> None:
    assert not {"command", "entrypoint", "user", "healthcheck"} & SERVICES["feedrank"].keys()
    for name in ("feedrank", "work"):
        assert SERVICES[name]["image"] == SERVICES["feedrank"]["image"]
        assert f"home:{IMAGES_HOME}" in SERVICES[name]["volumes"]
        assert SERVICES[name]["environment"]["FEEDRANK_CONFIG"] == "/run/secrets/feedrank.toml"
    assert seconds(SERVICES["feedrank"]["stop_grace_period"]) > DRAIN_TIMEOUT_S


def test_the_settings_of_the_container_exist(tmp_path: Path) -> None:
    given = DEPLOY / "feedrank.toml"
    assert config.load_config(given).journal.url is None
    (tmp_path / "other.toml").write_text(re.sub(r"(?m)^# (?=\[journal\]|url = )", "", given.read_text()))
    url = config.load_config(tmp_path / "other.toml").journal.url
    assert url is not None
    assert url.startswith("postgresql+psycopg://")
    assert share_a_network("feedrank", url.partition("@")[2].partition("/")[0])


def share_a_network(one: str, other: str) -> bool:
    """Whether two services of compose share a network."""
    return bool(set(SERVICES[one]["networks"]) & set(SERVICES[other]["networks"]))


# --- Prometheus and Grafana


def test_prometheus_scrapes_served_routes() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert scope(job["metrics_path"]) == "read"
    name = Path(job["authorization"]["credentials_file"]).name
    assert name in SERVICES["prometheus"]["secrets"]
    ((target,),) = [one["targets"] for one in job["static_configs"]]
    host, port = target.split(":")
    assert share_a_network("prometheus", host)
    _, parameters = parse_command(json.loads(last("ENTRYPOINT")) + json.loads(last("CMD")))
    listens = parameters["port"] or config.load_config(DEPLOY / "feedrank.toml").serve.port
    assert {listens} == {int(port), int(last("EXPOSE")), int(SERVICES[host]["ports"][0].split(":")[-1])}


def test_alerts_use_existing_metrics() -> None:
    ((group,),) = [yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]]
    text = "\n".join(rule["expr"] for rule in group["rules"])
    known = set(re.findall(r"(?m)^# HELP (\S+)", Metrics().render()[0].decode()))
    for name in set(re.findall(r"\bfeedrank_\w+", text)):
        assert {name, re.sub("_(bucket|count|sum)$", "", name)} & known, f"there is no metric {name}"
    rules = {rule.rule for rule in app().url_map.iter_rules()}
    assert set(re.findall('route="([^"]+)"', text)) <= rules


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yaml").read_text())["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert share_a_network("grafana", host)
    assert any(one.endswith(f":{port}") for one in SERVICES[host]["ports"])
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text())["providers"]
    mounts = {
        target: DEPLOY / given for given, target, *_ in (one.split(":") for one in SERVICES["grafana"]["volumes"])
    }
    (board,) = mounts[provider["options"]["path"]].glob("*.json")
    assert json.loads(board.read_text())["uid"] == "feedrank"
    first = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(first.parent)] / first.name).is_file()


# --- systemd


@pytest.mark.parametrize("name", UNITS)
def test_units_run_existing_commands(name: str) -> None:
    entries = unit(name)
    assert entries["User"] == ["feedrank"]
    for line in entries["ExecStart"]:
        _, params = parse_command(shlex.split(line))
        assert str(params["folder"]) == f"/var/lib/{entries['StateDirectory'][0]}" == entries["WorkingDirectory"][0]


def test_the_service_stops_in_time_and_a_refusal_is_no_failure() -> None:
    entries = unit("feedrank.service")
    command, params = parse_command(shlex.split(entries["ExecStart"][0]))
    assert (command, params["host"], params["port"]) == ("serve", "127.0.0.1", config.ServeConfig().port)
    assert seconds(entries["TimeoutStopSec"][0]) > DRAIN_TIMEOUT_S
    assert (entries["Type"], entries["KillSignal"], entries["KillMode"]) == (["notify"], ["SIGTERM"], ["mixed"])
    assert "MemoryDenyWriteExecute" not in entries, "numba writes machine code and runs it"
    assert unit("feedrank-retrain.service")["SuccessExitStatus"] == [f"{EXIT_REFUSED} {EXIT_TOO_LITTLE}"]


def test_the_page_on_timers_lists_all_exit_codes() -> None:
    codes = [0, 1, EXIT_REFUSED, EXIT_TOO_LITTLE, EXIT_BUSY]
    assert len(set(codes)) == 5
    page = (PROJECT / "docs" / "how-to" / "retrain-every-night.md").read_text()
    assert sorted(map(int, re.findall(r"(?m)^\| (\d) \|", page))) == sorted(codes)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    unit_folder, program = tmp_path / "etc/systemd/system", tmp_path / "opt/feedrank/bin/feedrank"
    for folder in (unit_folder, program.parent):
        folder.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    names = [*UNITS, "feedrank-retrain.timer"]
    for name in names:
        shutil.copy(DEPLOY / name, unit_folder)
    done = subprocess.run(["systemd-analyze", "verify", f"--root={tmp_path}", *names], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "feedrank" in line]) == (0, [])


# --- the document


def test_every_command_of_the_pages_exists() -> None:
    pages = ("deploy.md", "operate.md", "several-machines.md")
    text = "\n".join((PROJECT / "docs" / "how-to" / page).read_text() for page in pages)
    pattern = r"(?m)^    (?:feedrank |.*/bin/feedrank |docker compose run .* work )(.*?)(?: [>#] .*)?$"
    found = re.findall(pattern, text)
    assert len(found) > 12
    for words in found:
        parse_command(["feedrank", *shlex.split(words)])
    for path in DEPLOY.iterdir():
        assert path.name in text, f"docs/how-to/deploy.md does not say what {path.name} is"
