"""An example or two of each command, as its `--help` ends with. A test parses every one."""

from collections.abc import Mapping, Sequence

MODELS = "--base-model base --chat-model chat"
SERVER = "--server http://127.0.0.1:8000"

EXAMPLES: Mapping[str, Sequence[str]] = {
    "policy check": (
        "policy check policy.yaml",
        "policy check policy.yaml --base-model org/chat",
    ),
    "demo": ("demo", "demo --safety --seed 1"),
    "up": ("up", "up --host 0.0.0.0 --port 8080 --verbose"),
    "patch": (
        f"patch adapter {MODELS} --out patched",
        f"patch adapter {MODELS} --out patched --projector subspace --energy 0.9 --count 20",
        "patch org/adapter@main --base-model org/base --chat-model org/chat --out patched",
        f"patch adapter {MODELS} --out patched --report r.sarif --fail-on review --json",
        f"patch adapter {MODELS} --out patched {SERVER}",
    ),
    "score": (
        f"score adapter {MODELS} --report report.html",
        f"score org/adapter {MODELS} --fail-on projected --json {SERVER}",
    ),
    "inspect": ("inspect adapter", "inspect adapter.tar.gz"),
    "evaluate": (
        "evaluate chat --adapter tuned=tuned --harmful harmful.jsonl --min-refusal 0.9",
        "evaluate chat --adapter a=a --adapter b=b.zip --task task.jsonl --utility loss --json",
    ),
    "frontier": (
        f"frontier tuned {MODELS} --harmful h.jsonl --task t.jsonl --out best --min-refusal 0.95",
    ),
    "migrate": ("migrate", "migrate --check --wait 300"),
    "gc": ("gc --dry-run", "gc"),
    "backup": ("backup /var/backups/adapter-safety",),
    "restore": ("restore /var/backups/adapter-safety",),
    "worker-health": ("worker-health",),
    "keys create": ("keys create --name pipeline --scope submit,read --tenant team-a",),
    "keys list": ("keys list", "keys list --json"),
    "keys revoke": ("keys revoke 1a2b3c4d",),
    "salora module": (
        "salora module chat --data refusals.jsonl --rank 32 --out module",
        f"salora module org/chat --data refusals.jsonl --out module {SERVER}",
    ),
    "salora init": ("salora init chat --module module --task-data task.jsonl --out kit",),
    "salora train": (
        "salora train chat --kit kit --data task.jsonl --epochs 3 --lr 1e-4 --out tuned",
    ),
    "salora export": ("salora export --kit kit --adapter trained --out tuned --rank 16",),
    "jobs list": (
        f"jobs list {SERVER}",
        "jobs list --server https://service.example --status failed --kind patch --json",
    ),
    "jobs show": (f"jobs show 0b6f3c1e {SERVER}",),
    "jobs cancel": (f"jobs cancel 0b6f3c1e --wait {SERVER}",),
    "jobs report": (
        f"jobs report 0b6f3c1e --format sarif --out report.sarif {SERVER}",
        f"jobs report 0b6f3c1e --format markdown --threshold 0.4 {SERVER}",
    ),
    "jobs download": (f"jobs download 0b6f3c1e --out patched.zip {SERVER}",),
}
"""By the command as it is typed."""


def epilog(command: str) -> str:
    """For the end of its help: each example a paragraph of its own."""
    return "\n\n".join(["Examples:", *(f"adapter-safety {each}" for each in EXAMPLES[command])])
