"""Worlds that once broke a law: scenario, seed, what it was. The script of a seed changes with `script.py`; so does the story."""

SEEDS: tuple[tuple[str, int, str], ...] = (
    ("whole", 2, "the connection's window grew each time that settings shrank it and gave it back"),
    ("whole", 16, "after the expect clock the timer forgot the request's deadline"),
    ("http1", 23, "behind the first in a pipeline the head clock had run out unheard"),
    ("http1", 60, "a request was sent behind one that asked for an upgrade, whose answer was still to come"),
    ("http1_link", 59, "the head clock ran from the last write but one, while the end of the content still waited"),
    ("uploads", 34, "a window that shut made the write clock due earlier than the timer knew"),
    ("http1_link", 239692339815, "content held back in a pipeline was taken for sent when its turn came"),
    ("http1_unkind", 110536137752, "when its turn came in a pipeline, a clock was due earlier than the timer knew"),
    ("silent", 585615994164, "a request without content failed by the write clock while its head was held back"),
    ("all", 611583830374, "once its reader went on, the write clock had run out unheard while it did not"),
)
