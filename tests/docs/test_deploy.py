"""What configs/deploy has parses, and agrees with itself and with kq. Nothing here needs a container runtime."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from kq.cli.failing import CONFIG, USAGE, exit_code_of
from kq.errors import ConfigError, all_errors
from kq.state.store import StoreUnreachable
from kq.units import parse_duration
from kq.url import host_and_port
from kq.values import config, metrics
from kq.values.given import load
from kq.values.snapshot import History, QueueRow, SingletonRow, Snapshot, WorkerRow
from kq.values.tally import Spread, Tally, Wait, Work
from kq.web.guard import LIVE
from kq.web.looks import LOOKS
from kq.web.openapi import API
from tests.docs.pages import ROOT
from tests.docs.test_pages import parse

DEPLOY = ROOT / "configs" / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
#: Environment variables that kq reads.
SETTINGS = {*(f"KQ_{key.upper().replace('.', '_')}" for key in config.SCHEMA), "KQ_CONFIG"}
UNIT = DEPLOY / "systemd" / "kq-worker.service"


def tool(name: str, source: str = "pip install --group deploy") -> str:
    """A checker that need not be there. source: what brings it."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; {source}")
    return found


def checked(*words: str | Path) -> None:
    """Run a checker, which must find nothing."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def command(words: list[str]) -> None:
    """Raise unless these are the arguments of a kq that exists."""
    parse(shlex.join(["kq", *words]))


# The image.


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile, one a line."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def test_the_image_is_built_in_two_stages_of_what_is_there() -> None:
    told = instructions()
    assert [name for name, _ in told if name == "FROM"] == ["FROM", "FROM"]
    copied = [rest.split()[:-1] for name, rest in told if name == "COPY" and not rest.startswith("--from")]
    assert all((ROOT / source).exists() for sources in copied for source in sources)
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source for sources in copied for source in sources} == kept


def test_the_image_has_all_that_the_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    whole = {name.partition("/")[0] for name in [*packages, *project["project"]["license-files"]]}
    copied = {word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    assert whole | {project["project"]["readme"], "pyproject.toml"} <= copied


def test_the_image_runs_kq_as_nobody_special_and_hears_signals() -> None:
    last = dict(instructions())  # of each instruction the last
    assert int(last["USER"]) > 0
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["ENTRYPOINT"]) == ["kq"]  # a list: no shell between
    command(json.loads(last["CMD"]))


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    checked(tool("hadolint"), DEPLOY / "Dockerfile")


# Compose.


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_compose_names_what_is_there() -> None:
    services = compose()["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / source).resolve().is_dir()
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert (context / service["build"]["dockerfile"]) == DEPLOY / "Dockerfile"
            command(service["command"])
            command(service.get("healthcheck", {}).get("test", ["CMD", "kq", "doctor"])[2:])
            assert {name for name in service["environment"] if name.startswith("KQ_")} <= SETTINGS
            assert int(service["user"]) > 0
            assert (ROOT / "examples" / f"{service['environment']['KQ_APP'].partition(':')[0]}.py").exists()


def test_composes_redis_keeps_what_it_was_given() -> None:
    words = compose()["services"]["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")


def test_compose_waits_until_jobs_have_finished() -> None:
    patience = parse_duration(compose()["services"]["worker"]["stop_grace_period"])
    assert patience > config.Config().worker.grace


# Kubernetes.


def manifests(kind: str = "") -> Iterator[dict[str, Any]]:
    """The resources, of a kind."""
    for path in MANIFESTS:
        for resource in yaml.safe_load_all(path.read_text()):
            if resource["kind"] == kind or (not kind and resource["kind"] != "Kustomization"):
                yield resource


def containers(*names: str) -> Iterator[dict[str, Any]]:
    """The containers of Deployments, one each."""
    for found in manifests("Deployment"):
        if found["metadata"]["name"] in names:
            yield from found["spec"]["template"]["spec"]["containers"]


def settings(folder: Path) -> config.Config:
    """What the ConfigMap says, with a secret where it is mounted."""
    (resource,) = manifests("ConfigMap")
    (folder / "url").write_text("redis://:hush@redis:6379/0\n")
    (folder / "kq.yaml").write_text(resource["data"]["kq.yaml"].replace("/run/secrets/kq", str(folder)))
    return load(file=folder / "kq.yaml", environ={}, folder=folder).config


def test_the_manifests_are_all_of_the_kustomization() -> None:
    (written,) = manifests("Kustomization")
    others = {path.name for path in MANIFESTS} - {"kustomization.yaml"}
    assert set(written["resources"]) == others
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in manifests()]
    assert len(names) == len(set(names))


def test_the_settings_of_the_pods_are_settings_and_the_url_is_a_secret(tmp_path: Path) -> None:
    assert settings(tmp_path).url == "redis://:hush@redis:6379/0"


@pytest.mark.parametrize("name", ["kq-worker", "kq-control", "kq-web"])
def test_a_deployment_selects_its_pods_and_mounts_what_it_names(name: str, tmp_path: Path) -> None:
    (found,) = [each for each in manifests("Deployment") if each["metadata"]["name"] == name]
    spec = found["spec"]["template"]["spec"]
    assert found["spec"]["selector"]["matchLabels"].items() <= found["spec"]["template"]["metadata"]["labels"].items()
    (container,) = spec["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in spec["volumes"]}
    (url,) = re.findall(r"url_file: (\S+)", next(manifests("ConfigMap"))["data"]["kq.yaml"])
    assert mounted["url"] == str(Path(url).parent)
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert {name for name in environment if name.startswith("KQ_")} <= SETTINGS
    assert Path(environment["KQ_CONFIG"]).parent == Path(mounted["settings"])
    command(container["args"])


def test_pods_are_nobody_special_and_are_given_time_to_finish(tmp_path: Path) -> None:
    for found in manifests("Deployment"):
        spec = found["spec"]["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] == int(dict(instructions())["USER"])
        for container in spec["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert not container["securityContext"]["allowPrivilegeEscalation"]
    worker = next(each for each in manifests("Deployment") if each["metadata"]["name"] == "kq-worker")
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > settings(tmp_path).worker.grace


def test_probes_ask_what_is_answered() -> None:
    for container in containers("kq-worker", "kq-control"):
        said = dict(zip(container["args"], container["args"][1:], strict=False))["--health"]
        (port,) = [each for each in container["ports"] if each["name"] == "health"]
        assert port["containerPort"] == host_and_port(said)[1]
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "health"}


def test_the_page_is_probed_where_it_listens_and_called_by_a_name_that_it_knows(tmp_path: Path) -> None:
    (container,) = containers("kq-web")
    (port,) = container["ports"]
    said = dict(zip(container["args"], container["args"][1:], strict=False))["--listen"]
    assert host_and_port(said) == ("0.0.0.0", port["containerPort"])
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": LIVE, "port": port["name"]}
    (service,) = manifests("Service")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["metadata"]["name"] in settings(tmp_path).web.hosts


def test_the_manifests_are_as_kubernetes_wants_them() -> None:
    resources = [path for path in MANIFESTS if path.name != "kustomization.yaml"]
    checked(tool("kubernetes-validate"), "--strict", *resources)


def test_what_may_be_disturbed_is_what_runs() -> None:
    (budget,) = manifests("PodDisruptionBudget")
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in manifests("Deployment")]
    assert budget["spec"]["selector"]["matchLabels"] in labels


# Prometheus, Grafana and KEDA: what they ask for is what /metrics tells.

RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARD = DEPLOY / "grafana" / "kq.json"
_SHOT = Snapshot(
    at=0.0,
    round_trip=0.001,
    queues=(QueueRow(name="q", oldest=0.0, wait_p95=0.0, came=0.0, drain=0.0, retrying=0, duplicates={"join": 1}),),
    workers=(WorkerRow(name="w", state="alive", beat_age=0.0, lease=15.0, lease_left=15.0, slots=1),),
    singletons=(SingletonRow(queue="q"),),
    history=History(sent={"q": 1}),
)


def told() -> dict[str, set[str]]:
    """All that /metrics may tell: names as they are scraped, and their labels."""
    found: dict[str, set[str]] = {}
    work, answers = Tally("w", 0.0, 0.0, [Work("q", "t", done=1)], waits=[Wait("q", 0)]), Spread()
    answers.add(0.001)
    for metric in (*metrics.of_worker(work), *metrics.of_all(_SHOT, answers), metrics.of_build("1", "redis")):
        for sample in metric.samples:
            found.setdefault(metric.name + sample.suffix, set()).update(sample.labels)
    return found


def promises(expression: str) -> None:
    """Raise unless a query asks for nothing but what is told, by labels that it has."""
    known = told()
    names = set(re.findall(r"\bkq_\w+", expression))
    assert names, expression
    assert names <= set(known), expression
    for name, matchers in re.findall(r"\b(kq_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=|!)", matchers)) <= known[name], expression
    for labels in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        assert set(re.findall(r"\w+", labels)) <= set().union(*(known[name] for name in names)), expression


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def test_the_docs_name_each_metric_that_is_told() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`(kq_\w+)`", text))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in told()} == named


def test_the_dashboard_asks_for_what_is_told() -> None:
    written = dashboard()
    variables = {each["name"] for each in written["templating"]["list"]}
    for panel in written["panels"]:
        assert panel["type"] in ("row", "stat", "timeseries", "table")
        for target in panel.get("targets", []):
            promises(target["expr"])
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert labels <= set().union(*told().values()) | {"instance"}
            assert target["datasource"]["uid"] == "${datasource}"
    (queue,) = [each for each in written["templating"]["list"] if each["name"] == "queue"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", queue["definition"]).groups()  # type: ignore[union-attr]
    assert label in told()[name]


def test_the_dashboards_panels_stand_beside_each_other() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_alerts_ask_for_what_is_told_and_name_a_command() -> None:
    for rule in alerts():
        promises(rule["expr"])
        said = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= set().union(*told().values())
        words = re.sub(r"\{\{.*?\}\}", "x", rule["annotations"]["description"])
        command(shlex.split(words)[1:])
        assert rule["labels"]["severity"] in ("page", "ticket")


#: What is told for an hour while all is well, in Prometheus' notation for its own tests.
WELL = {
    'kq_queue_oldest_seconds{queue="q"}': "1x99",
    'kq_queue_jobs{queue="q",state="ready"}': "5x99",
    'kq_queue_workers{queue="q"}': "1x99",
    'kq_queue_paused{queue="q"}': "0x99",
    'kq_queue_arrival_rate{queue="q"}': "1x99",
    'kq_queue_drain_seconds{queue="q"}': "10x99",
    "kq_broker_up": "1x99",
    'kq_singleton_leader{queue="q",worker="w"}': "1x99",
    "kq_side_effects_in_doubt": "0x99",
    'kq_jobs_total{queue="q",type="t",outcome="buried"}': "0x99",
    'kq_workers{state="dead"}': "0x99",
}
#: What makes each alert ring instead, and after how many minutes.
RINGS = {
    "KqJobsWait": ({'kq_queue_oldest_seconds{queue="q"}': "400x99"}, 6),
    "KqNobodyWorks": ({'kq_queue_workers{queue="q"}': "0x99"}, 6),
    "KqBrokerLost": ({"kq_broker_up": "0x99"}, 3),
    "KqSingletonStands": ({'kq_singleton_leader{queue="q",worker="w"}': "0x99"}, 2),
    "KqEffectInDoubt": ({"kq_side_effects_in_doubt": "1x99"}, 1),
    "KqJobsBuried": ({'kq_jobs_total{queue="q",type="t",outcome="buried"}': "0+1x99"}, 3),
    "KqQueueGrows": ({'kq_queue_drain_seconds{queue="q"}': "_x99"}, 31),
    "KqWorkerDied": ({'kq_workers{state="dead"}': "1x99"}, 1),
    "KqQueuePaused": ({'kq_queue_paused{queue="q"}': "1x99"}, 61),
}


def test_each_alert_rings_when_it_should_and_no_other_does(tmp_path: Path) -> None:
    assert {rule["alert"] for rule in alerts()} == set(RINGS)
    cases = [({}, 61, set[str]()), *((bad, minutes, {name}) for name, (bad, minutes) in RINGS.items())]
    tests = []
    for bad, minutes, ringing in cases:
        series = [{"series": name, "values": values} for name, values in {**WELL, **bad}.items()]
        expected = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in ringing]
        asked = {"expr": 'group by (alertname) (ALERTS{alertstate="firing"})', "eval_time": f"{minutes}m"}
        tests.append(
            {"interval": "1m", "input_series": series, "promql_expr_test": [asked | {"exp_samples": expected}]}
        )
    path = tmp_path / "rules_test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    checked(tool("promtool", "apt-get install prometheus"), "test", "rules", path)


def test_prometheus_takes_its_configuration() -> None:
    program = tool("promtool", "apt-get install prometheus")
    checked(program, "check", "config", DEPLOY / "prometheus" / "prometheus.yaml")


def test_the_pods_that_tell_are_scraped() -> None:
    monitor = yaml.safe_load((DEPLOY / "prometheus" / "podmonitor.yaml").read_text())["spec"]
    (chosen,), (endpoint,) = monitor["selector"]["matchExpressions"], monitor["podMetricsEndpoints"]
    for container in containers(*chosen["values"]):
        assert "--health" in container["args"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
    telling = {found["metadata"]["name"] for found in manifests("Deployment")} - {"kq-web"}
    assert set(chosen["values"]) == telling


@pytest.mark.parametrize("name", ["by-prometheus.yaml", "by-api.yaml"])
def test_keda_scales_what_is_there_by_how_long_jobs_wait(name: str) -> None:
    resources = list(yaml.safe_load_all((DEPLOY / "keda" / name).read_text()))
    (scaled,) = [each for each in resources if each["kind"] == "ScaledObject"]
    spec = scaled["spec"]
    (worker,) = [each for each in manifests("Deployment") if each["metadata"]["name"] == spec["scaleTargetRef"]["name"]]
    assert spec["minReplicaCount"] <= worker["spec"]["replicas"] <= spec["fallback"]["replicas"]
    (trigger,) = spec["triggers"]
    asks = trigger["metadata"]
    if trigger["type"] == "prometheus":
        promises(asks["query"])
        assert float(asks["threshold"]) > 0
    else:
        address = urlsplit(asks["url"])
        (service,) = manifests("Service")
        assert address.hostname == service["metadata"]["name"]
        assert address.port == service["spec"]["ports"][0]["port"]
        assert address.path.removeprefix(API) in {look.path for look in LOOKS}
        field = re.fullmatch(r'queues\.#\(name=="default"\)\.(\w+)', asks["valueLocation"])
        assert field is not None
        assert field[1] in msgspec.to_builtins(_SHOT)["queues"][0]
        names = {each["metadata"]["name"] for each in resources if each["kind"] == "TriggerAuthentication"}
        assert trigger["authenticationRef"]["name"] in names


# systemd.


def unit() -> dict[str, list[str]]:
    """The settings of the unit, which may stand several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_a_worker_again_after_all_but_wrong_usage_and_wrong_settings() -> None:
    assert unit()["RestartPreventExitStatus"] == [f"{USAGE} {CONFIG}"]
    kinds: list[type[Exception]] = [*all_errors(), StoreUnreachable]
    lasting = {kind for kind in kinds if exit_code_of(kind.__new__(kind)) in (USAGE, CONFIG)}
    assert lasting == {kind for kind in kinds if issubclass(kind, ConfigError)}


def test_the_unit_runs_a_worker_that_finishes_its_jobs(tmp_path: Path) -> None:
    told = unit()
    (line,) = told["ExecStart"]
    command(shlex.split(line)[1:])
    assert told["KillMode"] == ["mixed"]  # TERM is for the supervisor alone
    (patience,) = told["TimeoutStopSec"]
    (tmp_path / "kq_url").write_text("redis://:hush@h/0")
    loaded = load(
        file=ROOT / "configs" / "production.yaml", environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}, folder=tmp_path
    )
    assert loaded.config.url == "redis://:hush@h/0"
    assert parse_duration(patience) > loaded.config.worker.grace
    assert told["User"] != ["root"]
    assert told["Type"] == ["notify"]  # which kq worker tells: see tests/worker/test_health.py
    assert parse_duration(told["WatchdogSec"][0]) > loaded.config.lease.length


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tool("systemd-analyze")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/kq/bin/kq", sys.executable))
    done = subprocess.run(
        [program, "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    wrong = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.name in line]
    assert wrong == []
