"""modelkeep.toml: every key is known, typed and bounded, and no bytes do more than be refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.config import StoreSettings, explained, new_config_text, parsed_config
from modelkeep.core.errors import ConfigError
from modelkeep.core.limits import CONFIG_BYTES_MAX

KEEP_ID = "0123456789abcdef"
STORES = '[[stores]]\nlabel = "main"\npath = "stores/main"\n'
LEAST = f'keep_id = "{KEEP_ID}"\n{STORES}'
NUMBERS = [each.key for each in explained() if each.type in ("int", "float")]
FLOATS = [each.key for each in explained() if each.type == "float"]


def parsed(text):
    return parsed_config(text.encode() if isinstance(text, str) else text, what="modelkeep.toml")


def with_key(key, value):
    table, _, name = key.rpartition(".")
    return parsed(f"{LEAST}[{table}]\n{name} = {value}\n")


def code_of(text):
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    assert "modelkeep.toml" in refused.value.message
    return refused.value.code


def test_the_least_that_is_a_configuration():
    config = parsed(LEAST)
    assert config.stores == (StoreSettings(label="main", path="stores/main"),)
    assert config.serve.replicas == 2


def test_what_init_writes_is_read_back():
    stores = (
        StoreSettings(label="main", path="stores/main"),
        StoreSettings(label="off", path='/mnt/a "quoted" \\ path/ü'),
    )
    text = new_config_text(keep_id=KEEP_ID, stores=stores, host="::1", port=1, source="file:/k")
    config = parsed(text)
    assert (config.keep_id, config.stores) == (KEEP_ID, stores)
    assert (config.serve.host, config.serve.port) == ("::1", 1)


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_written_is_read_back_or_refused(label, path, host):
    stores = (StoreSettings(label=label, path=path),)
    try:
        text = new_config_text(
            keep_id=KEEP_ID, stores=stores, host=host, port=0, source="passphrase"
        )
        config = parsed(text.encode())
    except ConfigError:
        return
    assert config.stores == stores
    assert config.serve.host == host


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_config_error(raw):
    for given_raw in (raw, LEAST.encode() + raw, b"[serve]\nhost = " + raw):
        with contextlib.suppress(ConfigError):
            parsed(given_raw)


@given(st.sampled_from(NUMBERS), st.integers(-(2**70), 2**70) | st.floats())
def test_no_number_raises_anything_but_a_config_error(key, number):
    with contextlib.suppress(ConfigError):
        with_key(key, number)


@pytest.mark.parametrize(
    "text",
    [
        f"{LEAST}unknown = 1",
        f"{LEAST}[serve]\nreplica = 2",
        f"{LEAST}[unknown]\na = 1",
        f"{LEAST}[serve]\nport = '8443'",
        f"{LEAST}[serve]\nport = 84.43",
        f"{LEAST}[serve]\nport = true",
        f"{LEAST}[serve]\nmodels = 'digits'",
        f"{LEAST}[serve]\nmodels = [1]",
        f"{LEAST}serve = 1",
        f"{LEAST}[objectives]\nrto_s_max = 'soon'",
        f"{LEAST}[objectives]\nrto_s_max = 2026-01-01",
        STORES,
        f'keep_id = "{KEEP_ID}"',
        f"keep_id = 1\n{STORES}",
        f'keep_id = "{KEEP_ID}"\nstores = "main"',
        f'keep_id = "{KEEP_ID}"\n[[stores]]\npath = "x"',
    ],
)
def test_unknown_keys_wrong_types_and_missing_ones_are_refused(text):
    assert code_of(text) == "config.key"


@pytest.mark.parametrize("text", ["[", "a = ", "\0", "a = 1\na = 2", "x = '''", b"\xff\xfe"])
def test_what_is_no_toml_is_refused(text):
    assert code_of(text) == "config.toml"


def test_nesting_without_end_is_refused():
    assert code_of(f"{LEAST}x = " + "[" * 100_000) == "config.toml"


def test_the_largest_file_is_read_and_one_byte_more_is_not():
    filler = "#" * (CONFIG_BYTES_MAX - len(LEAST))
    assert parsed(LEAST + filler).keep_id == KEEP_ID
    assert code_of(LEAST + filler + "#") == "config.size"


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("serve.port", 0, 65535),
        ("serve.replicas", 1, 64),
        ("serve.threads", 1, 256),
        ("serve.batch_rows_max", 1, 4096),
        ("vault.pack_bytes", 4 * 2**20, 128 * 2**20),
        ("vault.segment_bytes", 4096, 16 * 2**20),
    ],
)
def test_a_bound_is_accepted_and_one_past_it_is_not(key, least, most):
    for value in (least, most):
        with_key(key, value)
    for value in (least - 1, most + 1):
        with pytest.raises(ConfigError) as refused:
            with_key(key, value)
        assert refused.value.code == "config.value"
        assert key.partition(".")[0] in refused.value.message


def accepted(keys, value):
    """The keys that take such a value."""
    found = []
    for key in keys:
        try:
            with_key(key, value)
        except ConfigError:
            continue
        found.append(key)
    return found


def test_no_number_may_be_negative():
    integers = [key for key in NUMBERS if key not in FLOATS]
    assert accepted(integers, "-1") == []
    assert accepted(FLOATS, "-0.001") == []


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_float_is_a_finite_number(value):
    """`nan` compares false with everything: an objective of nan would always be met."""
    assert accepted(FLOATS, value) == []


@pytest.mark.parametrize("key", ["objectives.rto_s_max", "objectives.rpo_s_max"])
def test_an_objective_is_above_zero(key):
    assert with_key(key, "0.001")
    with pytest.raises(ConfigError):
        with_key(key, "0.0")


# What would stop the service, or spin it, at zero.
ABOVE_ZERO = [
    "gate.body_bytes_max",
    "gate.header_bytes_max",
    "gate.headers_max",
    "gate.bodies_bytes_max",
    "gate.connections_max",
    "gate.calls_in_flight_max",
    "gate.read_timeout_s",
    "gate.call_timeout_s",
    "gate.handshake_timeout_s",
    "gate.tokens_reload_s",
    "ledger.publish_interval_s",
    "ledger.batch_interval_s",
    "ledger.batch_records_max",
    "ledger.wal_segment_bytes_max",
    "ledger.checkpoints_kept",
    "argon2.memory_kib",
    "argon2.passes",
    "argon2.lanes",
]


def test_what_cannot_work_at_zero_is_refused_at_zero():
    floats = [key for key in ABOVE_ZERO if key in FLOATS]
    integers = [key for key in ABOVE_ZERO if key not in FLOATS]
    assert set(ABOVE_ZERO) <= set(NUMBERS)
    assert accepted(integers, "0") + accepted(floats, "0.0") == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'keep_id = "{KEEP_ID}"\nstores = []', "stores is empty"),
        (LEAST + STORES, "one label"),
        (LEAST.replace(KEEP_ID, "0123456789abcde"), "16 hex digits"),
        (LEAST.replace(KEEP_ID, "0123456789abcdef0"), "16 hex digits"),
        (LEAST.replace(KEEP_ID, "keep-of-my-aunts"), "16 hex digits"),
        (LEAST.replace(KEEP_ID, "0123456789ABCDEF"), "16 hex digits"),
        (LEAST.replace('"main"', '""'), "label"),
    ],
    ids=[
        "no-store",
        "label-twice",
        "id-short",
        "id-long",
        "id-words",
        "id-upper",
        "no-label",
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(text, why):
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    assert refused.value.code == "config.value"
    assert why in refused.value.message


def test_a_key_where_its_reference_belongs_is_refused_and_not_repeated():
    with pytest.raises(ConfigError) as refused:
        parsed(f'{LEAST}[keys]\nsource = "hunter2hunter2"')
    assert refused.value.code.startswith("reference.")
    assert "hunter2" not in str(refused.value)


def test_every_key_is_explained_once():
    keys = [each.key for each in explained()]
    assert len(keys) == len(set(keys)) > 40
    assert all(each.meaning.endswith(".") or each.meaning for each in explained())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{LEAST}[serv]", "serve"),
        (f"{LEAST}[serve]\nreplica = 2", "replicas"),
        (f'keep_id = "{KEEP_ID}"\n{STORES}labl = "x"', "label"),
        (f"{LEAST}[ledger.witness]\nquorums = 1", "quorum"),
        (f"{LEAST}[serve]\nxyzzy = 2", ""),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(text, wanted):
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    nearest = f"did you mean `{wanted}`? " if wanted else ""
    assert refused.value.hint == f"{nearest}`modelkeep config explain` lists every key"


def test_grpc_has_a_port_of_its_own():
    assert code_of(f"{LEAST}[serve]\nport = 9000\ngrpc_port = 9000") == "config.value"
    assert parsed(f"{LEAST}[serve]\nport = 0\ngrpc_port = 0").serve.grpc_port == 0


def test_where_http_is_enough_is_said():
    with pytest.raises(ConfigError, match="http:// for loopback"):
        parsed(f'{LEAST}[[upstreams]]\nname = "a"\nurl = "http://vllm.internal/v1"')
