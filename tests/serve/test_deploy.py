"""deploy/: manifests fit their schemas, and name options, paths, ports and metrics that exist."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from served_app import Served

from nvembed_jax.cli import corpus, serve

DEPLOY = Path(__file__).parents[2] / "deploy"
CORE = "1.31"  # the version of Kubernetes whose schemas the manifests must fit
USER = 10001


def options(module) -> set[str]:
    """The options of a command, as on the command line."""
    app = typer.Typer()
    app.command()(module.command)
    found = typer.main.get_command(app).params
    return {name for param in found for name in (*param.opts, *param.secondary_opts)}


def manifests(name: str) -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "k8s" / name).read_text("utf8")))


def by_kind(name: str) -> dict[str, dict]:
    return {found["kind"]: found for found in manifests(name)}


def dockerfile() -> dict[str, list[str]]:
    """Instructions and what follows them, with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf8").replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word.isupper():
            found.setdefault(word, []).append(" ".join(rest.split()))
    return found


def is_option(variable: str) -> bool:
    """Whether an environment variable NVEMBED_... sets an option of the server."""
    name = variable.removeprefix("NVEMBED_").lower().replace("_", "-")
    return f"--{name}" in options(serve)


@pytest.fixture(scope="module")
def pod() -> dict:
    return by_kind("server.yaml")["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["server.yaml", "autoscaling.yaml"])
def test_manifests_fit_the_schemas_of_kubernetes(name):
    core = [found for found in manifests(name) if "coreos" not in found["apiVersion"]]
    assert core
    for found in core:
        kubernetes_validate.validate(found, CORE, strict=True)


def test_the_pods_of_a_ray_cluster_fit_the_schemas_of_kubernetes():
    (job,) = manifests("corpus.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        spec, metadata = group["template"]["spec"], {"name": "x", **group["template"]["metadata"]}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        kubernetes_validate.validate(made, CORE, strict=True)
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsUser"] == USER
        assert {"mountPath": "/data", "name": "data"} in spec["containers"][0]["volumeMounts"]
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["nvembed", corpus.NAME]
    assert {word for word in words if word.startswith("--")} <= options(corpus)
    workers = int(words[words.index("--workers") + 1])
    assert workers == sum(group["replicas"] for group in cluster["workerGroupSpecs"])


def test_kustomization_names_files_that_exist():
    (found,) = manifests("kustomization.yaml")
    assert all((DEPLOY / "k8s" / name).is_file() for name in found["resources"])
    image = by_kind("server.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert [entry["name"] for entry in found["images"]] == [image["image"]]


def test_probes_ask_paths_that_the_server_has(pod, embedder):
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    monitor = by_kind("autoscaling.yaml")["PodMonitor"]["spec"]["podMetricsEndpoints"][0]
    with Served({"nv": embedder}) as served:
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[kind]["httpGet"]
            assert served.get(asked["path"]).status_code == 200
            assert asked["port"] in ports
        metric = by_kind("autoscaling.yaml")["HorizontalPodAutoscaler"]["spec"]["metrics"][0]
        text = served.get(monitor["path"]).text
    assert f"\n{metric['pods']['metric']['name']} " in text
    assert monitor["port"] in ports
    service = by_kind("server.yaml")["Service"]["spec"]
    assert all(port["port"] == ports[port["targetPort"]] for port in service["ports"])


def test_selectors_find_the_pods():
    server, scaling = by_kind("server.yaml"), by_kind("autoscaling.yaml")
    labels = server["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert server["Service"]["spec"]["selector"] == labels
    for found in (server["Deployment"], server["PodDisruptionBudget"], scaling["PodMonitor"]):
        assert found["spec"]["selector"]["matchLabels"] == labels
    target = scaling["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "nvembed")


def test_pods_have_time_to_end_and_no_variables_of_services(pod):
    (container,) = pod["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    assert all(is_option(name) for name in given)
    seconds = int(given["NVEMBED_DRAIN_DELAY"]) + int(given["NVEMBED_DRAIN_TIMEOUT"])
    assert seconds + 10 <= pod["terminationGracePeriodSeconds"]
    assert pod["enableServiceLinks"] is False  # NVEMBED_PORT would be the URL of the service
    folder = next(v["mountPath"] for v in container["volumeMounts"] if v["name"] == "keys")
    assert given["NVEMBED_API_KEY_FILE"].startswith(f"{folder}/")


def test_containers_run_as_the_user_of_the_image(pod):
    made = dockerfile()
    assert made["USER"] == [str(USER)]
    assert f"--uid {USER}" in made["RUN"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == USER


def test_the_image_serves_on_the_ports_that_it_exposes(pod):
    made = dockerfile()
    given = dict(word.split("=", 1) for word in made["ENV"][0].split() if "=" in word)
    assert all(
        is_option(name)
        for name in given
        if name.startswith("NVEMBED_") and name != "NVEMBED_COMPILATION_CACHE"
    )
    ports = [given["NVEMBED_PORT"], given["NVEMBED_GRPC_PORT"]]
    assert made["EXPOSE"] == [" ".join(ports)]
    declared = [str(port["containerPort"]) for port in pod["containers"][0]["ports"]]
    assert declared == ports
    assert "/v1/health/ready" in made["HEALTHCHECK"][0]
    assert json.loads(made["CMD"][0]) == [serve.NAME]


def test_the_context_of_the_image_has_what_the_build_needs():
    kept = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf8"), re.M)
    assert set(kept) == {"pyproject.toml", "README.md", "LICENSE", "nvembed_jax"}
    assert all((DEPLOY.parent / name).exists() for name in kept)


def test_compose_fits_its_schema_and_gives_options_that_exist():
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf8"))
    place = resources.files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json")
    jsonschema.validate(found, json.loads(place.read_text("utf8")))
    server = found["services"]["nvembed"]
    assert all(is_option(name) for name in server["environment"])
    assert (DEPLOY / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert all(
        port.startswith("127.0.0.1:")
        for service in found["services"].values()
        for port in service["ports"]
    )
    assert found["services"]["qdrant"]["image"].startswith("qdrant/qdrant:v")
