"""`modelkeep tenants`: whose models and principals are kept apart."""


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
