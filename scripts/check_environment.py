"""Say what this machine has for the course, what is missing, and what to type next.

Any Python will do, with no package installed: python3 scripts/check_environment.py
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # an isolated Python (-I) looks in neither

import command  # noqa: E402

from doctor import advice, checks  # noqa: E402


def parse_arguments():
    parser = command.Parser(
        description="Say what this machine has for the course, what is missing, and what to type "
        "next. Nothing is installed or downloaded. Exit status 0: the course can run; "
        "2: something that it needs is missing.",
    )
    add = parser.add_argument
    add(
        "--data-dir",
        help="folder of flowers, or 'painted' (default: the environment's DATA_DIR, or data/)",
    )
    add("--json", action="store_true", help="print the report as JSON, for programs")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    data_dir = arguments.data_dir or os.environ.get("DATA_DIR") or None
    if data_dir and data_dir != "painted":
        # the environment's counts from the project's folder, as it does for the notebooks
        data_dir = os.path.abspath(arguments.data_dir or str(ROOT / data_dir))
    findings = checks.examine(ROOT, data_dir)
    next_command = advice.what_next(findings, ROOT, data_dir)
    missing = [finding for finding in findings if finding.mark == checks.MISSING]
    if arguments.json:
        rows = [finding._asdict() for finding in findings]
        print(json.dumps({"ok": not missing, "checks": rows, "next": next_command}, indent=1))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            print(f"{finding.mark:7}  {finding.name:{width}}  {finding.text}")
        where = "" if Path.cwd() == ROOT else f", in {ROOT}"
        print(f"\nnext{where}: {next_command}")
    if missing:
        sys.stdout.flush()
        command.fail(in_one_line(missing))
    return 0


def in_one_line(missing):
    """The first of the missing findings in full, the others by name."""
    first, *others = missing
    text = first.text if first.text.startswith(first.name) else f"{first.name}: {first.text}"
    names = ", ".join(finding.name for finding in others)
    return f"{text} (also missing: {names})" if others else text


if __name__ == "__main__":
    command.run(main)
