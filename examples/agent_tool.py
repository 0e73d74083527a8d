"""A code tool for a language model: one container a conversation. Run it: `python examples/agent_tool.py`.

`answer` stands in for a model: it says the next thing, given all that was said. Put yours there; nothing else changes.
"""

from __future__ import annotations

import json

import firkin

TOOL = {
    "name": "python",
    "description": "Run Python 3 in a Linux VM of your own. Files in /tmp stay between calls. There is no network.",
    "input_schema": {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]},
}


def use(box: firkin.Container, code: str) -> dict[str, object]:
    """What the model gets back for `code`."""
    try:
        done = box.run(["python3", "-"], input=code, text=True, timeout=30, capture_limit=16 * 1024, user="nobody")
    except TimeoutError as error:
        return {"error": str(error)}
    found = {"exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    return {**found, "truncated": True} if done.truncated else found


def converse(answer, task: str) -> str:
    """Let the model work on `task` until it says something instead of using its tool."""
    said = [{"role": "user", "content": task}]
    with firkin.Container.launch("python:3-slim", ["sleep", "infinity"], network="none", pids_limit=64) as box:
        while True:
            turn = answer(said, [TOOL])
            if "text" in turn:
                return turn["text"]
            print("model>", turn["tool"])
            result = json.dumps(use(box, turn["input"]["code"]))
            print("  tool>", result)
            said += [{"role": "assistant", "content": turn}, {"role": "tool", "content": result}]


def scripted(said, tools):
    """A model without intelligence: it writes a file, makes a mistake, reads the error, and mends it."""
    read = "rows = [int(line) for line in open('/tmp/rows')]\n"
    script = [
        "with open('/tmp/rows', 'w') as file:\n    file.write('4\\n5\\n6\\n')\nprint('wrote 3 rows')",
        read + "print(sum(rows) / (len(rows) - 3))",
        read + "print(sum(rows))",
    ]
    turn = sum(1 for each in said if each["role"] == "tool")
    if turn < len(script):
        return {"tool": "python", "input": {"code": script[turn]}}
    return {"text": f"The column adds up to {json.loads(said[-1]['content'])['stdout'].strip()}."}


if __name__ == "__main__":
    print("model:", converse(scripted, "Add up the column."))
