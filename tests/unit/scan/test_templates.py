"""Unit tests of scan.templates: what reaches Python's inside is denied, chat templates pass."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelkeep.core.verdict import Decision, judged
from modelkeep.scan.templates import TEMPLATE_CHARS_MAX, template_findings

REACHING = [
    "{{ ''.__class__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum['__globals__'] }}",
    "{{ x['__cla' ~ 'ss__'] }}",
    "{{ x['__cla' + 'ss__'] }}",
    r"{{ x|attr('\x5f\x5fclass\x5f\x5f') }}",
    "{% set a = '__cl' %}{% set b = a + 'ass__' %}{{ ''[b] }}",
    "{% set ns = namespace(a='__class__') %}{{ x[ns.a] }}",
    "{% for k in ['__class__'] %}{{ x[k] }}{% endfor %}",
    "{% set x %}__class{% endset %}{{ y[x + '__'] }}",
    "{{ x[('%c' % 95) * 2 ~ 'class' ~ ('%c' % 95) * 2] }}",
    "{{ x[['_', '_class_', '_']|join] }}",
    "{{ x['__ssalc__'|reverse] }}",
    "{{ x[dict(__class__=1)|first] }}",
    "{{ x|map(attribute='__class__')|list }}",
    "{{ messages|groupby('__class__') }}",
    "{{ [x]|map('attr', '__class__')|list }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ self._TemplateReference__context }}",
    "{{ f.func_globals }}",
    "{% include '/etc/passwd' %}",
    "{% import 'x' as y %}",
    "{{ x.popen('id') }}",
    "{{ x['popen']('id') }}",
    "{{ 'a' * 1000000000 }}",
    "{{ 9 ** 9 ** 9 }}",
    "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if unparsable %}{{ ''.__class__.__mro__ }",
]
HELD = [
    "{{ x|attr(name) }}",
    "{% set u = dict(c=1)|list|first %}{{ x|attr(u) }}",
    "{{ x[(lipsum|string)] }}",
    "{% broken",
    "x" * (TEMPLATE_CHARS_MAX + 1),
]
CHATS = [
    (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + "
        "m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != "
        "(loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% endfor %}"
    ),
    (
        "{%- set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages -%}"
        "{%- for message in loop_messages -%}{{ message.content | trim }}{{ "
        "eos_token }}{%- endfor -%}"
    ),
    (
        "{% set ns = namespace(found=false, i=0) %}{% for m in messages %}{% set ns.i = ns.i + 1 %}"
        "{{ messages[ns.i - 1].content }}{% endfor %}"
    ),
    (
        "{% macro tool(t) %}{{ t.name }}({{ "
        "t.parameters.properties|tojson(indent=4) }}){% endmacro %}"
        "{% for t in tools %}{{ tool(t['function']) }}{% endfor %}"
    ),
    (
        "{{- 'Today: ' + strftime_now('%d %b %Y') }}{% for k, v in params.items()|list %}"
        "{{ k|upper }}={{ v|default('')|string }}{% endfor %}"
    ),
    (
        "{% for m in messages %}{% generation %}{{ "
        "m['content'].split('</think>')[-1].lstrip('\\n') }}"
        "{% endgeneration %}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    ),
    (
        "{% set users = messages|selectattr('role', 'equalto', 'user')|list %}{{ users|length }}"
        "{{ users|map(attribute='content')|join('\\n') }}"
    ),
    (
        "{% for i in range(messages|length - 1, -1, -1) %}{{ messages[(messages|length) - 1 - i] }}"
        "{% endfor %}{{ '=' * 40 }}"
    ),
    (
        "{% set role = 'model' if m.role == 'assistant' else m.role %}{{ roles[role] }}"
        "{{ '<start_of_turn>' ~ role ~ '\\n' ~ (m.content if m.content is string else "
        "m.content[0].text) }}{{ messages[-1]['tool_calls'][0].function.arguments }}"
    ),
]


def decision(text):
    return judged(template_findings("t", text)).decision


@pytest.mark.parametrize("text", REACHING)
def test_a_template_that_reaches_outside_is_denied(text):
    assert decision(text) is Decision.DENY


@pytest.mark.parametrize("text", HELD)
def test_what_cannot_be_known_is_held(text):
    assert decision(text) is Decision.HOLD


@pytest.mark.parametrize("text", CHATS)
def test_templates_as_real_models_have_them_are_allowed(text):
    assert template_findings("t", text) == ()


@given(st.sampled_from(CHATS + REACHING), st.integers(0, 400), st.text(max_size=12))
@settings(deadline=None, max_examples=150)
def test_no_change_of_a_template_makes_the_scanner_raise(text, at, new):
    template_findings("t", text[:at] + new + text[at + len(new) :])
