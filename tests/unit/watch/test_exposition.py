"""Metrics of several gateways in one text, as Prometheus' own parser reads it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from modelkeep.watch.exposition import joined, labelled


def exposition(count, *, tenant='a tenant}{ "x"', extra=False):
    registry = CollectorRegistry()
    Counter("calls", "Calls.", ("tenant",), registry=registry).labels(tenant).inc(count)
    Gauge("open_connections", "Now.", registry=registry).set(count)
    seconds = Histogram("seconds", "How long.", ("model",), buckets=(0.1, 1), registry=registry)
    seconds.labels("m").observe(count)
    if extra:
        Gauge("only_here", "Of one.", registry=registry).set(1)
    return generate_latest(registry)


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_every_sample_of_every_gateway_is_there_once_and_says_whose_it_is():
    texts = [labelled(exposition(n), label="gateway", value=str(n)) for n in (1, 2)]
    texts.append(labelled(exposition(3, extra=True), label="gateway", value="3"))
    whole = joined(texts)
    assert whole.count(b"# TYPE calls_total counter") == 1
    found = samples(whole)
    gateways = {dict(labels)["gateway"] for _, labels in found}
    assert gateways == {"1", "2", "3"}
    one_by_one = [samples(text) for text in texts]
    assert found == {key: value for each in one_by_one for key, value in each.items()}


def test_a_label_stands_beside_those_that_are_there():
    text = exposition(1)
    found, plain = samples(labelled(text, label="gateway", value="0")), samples(text)
    for (name, labels), value in plain.items():
        assert found[name, tuple(sorted((*labels, ("gateway", "0"))))] == value


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_no_bytes_make_it_fail(texts):
    joined(labelled(text, label="gateway", value="0") for text in texts)
