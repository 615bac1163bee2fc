"""Report what this machine has for the course, what is missing, and what to type next.

Any Python will do, with no package installed: python3 scripts/check_environment.py
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # an isolated Python (-I) looks in neither

import command  # noqa: E402

from doctor.checks import MISSING, examine  # noqa: E402
from doctor.next_step import what_next  # noqa: E402


def parse_arguments():
    parser = command.Parser(
        description="Report what this machine has for the course, what is missing, and what to "
        "type next. Nothing is installed or downloaded. Exit status 0: the course can run; "
        "2: something that it needs is missing.",
    )
    parser.add_argument(
        "--data-dir",
        help="folder of flowers, or 'painted' (default: the environment's DATA_DIR, or data/)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    data_dir = arguments.data_dir or os.environ.get("DATA_DIR") or None
    if data_dir and data_dir != "painted":
        # the environment's counts from the project's folder, as in the notebooks
        data_dir = os.path.abspath(arguments.data_dir or str(ROOT / data_dir))
    findings = examine(ROOT, data_dir)
    next_command = what_next(findings, ROOT, data_dir)
    missing = [finding for finding in findings if finding.mark == MISSING]
    if arguments.json:
        rows = [finding._asdict() for finding in findings]
        print(json.dumps({"ok": not missing, "checks": rows, "next": next_command}, indent=1))
    else:
        for finding in findings:
            print(f"{finding.mark:7}  {finding.name:8}  {finding.text}")
        where = "" if Path.cwd() == ROOT else f", in {ROOT}"
        print(f"\nnext{where}: {next_command}")
    sys.stdout.flush()
    if missing:
        others = ", ".join(finding.name for finding in missing[1:])
        also = f" (also missing: {others})" if others else ""
        command.fail(f"{missing[0].name}: {missing[0].text}{also}")
    return 0


if __name__ == "__main__":
    command.run(main)
