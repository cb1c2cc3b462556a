"""Our own chat templates, each with the requirements and the markers of a published model's template.

The originals are on Hugging Face (and in llama.cpp's models/templates), under their models' licenses:
Mistral Small 3.1 and Mistral 7B v0.3 (Apache-2.0), Gemma 2 (Gemma terms), Qwen 3.5 (Apache-2.0), Llama 3.1
(Llama 3.1 community license), gpt-oss (Apache-2.0), DeepSeek R1 and V3.1 (MIT), Command R7B (CC-BY-NC 4.0),
OLMo 3, Ministral 3, Nemo, Granite 3.3 and Hermes 2 Pro (Apache-2.0). Nothing but what a conversation must
look like is kept of them.
"""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content "
    "}}[/SYSTEM_PROMPT]"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
    "{% set plain = namespace(count=0) %}{% for m in turns %}{% if m.role != 'tool' and not m.tool_calls %}"
    "{% if (m.role == 'user') != (plain.count % 2 == 0) %}"
    "{{ raise_exception('After the optional system message, conversation roles must alternate "
    "user/assistant') }}"
    "{% endif %}{% set plain.count = plain.count + 1 %}{% endif %}{% endfor %}"
    "{% for m in turns %}"
    "{% if m.role == 'user' %}{% if tools %}[AVAILABLE_TOOLS] {{ tools|tojson }}[/AVAILABLE_TOOLS]{% "
    "endif %}"
    "[INST]{{ m.content }}[/INST]"
    "{% elif m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
    "{% if c.id is not defined or c.id|length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    '{{ (c.function|tojson)[:-1] }}, "id": "{{ c.id }}"}{% if not loop.last %}, {% endif %}{% endfor '
    "%}]</s>"
    "{% elif m.role == 'assistant' %}{{ m.content }}</s>"
    "{% elif m.role == 'tool' %}{% if m.tool_call_id is not defined or m.tool_call_id|length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    '[TOOL_RESULTS] {"content": {{ m.content }}, "call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)

NEMO = MISTRAL.replace(
    "{% if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT]",
    "{% if messages[0].role == 'system' %}{% set rules = messages[0].content %}",
).replace("[INST]{{ m.content }}", "[INST]{{ rules + '\n\n' if loop.last and rules }}{{ m.content }}")

GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% "
    "endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content|trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)

QWEN = (
    "{% if not messages|selectattr('role', 'equalto', 'user')|list %}"
    "{{ raise_exception('No user query found in messages.') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "{% if loop.first and tools %}<|im_start|>system\n{{ m.content if m.role == 'system' }}\n# Tools\n"
    "{% for t in tools %}{{ t|tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content "
    "}}\n</tool_response><|im_end|>\n"
    "{% elif not (loop.first and tools and m.role == 'system') %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    '{% for c in m.tool_calls or [] %}\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": '
    "{{ c.function.arguments|tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.tool_calls %}{% if m.tool_calls|length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "{% set c = m.tool_calls[0].function %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "{{ c.name }}", "parameters": {{ c.arguments|tojson }}}<|eot_id|>'
    "{% elif m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content|tojson "
    "}}<|eot_id|>"
    "{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content|trim }}<|eot_id|>{% "
    "endif %}"
    "{% if loop.first and tools %}{% for t in tools %}{{ t|tojson(indent=4) }}\n\n{% endfor %}{% endif "
    "%}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

GPT_OSS = (
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort|default('medium') }}\n"
    "# Valid channels: analysis, commentary, final.<|end|>"
    "{% if messages[0].role in ('developer', 'system') %}{% set rules = messages[0].content %}"
    "{% set turns = messages[1:] %}{% else %}{% set rules = '' %}{% set turns = messages %}{% endif %}"
    "{% if rules or tools %}<|start|>developer<|message|>{{ rules }}"
    "{% for t in tools or [] %}\n// {{ '' + t.function.description }}\ntype {{ t.function.name }} = "
    "any;{% endfor %}"
    "<|end|>{% endif %}"
    "{% set last = namespace(name=none) %}{% for m in turns %}"
    "{% if m.role == 'assistant' %}"
    "{% if '<|channel|>analysis<|message|>' in m.content or '<|channel|>final<|message|>' in m.content %}"
    "{{ raise_exception('You have passed a message containing <|channel|> tags in the content field.') "
    "}}{% endif %}"
    "{% if 'tool_calls' in m %}{% if m.content and m.thinking %}"
    "{{ raise_exception('Cannot pass both content and thinking in an assistant message with tool "
    "calls!') }}{% endif %}"
    "{% if m.content or m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.content or "
    "m.thinking }}"
    "<|end|>{% endif %}{% set c = m.tool_calls[0].function %}<|start|>assistant to=functions.{{ c.name }}"
    "<|channel|>commentary json<|message|>{{ c.arguments|tojson }}<|call|>{% set last.name = c.name %}"
    "{% elif loop.last and not add_generation_prompt %}<|start|>assistant<|channel|>final<|message|>{{ "
    "m.content }}"
    "<|return|>{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% elif m.role == 'tool' %}{% if last.name is none %}"
    "{{ raise_exception('Message has tool role, but there was no previous assistant message with a tool "
    "call!') }}"
    "{% endif %}<|start|>functions.{{ last.name }} to=assistant<|channel|>commentary<|message|>"
    "{{ m.content|tojson }}<|end|>"
    "{% elif m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)

