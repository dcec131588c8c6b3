"""Run a target under atheris, or minimise what it found. See the package."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NAMES = ("http1", "http2", "hpack", "url", "codings", "environment", "handshake")
HERE = Path(__file__).parent
FOUND = HERE.parent / "build" / "fuzz"
MAX_SIZE = 2048  # bytes of an input
MAX_SEEDS = 150  # kept in the repository, for each target
SECONDS = 20  # for one input: more is a finding


def fuzz(target: str, ends: str) -> None:
    """Runs the target until `ends`. Does not return: libFuzzer ends the process, with a status other than 0 after a finding."""
    limits = [f"-max_len={MAX_SIZE}", f"-timeout={SECONDS}", "-rss_limit_mb=2048", "-print_final_stats=1"]
    start(target, [*limits, ends, f"-artifact_prefix={FOUND}/{target}-", *folders(target)])


def start(target: str, options: list[str]) -> None:
    """Hands over to libFuzzer."""
    import atheris  # from the dependency group `fuzz`; needs no other part of the project

    with atheris.instrument_imports(include=["calamint.core", "calamint.net", "calamint.client"]):
        from fuzz.targets import TARGETS
    again = f"{sys.executable} -m fuzz {target} --libfuzzer"  # how it starts itself to merge
    atheris.Setup([again, *options], TARGETS[target])
    atheris.Fuzz()


def folders(target: str) -> list[str]:
    """Where what was found is written, and where the seeds are."""
    found, corpus = FOUND / target, HERE / "corpus" / target
    for folder in (found, corpus):
        folder.mkdir(parents=True, exist_ok=True)
    return [str(found), str(corpus)]


def minimise(target: str) -> None:
    """The corpus becomes a small set of inputs, found or there before, that reaches as much as all of them."""
    with tempfile.TemporaryDirectory() as chosen:
        merge = ["-set_cover_merge=1", f"-max_len={MAX_SIZE}", chosen, *folders(target)]
        subprocess.run([sys.executable, "-m", "fuzz", target, "--libfuzzer", *merge], check=True, cwd=HERE.parent)
        seeds = [path.read_bytes() for path in Path(chosen).iterdir()]
    seeds = sorted(seeds, key=lambda data: (len(data), data))[:MAX_SEEDS]
    corpus = HERE / "corpus" / target
    shutil.rmtree(corpus)
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / f"{number:03}").write_bytes(data)
    sys.stdout.write(f"{target}: {len(seeds)} seeds of {sum(map(len, seeds))} bytes\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz a part of calamint.")
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: %(default)s)")
    parser.add_argument("--runs", type=int, help="how many inputs, instead of how long")
    parser.add_argument("--minimise", action="store_true", help="keep the useful inputs that were found as the corpus")
    parser.add_argument("--libfuzzer", nargs=argparse.REMAINDER, help="hand all that follows over to libFuzzer")
    options = parser.parse_args(arguments)
    if options.minimise:
        minimise(options.target)
    elif options.libfuzzer is not None:
        start(options.target, options.libfuzzer)
    elif options.runs is not None:
        fuzz(options.target, f"-runs={options.runs}")
    else:
        fuzz(options.target, f"-max_total_time={round(options.minutes * 60)}")


if __name__ == "__main__":
    main()
