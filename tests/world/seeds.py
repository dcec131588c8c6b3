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

POOL_SEEDS: tuple[tuple[str, int, str], ...] = (
    ("pool_cancels", 686930097954, "a timer that was on time did not find what was due: sums of floats"),
    ("pool_http1", 88194190033, "no next dial after one that failed, where no connection was left"),
    ("pool_tight", 755515695392, "another timer unset the end of the grace"),
    ("pool_http1", 529076546222, "a connection that sent another away had no timer of its own"),
    ("pool_unkind", 581465847684, "a request that was tried again had waited since it had first gone out"),
    ("pool_old", 221144752043, "of those to be tried again the last went first"),
    ("pool_http1", 83937496638, "what was flushed made a clock due earlier than the pool's timer knew"),
    ("pool_uploads", 455358830965, "a submit that raised left its site"),
    ("pool_http1", 398668950987, "a connection for whom nobody waited any more gave way to nobody"),
    ("pool_old", 60029520454, "after HTTP_1_1_REQUIRED it went out over another HTTP/2 connection"),
    ("pool_http1", 197495000538, "acted on at first, perhaps, and unprocessed when it had waited again"),
    ("pool_goaway", 99449848666, "a request that was cancelled told of two attempts"),
    ("pool_all", 914966867427, "one that was tried again took the dial of one behind it, whose timer did not know"),
    ("pool_all", 205325584234, "a dial was for one, and then for all: whose limit was over by then had no timer"),
    ("pool_unkind", 955627313304, "HTTP_1_1_REQUIRED after a response had begun was taken for a demand"),
    ("pool_tight", 573954267224, "a deadline left its dial to the next, which ended at that moment for want of one"),
    ("pool_http1", 97815619155, "acted on at first, perhaps, and unprocessed when the second attempt did not leave"),
)
