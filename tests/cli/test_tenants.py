"""`modelkeep tenants`: whose models and principals are kept apart."""

from onnx_models import two_models


def test_a_tenant_has_a_domain_and_principals(desk):
    assert desk.json("tenants", "new", "acme") == {"name": "acme", "domain": "acme"}
    assert "domain acme" in desk.run("tenants", "new", "acme").out
    assert "acme" in desk.run("tenants", "list").out
    assert [each["name"] for each in desk.json("tenants", "list")] == ["acme", "default"]
    desk.run("principals", "new", "eve", "--tenant", "acme", "--role", "caller")
    desk.run("tokens", "new", "eve")
    assert [each["tenant"] for each in desk.json("tokens", "list")] == ["acme"]
    assert desk.kinds().count("tenant.created") == 1


def test_a_domain_is_not_shared(desk):
    desk.run("tenants", "new", "acme", "--domain", "keys")
    words = ("tenants", "new", "zeta", "--domain", "keys")
    assert desk.refusal(*words, wanted=3) == "tenant.domain"
    assert "domain keys belongs to tenant acme" in desk.run(*words, wanted=3).err
    assert "is there already, with domain keys" in desk.run("tenants", "new", "acme", wanted=3).err


def test_a_domain_of_another_tenant_is_named_with_its_tenant(desk):
    desk.run("keys", "new", "acme")
    said = desk.run("tenants", "new", "acme", wanted=3).err
    assert "domain acme belongs to tenant default" in said
    assert "`modelkeep keys new OTHER --tenant NAME`" in said


def test_a_new_tenant_is_told_how_its_domain_gets_a_key(desk):
    said = desk.run("tenants", "new", "beta").out
    assert "next: `modelkeep keys new beta --tenant beta`" in said
    desk.run("keys", "new", "beta", "--tenant", "beta")
    assert "next" not in desk.run("tenants", "new", "beta").out
    desk.run("admit", two_models()[0], "--name", "digits", "--domain", "beta")
    (domain,) = (each for each in desk.json("keys", "list")["domains"] if each["name"] == "beta")
    assert (domain["tenant"], domain["models"]) == ("beta", ["digits:1"])
