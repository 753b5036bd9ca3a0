"""What transformers' `apply_chat_template` makes of conversations: crates/model-hooks/tests/golden/chat.json.

    python tools/goldens/golden_chat.py        (pip: transformers)

Templates in the style of published families (ChatML, Llama 3, Gemma, Mistral, Qwen with thinking and tools) and one that uses what is left
of the language. They are written for this file. Each runs on each conversation with the demo's tokenizer, on 26 July 2024; per case the text
and the ids, or what the template raises.
"""

import datetime
import json
from pathlib import Path

import transformers.utils.chat_template_utils as chat
from transformers import AutoTokenizer

REPO = Path(__file__).resolve().parents[2]
tokenizer = AutoTokenizer.from_pretrained(REPO / "assets/demo/lm")


class Day(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat.datetime = Day

TEMPLATES = {
    "chatml": """{% for message in messages %}
    {% if loop.first and message['role'] != 'system' %}
        {{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {% endif %}
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
""",
    "llama3": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0, users=0) %}
{%- for message in loop_messages %}
    {%- if message.role in ["user", "assistant"] and not message.tool_calls %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" and message.content is string %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}{{- tool_call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
""",
    "rest": """{#- comment -#}
{%- macro say(message, prefix='> ') -%}
{{ prefix }}{{ message.role | upper }}: {% if message.content is string %}{{ message.content | replace('\\n', ' / ') }}{% else %}{% for part in message.content or [] if part.type == 'text' %}{{ part.text }}{% endfor %}{% endif %}
{%- endmacro -%}
{% for message in messages if message.role != 'tool' %}
    {% if loop.index > 5 %}{% break %}{% endif %}
    {% if not message.content %}{% continue %}{% endif %}
    {% if message.role == 'assistant' %}
{% generation %}{{ say(message) }}{% endgeneration %}

    {% else %}
{{ say(message, prefix=loop.index ~ '. ') }}
    {% endif %}
{% endfor %}
{% for message in messages | selectattr('role', 'equalto', 'user') %}{{ loop.index0 }}{{ ', ' if not loop.last }}{% endfor %}

{{ messages | map(attribute='role') | unique | list | join('|') }}
{%- for key, value in messages[-1].items() %} {{ key }}={{ value | tojson }}{% endfor %}

{{ messages[0] | tojson(indent=2) }} {{ {'a': [1, 2.5, none, true], 'é<&>': 'x\\t"'} | tojson }} {{ 'a,b'.split(',') | last }} {{ 'Title case'.title() }}
{{ (messages | length) // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 2 ** 5 }} {{ '%s-%s' | format(1, 'x') }} {{ missing }} {{ missing is defined }} {{ [3, 1, 2] | sort | first }}
""",
}

CONVERSATIONS = {
    "short": [{"role": "user", "content": "On Monday, what is the date?"}, {"role": "assistant", "content": "  It is the 1st. \n"}],
    "system": [
        {"role": "system", "content": " You answer in verse. "},
        {"role": "user", "content": "Why?\nTell me — é 😀"},
        {"role": "assistant", "content": "<think>\nA rhyme.\n</think>\n\nBecause of the sky."},
        {"role": "user", "content": "And <b>now</b> & 'then'?"},
        {"role": "assistant", "content": "<think>\n\nNo rhyme.\n\n</think>\n\nThen the rain."},
    ],
    "reasoning": [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "reasoning": "Count them: two.", "content": "Two."},
    ],
    "tools": [
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Paris", "days": 2, "at": [1.5, None, True], "e": 1e-7}}}]},
        {"role": "tool", "content": "{\"sun\": true}"},
        {"role": "assistant", "content": "Sun."},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Two "}, {"type": "image"}, {"type": "text", "text": "parts"}]}, {"role": "assistant", "content": "Yes"}],
    "two_users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "empty_text": [{"role": "user", "content": ""}, {"role": "assistant", "content": "x"}],
}

cases = []
for template_name, template in TEMPLATES.items():
    for name, conversation in CONVERSATIONS.items():
        case = {"template": template_name, "conversation": name}
        try:
            case["text"] = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=False)
            case["ids"] = tokenizer.apply_chat_template(conversation, chat_template=template, tokenize=True, return_dict=False)
        except Exception as error:
            case["raises"] = f"{type(error).__name__}: {error}"
        cases.append(case)
out = REPO / "crates/model-hooks/tests/golden/chat.json"
out.write_text(json.dumps({"templates": TEMPLATES, "conversations": {name: json.dumps(c, ensure_ascii=False) for name, c in CONVERSATIONS.items()}, "cases": cases}, indent=1, ensure_ascii=False) + "\n")
print(out.stat().st_size, [(c["template"], c["conversation"], c["raises"]) for c in cases if "raises" in c])
