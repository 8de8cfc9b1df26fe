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

import pytest
import yaml

from kq import config
from kq.units import parse_duration
from kq.url import host_and_port
from tests.docs.pages import ROOT
from tests.docs.test_pages import parse

DEPLOY = ROOT / "configs" / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNIT = DEPLOY / "systemd" / "kq-worker.service"


def tool(name: str) -> str:
    """A checker that need not be there: `pip install --group deploy` brings it."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; pip install --group deploy")
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


def settings(folder: Path) -> config.Config:
    """What the ConfigMap says, with a secret where it is mounted."""
    (resource,) = manifests("ConfigMap")
    (folder / "url").write_text("redis://:hush@redis:6379/0\n")
    (folder / "kq.yaml").write_text(resource["data"]["kq.yaml"].replace("/run/secrets/kq", str(folder)))
    return config.load(file=folder / "kq.yaml", environ={}, folder=folder).config


def test_the_manifests_are_all_of_the_kustomization() -> None:
    (written,) = manifests("Kustomization")
    others = {path.name for path in MANIFESTS} - {"kustomization.yaml"}
    assert set(written["resources"]) == others
    names = [(resource["kind"], resource["metadata"]["name"]) for resource in manifests()]
    assert len(names) == len(set(names))


def test_the_settings_of_the_pods_are_settings_and_the_url_is_a_secret(tmp_path: Path) -> None:
    assert settings(tmp_path).url == "redis://:hush@redis:6379/0"


@pytest.mark.parametrize("name", ["kq-worker", "kq-control"])
def test_a_deployment_selects_its_pods_and_mounts_what_it_names(name: str, tmp_path: Path) -> None:
    (found,) = [each for each in manifests("Deployment") if each["metadata"]["name"] == name]
    spec = found["spec"]["template"]["spec"]
    assert found["spec"]["selector"]["matchLabels"].items() <= found["spec"]["template"]["metadata"]["labels"].items()
    (container,) = spec["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in spec["volumes"]}
    (url,) = re.findall(r"url_file: (\S+)", next(manifests("ConfigMap"))["data"]["kq.yaml"])
    assert mounted["url"] == str(Path(url).parent)
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
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
    for found in manifests("Deployment"):
        (container,) = found["spec"]["template"]["spec"]["containers"]
        said = dict(zip(container["args"], container["args"][1:], strict=False))["--health"]
        (port,) = [each for each in container["ports"] if each["name"] == "health"]
        assert port["containerPort"] == host_and_port(said)[1]
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "health"}


def test_the_manifests_are_as_kubernetes_wants_them() -> None:
    resources = [path for path in MANIFESTS if path.name != "kustomization.yaml"]
    checked(tool("kubernetes-validate"), "--strict", *resources)


def test_what_may_be_disturbed_is_what_runs() -> None:
    (budget,) = manifests("PodDisruptionBudget")
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in manifests("Deployment")]
    assert budget["spec"]["selector"]["matchLabels"] in labels


# systemd.


def unit() -> dict[str, list[str]]:
    """The settings of the unit, which may stand several times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_runs_a_worker_that_finishes_its_jobs(tmp_path: Path) -> None:
    told = unit()
    (line,) = told["ExecStart"]
    command(shlex.split(line)[1:])
    assert told["KillMode"] == ["mixed"]  # TERM is for the supervisor alone
    (patience,) = told["TimeoutStopSec"]
    (tmp_path / "kq_url").write_text("redis://:hush@h/0")
    loaded = config.load(
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
