"""Download the Oxford 102 flowers without an account."""

import sys
from pathlib import Path

import command

from diffusion.support.paths import data_home


def parse_arguments(base_url):
    parser = command.Parser(
        description="Download the Oxford 102 flowers (about 350 MB) to "
        "DATA_DIR/oxford-102-flowers. No account is needed. To resume an interrupted download, "
        "run the same command again."
    )
    add = parser.add_argument
    words = "folder for data sets (default: %(default)s)"
    add("--data-dir", type=command.writable_folder, default=data_home(), help=words)
    words = "address of the folder with the three files, for a mirror (default: %(default)s)"
    add("--base-url", default=base_url, help=words)
    add(
        "--checksums",
        type=Path,
        metavar="FILE",
        help="lines '<md5>  <name>' as md5sum writes them, for a mirror that has repacked the "
        "files (default: the sums of Oxford's own files)",
    )
    parser.add_count("--retries", 5, "failures in a row before giving up", least=0)
    return parser.parse_args()


def main():
    from diffusion.data import download  # here: if a package is missing, `command.run` says so

    arguments = parse_arguments(download.OXFORD_URL)
    checksums = download.OXFORD_MD5
    if arguments.checksums:
        checksums = download.read_checksums(arguments.checksums)
    try:
        download.download_oxford(
            arguments.data_dir, arguments.base_url, checksums, arguments.retries
        )
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    command.run(main)
