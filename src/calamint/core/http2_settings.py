"""RFC 9113 §6.5.2: what SETTINGS say, ours and the peer's."""

from typing import Final

from calamint.core import flow, frames, hpack
from calamint.core.errors import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFault
from calamint.core.exchange import Settings, laxer
from calamint.core.flow import DEFAULT_WINDOW
from calamint.core.http2_state import Draft

DEFAULTS: Final = Settings(stream_window=DEFAULT_WINDOW, max_field_section=2**31 - 1)  # of the RFC, §6.5.2


def announce(settings: Settings, known: Settings, first: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What SETTINGS has to say (§6.5.2), after what it says first: where they differ from those that the peer knows."""
    pairs = first
    if settings.header_table_size != known.header_table_size:
        pairs.append((frames.HEADER_TABLE_SIZE, settings.header_table_size))
    if settings.max_pushes != known.max_pushes and settings.max_pushes:
        pairs.append((frames.MAX_CONCURRENT_STREAMS, settings.max_pushes))
    if settings.stream_window != known.stream_window:
        pairs.append((frames.INITIAL_WINDOW_SIZE, settings.stream_window))
    if settings.max_frame_size != known.max_frame_size:
        pairs.append((frames.MAX_FRAME_SIZE, settings.max_frame_size))
    if settings.max_field_section != known.max_field_section:
        pairs.append((frames.MAX_HEADER_LIST_SIZE, settings.max_field_section))
    return tuple(pairs)


def acknowledge(draft: Draft) -> None:
    """The peer has applied the oldest of our SETTINGS that wait: from here on no more is allowed than they say (§6.5.3)."""
    control = draft.own_control()
    if not control.pending:
        draft.charge()
        return
    known = control.pending[0]
    control.acknowledged = known
    control.pending = control.pending[1:]
    enforced = known
    for settings in control.pending:
        enforced = laxer(enforced, settings)
    draft.enforce(enforced)
    if draft.decoder.limit != enforced.header_table_size:
        draft.decoder = hpack.allow(draft.decoder, enforced.header_table_size)


def apply_setting(draft: Draft, name: int, number: int) -> None:
    """One of the peer's settings (§6.5.2); unknown ones are ignored."""
    peer = draft.peer
    if name == frames.HEADER_TABLE_SIZE:
        draft.encoder = hpack.resize(draft.encoder, number)
    elif name == frames.ENABLE_PUSH:
        if number != 0:
            raise ConnectionFault(PROTOCOL_ERROR, f"a server's ENABLE_PUSH={number}, allowed is 0 (§6.5.2)")
    elif name == frames.MAX_CONCURRENT_STREAMS:
        draft.peer = peer.replace(limit=min(number, draft.setup.settings.max_streams), offered=number)
    elif name == frames.INITIAL_WINDOW_SIZE:
        if number > flow.MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE={number}, allowed are 2^31-1 (§6.5.2)")
        draft.peer = peer.replace(initial_window=number)
    elif name == frames.MAX_FRAME_SIZE:
        if not 16_384 <= number <= 2**24 - 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"MAX_FRAME_SIZE={number}, allowed are 16384 to 16777215 (§6.5.2)")
        draft.peer = peer.replace(max_frame_size=number)
    elif name == frames.MAX_HEADER_LIST_SIZE:
        draft.peer = peer.replace(max_field_section=number)
    elif name == frames.ENABLE_CONNECT_PROTOCOL:
        if number > 1 or (
            peer.connects and number == 0
        ):  # "MUST NOT send … 0 after previously sending … 1" (RFC 8441 §3)
            raise ConnectionFault(PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL={number}, allowed is 1 (RFC 8441 §3)")
        draft.peer = peer.replace(connects=number == 1)
    elif name == frames.NO_RFC7540_PRIORITIES and number > 1:
        raise ConnectionFault(PROTOCOL_ERROR, f"NO_RFC7540_PRIORITIES={number}, allowed are 0 and 1 (RFC 9218 §2.1)")
