"""Fuzz targets: what calamint must never do, whatever it is given.

    python -m fuzz TARGET --minutes N    # under the coverage-guided fuzzer `atheris`
    python -m fuzz TARGET --minimise     # keep the useful ones of what it found in fuzz/corpus/TARGET

`tests/fuzz` runs every target on its corpus and on some hundred examples of Hypothesis.
"""
