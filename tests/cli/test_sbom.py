"""`modelkeep sbom`: the packages of an environment, or of files, as CycloneDX."""

import json
import warnings

from command import modelkeep

from modelkeep.adapters.installed_packages import installed_packages


def taken(text, spec):
    """Whether the published schema takes a document."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cyclonedx.schema import SchemaVersion  # noqa: PLC0415 - half a second
        from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

        return JsonStrictValidator(SchemaVersion.from_version(spec)).validate_str(text) is None


def test_the_environment_that_serves_is_listed_with_licences_and_needs():
    text = modelkeep("sbom").out
    assert taken(text, "1.6")
    found = json.loads(text)
    parts = {each["name"]: each for each in found["components"]}
    assert sorted(parts) == [each.name for each in installed_packages()]
    assert parts["msgspec"]["purl"].startswith("pkg:pypi/msgspec@")
    assert parts["cryptography"]["licenses"] == [{"expression": "Apache-2.0 OR BSD-3-Clause"}]
    needs = {each["ref"]: each.get("dependsOn", []) for each in found["dependencies"]}
    assert parts["cffi"]["bom-ref"] in needs[parts["cryptography"]["bom-ref"]]
    assert found["metadata"]["component"]["type"] == "platform"


def test_files_are_listed_with_the_digests_that_they_demand(tmp_path):
    lock, out = tmp_path / "requirements.lock", tmp_path / "sbom.json"
    lock.write_text("numpy==2.0 --hash=sha256:" + "a1" * 32 + "\nfoo>=1\n")
    said = modelkeep("sbom", lock, "--output", out, "--spec", "1.7", "--json").json
    assert (said["spec"], said["size_bytes"]) == ("1.7", out.stat().st_size)
    assert taken(out.read_text(), "1.7")
    first, second = json.loads(out.read_text())["components"]
    assert first["hashes"] == [{"alg": "SHA-256", "content": "a1" * 32}]
    assert (second["purl"], "version" in second) == ("pkg:pypi/foo", False)
    error = modelkeep("sbom", lock, "--output", out, "--json", wanted=2).error
    assert error["code"] == "file.exists"
    modelkeep("sbom", lock, "--output", out, "--force")