DEEPSEEK_R1 = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = m.content %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'assistant' and m.tool_calls %}<｜Assistant｜><｜tool▁calls▁begin｜>{% for c in "
    "m.tool_calls %}"
    "{{ '<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name + '\n```json\n' + "
    "c.function.arguments"
    " + '\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    "{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}"
    "<｜end▁of▁sentence｜>"
    "{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{% endif %}{% "
    "endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)

DEEPSEEK_V31 = (
    "{% set ns = namespace(system='', asked=false) %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set ns.system = ns.system + m.content %}{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% if tools %}## Tools\n{{ tools|tojson }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = true %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'assistant' and m.tool_calls is defined %}"
    "{{ ('<｜Assistant｜></think>' if ns.asked else '') + m.content }}"
    "<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}{{ '<｜tool▁call▁begin｜>' + c.function.name + "
    "'<｜tool▁sep｜>'"
    " + c.function.arguments + '<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    "{% set ns.asked = false %}"
    "{% elif m.role == 'assistant' %}{% if ns.asked %}<｜Assistant｜></think>{% endif %}{% set ns.asked = "
    "false %}"
    "{{ m.content }}<｜end▁of▁sentence｜>"
    "{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>{% endif %}{% "
    "endfor %}"
    "{% if add_generation_prompt and ns.asked %}<｜Assistant｜>"
    "{{ '<think>' if enable_thinking else '</think>' }}{% endif %}"
)

COHERE = (
    "{{ bos_token }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble\n"
    '{% for t in tools or [] %}{"name": "{{ t.function.name }}", "parameters": {{ '
    "t.function.parameters|tojson }}}"
    "\n{% endfor %}<|END_OF_TURN_TOKEN|>{% set ns = namespace(call=0) %}{% for m in messages "
    "%}<|START_OF_TURN_TOKEN|>"
    "{% if m.role == 'system' %}<|SYSTEM_TOKEN|>{{ m.content }}"
    "{% elif m.role == 'user' %}<|USER_TOKEN|>{{ m.content }}"
    "{% elif m.role == 'tool' %}<|SYSTEM_TOKEN|><|START_TOOL_RESULT|>{{ m.content|tojson "
    "}}<|END_TOOL_RESULT|>"
    "{% elif m.tool_calls %}<|CHATBOT_TOKEN|><|START_THINKING|>{{ m.reasoning_content }}<|END_THINKING|>"
    '<|START_ACTION|>[{% for c in m.tool_calls %}{"tool_call_id": "{{ ns.call }}", "tool_name": '
    '"{{ c.function.name }}", "parameters": {{ c.function.arguments|tojson }}}{% set ns.call = ns.call '
    "+ 1 %}"
    "{% if not loop.last %},{% endif %}{% endfor %}]<|END_ACTION|>"
    "{% else %}<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% endif "
    "%}<|END_OF_TURN_TOKEN|>"
    "{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)

OLMO = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>environment\n{{ m.content "
    "}}<|im_end|>\n{% else %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == 'system' and tools %}<functions>{{ "
    "tools|tojson }}"
    "</functions>{% endif %}{% if m.tool_calls %}<function_calls>{% for c in m.tool_calls %}{{ "
    "c.function.name }}("
    "{% for name, value in c.function.arguments.items() %}{{ name }}={{ value|tojson }}"
    "{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}\n{% endif %}{% endfor "
    "%}</function_calls>"
    "{% endif %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)

MINISTRAL = MISTRAL.replace(
    "{% elif m.role == 'assistant' %}",
    "{% elif m.role == 'assistant' and not m.content %}"
    "{{ raise_exception('Assistant message must have a string or a list of chunks in content') }}"
    "{% elif m.role == 'assistant' %}",
)

GRANITE = (
    "{% if tools %}<|start_of_role|>available_tools<|end_of_role|>{{ tools|tojson }}<|end_of_text|>\n"
    "{% endif %}"
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
    "{# respond only with <|tool_call|> followed by a JSON list of tools used #}"
)

HERMES = (
    "<|im_start|>system\n<tools>{% for t in tools %}{{ t.function|tojson }}{% endfor %}</tools><|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function|tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

USER_LAST = (
    "{% if messages[-1].role not in ['user', 'tool'] %}"
    "{{ raise_exception('Expected last role User or Tool') }}{% endif %}"
) + MISTRAL
"""The condition of some of Mistral's templates, before the template above."""

ALL = {
    "chatml": CHATML,
    "mistral": MISTRAL,
    "user-last": USER_LAST,
    "gemma": GEMMA,
    "qwen": QWEN,
    "llama": LLAMA,
    "gpt-oss": GPT_OSS,
    "deepseek-r1": DEEPSEEK_R1,
    "deepseek-v3.1": DEEPSEEK_V31,
    "cohere": COHERE,
    "olmo": OLMO,
    "ministral": MINISTRAL,
    "nemo": NEMO,
    "granite": GRANITE,
    "hermes": HERMES,
}
