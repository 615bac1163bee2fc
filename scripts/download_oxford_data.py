"""Download the Oxford 102 flowers without an account."""

import sys
from pathlib import Path

import command

try:
    from diffusion.data import download, http
except ModuleNotFoundError as error:
    print(f"error: no module {error.name!r}: use .venv/bin/python", file=sys.stderr)
    sys.exit(2)

from diffusion.support.paths import data_home

DATA_DIR = data_home()


def parse_arguments():
    parser = command.Parser(
        description="Bring the Oxford 102 flowers (about 350 MB) into DATA_DIR/oxford-102-flowers. "
        "No account is needed. A download that was stopped is resumed by the same call.",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DATA_DIR,
        help="folder for data sets (default: %(default)s)",
    )
    parser.add_argument(
        "--base-url",
        default=download.OXFORD_URL,
        help="where the three files lie, for a mirror (default: %(default)s)",
    )
    parser.add_argument(
        "--checksums",
        type=Path,
        metavar="FILE",
        help="lines '<md5>  <name>', as md5sum writes them, for a mirror whose files were packed "
        "anew (default: the sums of Oxford's own files)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=5,
        help="failures in a row before giving up (default: %(default)s)",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    try:
        checksums = download.OXFORD_MD5
        if arguments.checksums:
            checksums = download.read_checksums(arguments.checksums)
        download.download_oxford(
            arguments.data_dir, arguments.base_url, checksums, arguments.retries
        )
    except (http.DownloadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped: the same call resumes where this one was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
