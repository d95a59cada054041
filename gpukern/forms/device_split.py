"""Many threads on one symbol: the states of the chunks that ``device_cut.py`` makes of a run.

Where a duration window's rows stand, what the symbol takes over from its last chunk, and which
chunks of a step began in a wrong state.
"""

from typing import Any

from numba.extending import register_jitable

from gpukern.forms.cuda import INFO, RUN
from gpukern.forms.device_rows import device

cuda: Any = None  # the backend puts numba.cuda or its simulator here


@device("qqqnnqqnn")
def move_regions(old, new, sti, ss, off, begins, caps, fields, symbols):
    """Every symbol's arena region to its new place; words ``off`` and ``off + 1`` say where."""
    s = cuda.grid(1)
    while s < symbols:
        own = sti[s * ss + off]
        cap = sti[s * ss + off + 1]
        to = begins[s]
        room = caps[s]
        f = 0
        while f < fields:
            j = 0
            while j < min(cap, room):
                new[to + f * room + j] = old[own + f * cap + j]
                j += 1
            f += 1
        sti[s * ss + off] = to
        sti[s * ss + off + 1] = room
        s += cuda.gridsize(1)


@device("qnnnnnqn")
def live_rows(sti, ss, older, newer, head, tail, live, symbols):
    """Rows in every symbol's arena region that a later row may need: older + newer, or head…tail.

    The arguments are header words; ``older`` is −1 where the state has no such word.
    """
    s = cuda.grid(1)
    while s < symbols:
        row = s * ss
        if older >= 0:
            live[s] = sti[row + older] + sti[row + newer]
        else:
            live[s] = sti[row + tail] - sti[row + head]
        s += cuda.gridsize(1)


@device("qqqnnnqnnn")
def adopt_words(runs, final, csi, css, csw, words, sti, ss, keep_from, symbols):
    """The last chunk's state becomes the symbol's; words from ``keep_from`` on but two."""
    s = cuda.grid(1)
    while s < symbols:
        if runs[s * RUN + 2] < runs[s * RUN + 3]:
            slot = runs[s * RUN]
            c = final[s]
            w = 0
            while w < words:
                if w != keep_from and w != keep_from + 1:
                    sti[slot * ss + w] = csi[c * css + w * csw]
                w += 1
        s += cuda.gridsize(1)


@device("qqqnnqqnnnnnnqnn")
def adopt_regions(runs, final, csi, css, csw, cai, sti, ss, off, older, head, tail, count, ari,
                  fields, symbols):  # fmt: skip
    """Bring the live rows of the last chunk's arena region to the symbol's.

    Words are those of the header; ``older`` is −1 for windows that keep head…tail. There the
    order of a sorted window (``count`` ≥ 0) is the last field.
    """
    s = cuda.grid(1)
    while s < symbols:
        if runs[s * RUN + 2] < runs[s * RUN + 3]:
            slot = runs[s * RUN] * ss
            c = final[s] * css
            own = csi[c + off * csw]
            room = csi[c + (off + 1) * csw]
            to = sti[slot + off]
            cap = sti[slot + off + 1]
            first = 0
            if older >= 0:
                last = csi[c + older * csw] + csi[c + (older + 1) * csw] + 1
            else:
                first = csi[c + head * csw]
                last = csi[c + tail * csw]
                sti[slot + head] = 0
                sti[slot + tail] = last - first
            f = 0
            while f < fields:
                begin = first
                end = last
                if count >= 0 and f == fields - 1:
                    begin = 0
                    end = csi[c + count * csw]
                j = begin
                while j < end:
                    ari[to + f * cap + j - begin] = cai[own + f * room + j]
                    j += 1
                f += 1
        s += cuda.gridsize(1)


@device("qqnn")
def warm_runs(chunks, to, main, total):
    """The rows a guess runs ahead of its chunk (main 0), or the chunk's own (main 1)."""
    c = cuda.grid(1)
    while c < total:
        w = 0
        while w < RUN:
            to[c * RUN + w] = chunks[c * RUN + w]
            w += 1
        if main == 1:
            to[c * RUN + 2] = chunks[c * RUN + 4]
        else:
            to[c * RUN + 3] = min(chunks[c * RUN + 4], chunks[c * RUN + 3])
        c += cuda.gridsize(1)


@device("qqn")
def copy_words(source, to, n):
    """to[i] = source[i]."""
    i = cuda.grid(1)
    while i < n:
        to[i] = source[i]
        i += cuda.gridsize(1)


@register_jitable
def differs(before, csi, css, csw, words, c):
    """Whether a chunk began in another state than the chunk before it ended in."""
    w = 0
    while w < words:
        if before[c * css + w * csw] != csi[(c - 1) * css + w * csw]:
            return True
        w += 1
    return False


@device("qqqqnnnqqn")
def verify(main, info, before, csi, css, csw, words, redo, redone, total):
    """Mark the chunks whose guess was wrong and note the state they should have begun in."""
    c = cuda.grid(1)
    while c < total:
        wrong = False
        if info[c * INFO] == 0 and main[c * RUN + 2] < main[c * RUN + 3]:
            wrong = differs(before, csi, css, csw, words, c)
        w = 0
        while w < RUN:
            redo[c * RUN + w] = main[c * RUN + w]
            w += 1
        if wrong:
            redone[c] += 1
            w = 0
            while w < words:
                before[c * css + w * csw] = csi[(c - 1) * css + w * csw]
                w += 1
        else:
            redo[c * RUN + 3] = redo[c * RUN + 2]
        c += cuda.gridsize(1)


@device("qqqnnnn")
def begin_again(redo, before, csi, css, csw, words, total):
    """Give the marked chunks the state they should begin in."""
    c = cuda.grid(1)
    while c < total:
        if redo[c * RUN + 2] < redo[c * RUN + 3]:
            w = 0
            while w < words:
                csi[c * css + w * csw] = before[c * css + w * csw]
                w += 1
        c += cuda.gridsize(1)


@device("qqqqqnnnqqn")
def rest(runs, main, spans, before, csi, css, csw, words, final, rests, symbols):
    """What is still wrong after all rounds is run to its symbol's end by one thread."""
    s = cuda.grid(1)
    while s < symbols:
        lo = runs[s * RUN + 2]
        hi = runs[s * RUN + 3]
        w = 0
        while w < RUN:
            rests[s * RUN + w] = runs[s * RUN + w]
            w += 1
        rests[s * RUN + 3] = lo
        if lo < hi:
            c = spans[2 * s] + 1
            while c <= final[s]:
                if differs(before, csi, css, csw, words, c):
                    w = 0
                    while w < words:
                        csi[c * css + w * csw] = csi[(c - 1) * css + w * csw]
                        w += 1
                    rests[s * RUN + 1] = c
                    rests[s * RUN + 2] = main[c * RUN + 2]
                    rests[s * RUN + 3] = hi
                    rests[s * RUN + 4] = main[c * RUN + 2]
                    final[s] = c
                c += 1
        s += cuda.gridsize(1)
