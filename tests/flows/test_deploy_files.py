"""The files of `deploy/`: they render, Kubernetes takes them, and they stay tight.

Method: the chart is rendered with Go's own text/template (what Helm uses), with its defaults and
with everything on, then held against Kubernetes' schemas where `kubernetes_validate` is installed.
Neither Helm nor a cluster takes part.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from modelkeep.cli.parser import parser

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "modelkeep"
RENDER = ROOT / "tests" / "support" / "chart_render.go"
EVERYTHING = {
    "image": {"digest": "sha256:" + "0" * 64},
    "key": {"source": "exec:/keys/unwrap", "secretName": "keep-key"},
    "keep": {"storageClass": "local"},
    "service": {"grpcPort": 8444},
    "arguments": ["--engine", "ray"],
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "apps"}}}],
        "egress": [
            {
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "ports": [{"port": 443, "protocol": "TCP"}],
            }
        ],
    },
    "podDisruptionBudget": {"enabled": True},
    "serviceMonitor": {"enabled": True, "tokenSecretName": "metrics", "caConfigMap": "keep-ca"},
}
CLAIMED = {"keep": {"existingClaim": "keep"}, "networkPolicy": {"enabled": False}}


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go")
    made = tmp_path_factory.mktemp("render") / "render"
    environment = {**os.environ, "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    subprocess.run([go, "build", "-o", made, RENDER], check=True, env=environment)
    return made


def merged(values, changes):
    deeper = {
        key: merged(values[key], value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return {**values, **deeper}


def rendered(renderer, changes):
    """The chart's objects by kind."""
    values = merged(yaml.safe_load((CHART / "values.yaml").read_text()), changes)
    given = {"Values": values, "Release": {"Name": "keep", "Service": "Helm"}}
    done = subprocess.run(
        [renderer, CHART], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


@pytest.fixture(scope="module", params=[{}, EVERYTHING, CLAIMED], ids=["plain", "all", "claimed"])
def objects(request, renderer):
    return rendered(renderer, request.param)


def served_words(container):
    """The command line that a container runs, read by the command line's own grammar."""
    assert container["command"][-2:] == ["-m", "modelkeep"]
    return parser().parse_args(container["args"])


def is_tight(pod, container):
    whole = {**pod.get("securityContext", {}), **container["securityContext"]}
    return (
        whole["runAsNonRoot"]
        and whole["runAsUser"] > 0
        and whole["seccompProfile"]["type"] == "RuntimeDefault"
        and whole["readOnlyRootFilesystem"]
        and not whole["allowPrivilegeEscalation"]
        and whole["capabilities"] == {"drop": ["ALL"]}
    )


def test_the_chart_renders_what_a_keep_needs_and_no_secret(objects):
    assert {"StatefulSet", "Service"} <= set(objects)
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert is_tight(pod, container)
    assert pod["automountServiceAccountToken"] is False
    assert "env" not in container
    assert served_words(container).verb == "serve"
    assert objects["StatefulSet"]["spec"]["replicas"] == 1
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"].startswith("/v2/health/")
        assert asked["scheme"] == "HTTPS"
    assert "Secret" not in objects
    selector = objects["StatefulSet"]["spec"]["selector"]["matchLabels"]
    assert objects["Service"]["spec"]["selector"] == selector
    volumes = {each["name"] for each in pod["volumes"]}
    claims = objects["StatefulSet"]["spec"].get("volumeClaimTemplates", ())
    named = volumes | {each["metadata"]["name"] for each in claims}
    assert {each["name"] for each in container["volumeMounts"]} == named


def test_with_everything_on_there_is_everything(renderer):
    kinds = set(rendered(renderer, EVERYTHING))
    assert kinds == {
        *("StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor")
    }


def test_the_chart_is_what_kubernetes_takes(objects):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs the schemas")
    for kind, each in objects.items():
        if kind != "ServiceMonitor":  # a kind of the Prometheus operator
            kubernetes_validate.validate(each, "1.31", strict=True)


def test_every_value_of_the_chart_is_explained_and_used():
    text = (CHART / "values.yaml").read_text()
    templates = "".join(each.read_text() for each in (CHART / "templates").iterdir())
    values = yaml.safe_load(text)
    for table, value in values.items():
        keys = value if isinstance(value, dict) and table != "seccompProfile" else ()
        for name in [f"{table}.{key}" for key in keys if table != "resources"] or [table]:
            assert re.search(rf"\.Values\.{name}\b", templates), name
    assert set(re.findall(r"\.Values\.(\w+)", templates)) <= set(values)


def test_the_runtime_of_kserve_serves_a_keep_and_stays_tight():
    runtime = yaml.safe_load((DEPLOY / "kserve" / "runtime.yaml").read_text())
    service = yaml.safe_load((DEPLOY / "kserve" / "inferenceservice.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert is_tight({}, container)
    assert runtime["spec"]["protocolVersions"] == ["v2"]
    assert served_words(container).verb == "serve"
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    assert service["spec"]["predictor"]["maxReplicas"] == 1


def test_the_image_starts_as_nobody_and_runs_a_command_line_that_is_one():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    entry = json.loads(next(each for each in lines if each.startswith("ENTRYPOINT"))[11:])
    command = json.loads(next(each for each in lines if each.startswith("CMD"))[4:])
    assert "USER 10001:10001" in lines
    words = entry[entry.index("modelkeep", 1) + 1 :] + command
    assert parser().parse_args(words).verb == "serve"
