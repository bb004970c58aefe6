"""Which frames a client must have shown: from what the host sent, by its trace, and what the network let through.

A frame can be had if of each of its blocks as many shards came through as the block has data. It can be shown if,
besides, everything that it depends on could be: a predicted picture needs all frames back to the last IDR picture.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    index: int
    kind: str
    source: int
    first: int
    blocks: tuple
    """(data, parity) of each, in the order of sending."""
    sent_us: int

    @property
    def datagrams(self):
        return sum(data + parity for data, parity in self.blocks)


@dataclass(frozen=True)
class Verdict:
    frame: Frame
    recoverable: bool
    """Every block has enough shards."""
    repaired: bool
    """.. though data is missing: only parity saves it."""
    showable: bool
    """.. and nothing that it depends on is missing."""


def frames_of(trace):
    """The frames of one stream that went out, with the numbers of their datagrams counted on beyond 16 bits."""
    sent = sorted((entry for entry in trace if entry["fate"] == "sent"), key=lambda entry: entry["index"])
    frames, number = [], None
    for entry in sent:
        if number is None:
            number = entry["first_sequence"]
        assert entry["first_sequence"] == number & 0xFFFF, f"a gap in the trace before frame {entry['index']}"
        blocks = tuple((block["data"], block["parity"]) for block in entry["blocks"])
        frames.append(Frame(entry["index"], entry["kind"], entry["source"], number, blocks, entry["last_sent_us"]))
        assert frames[-1].datagrams == entry["datagrams"], entry
        number += frames[-1].datagrams
    return frames


def verdicts(frames, received):
    """What becomes of each frame if just these datagrams came through."""
    judged, intact = [], False
    for frame in frames:
        recoverable, repaired, first = True, False, frame.first
        for data, parity in frame.blocks:
            have = [first + shard in received for shard in range(data + parity)]
            recoverable &= sum(have) >= data
            repaired |= not all(have[:data])
            first += data + parity
        intact = recoverable and (intact or frame.kind == "idr")
        judged.append(Verdict(frame, recoverable, recoverable and repaired, intact))
    return judged


def frame_of_each_datagram(frames):
    """{number of a datagram: number of its frame}"""
    return {number: frame.index for frame in frames for number in range(frame.first, frame.first + frame.datagrams)}


def breaks(judged):
    """Where the chain of pictures breaks: [(first frame that cannot be shown, next IDR picture sent or None)]."""
    found, intact = [], True
    for place, verdict in enumerate(judged):
        if verdict.showable:
            intact = True
        # A lost IDR picture is a break of its own: it has to be asked for again.
        elif intact or verdict.frame.kind == "idr":
            intact = False
            later = (next_one.frame for next_one in judged[place + 1 :] if next_one.frame.kind == "idr")
            found.append((verdict.frame, next(later, None)))
    return found


def lost_sound(rows):
    """(packets lost on the way, those that parity restores) of the log's audio rows.

    A block is four packets and two of parity; any four of the six give all of it. Only blocks that are whole in the
    log are counted.
    """
    blocks, base = {}, 0
    for _, _, _, lost, number, kind, first in rows:
        start = number & ~3 if first is None else first
        blocks.setdefault(start, []).append((first is None, lost))
    missing = restored = 0
    for shards in blocks.values():
        if len(shards) != 6:
            continue
        gone = sum(is_data and lost for is_data, lost in shards)
        missing += gone
        restored += gone if sum(not lost for _, lost in shards) >= 4 else 0
    return missing, restored
