"""Loops of deduplication: what has been seen, in hash tables that keep whole keys.

A table is (places, entries, count): ``entries[e]`` are the words of a key and, behind them, what is
kept of it; ``places`` maps a hash to e, −1 where free. Keys are compared whole, so that two that
share a hash stay two.
"""

import numpy as np
from numba import njit
from numba.extending import register_jitable

KEPT, DUPLICATE, CONFLICT, TOO_OLD, UNKEYED = range(5)


@register_jitable
def hash_of(words, n):
    """A hash of the first n words. Eight numbers in a row in the last word stay neighbours: ids
    are handed out in turn, and neighbours share a line of the cache."""
    h = np.uint64(0x9E3779B97F4A7C15)
    for j in range(n):
        h ^= np.uint64(words[j]) >> np.uint64(3) if j == n - 1 else np.uint64(words[j])
        h *= np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(29)
        h *= np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(32)
    return (h & ~np.uint64(7)) | (np.uint64(words[n - 1]) & np.uint64(7))


@register_jitable
def find(places, entries, words, n):
    """(place, entry) of the key in the first n words; entry −1 and a free place if it is new."""
    mask = np.uint64(len(places) - 1)
    at = hash_of(words, n) & mask
    while places[at] >= 0:
        e = places[at]
        same = True
        for j in range(n):
            same &= entries[e, j] == words[j]
        if same:
            return at, e
        at = (at + np.uint64(1)) & mask
    return at, -1


@register_jitable
def put(seen, at, words, n):
    """A new entry with the first n words."""
    places, entries, count = seen
    e = count[0]
    for j in range(n):
        entries[e, j] = words[j]
    places[at] = e
    count[0] = e + 1
    return e


@njit(cache=True, nogil=True)
def rehash(places, entries, count, n):
    """Fill empty places with the entries, whose keys have n words."""
    for e in range(count):
        at, _ = find(places, entries, entries[e], n)
        places[at] = e


@njit(cache=True, nogil=True)
def keep_young(entries, count, slot, time, latest, horizon):
    """Drop entries older than their key's latest time less the horizon; return how many stay.

    ``slot`` and ``time`` are the words that hold them.
    """
    kept = 0
    for e in range(count):
        if entries[e, time] >= latest[entries[e, slot]] - horizon:
            entries[kept] = entries[e]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def judge(rows, ids, prints, has_id, by_content, horizon, latest, by_id, by_print, by_feed, out):
    """out[i] = what becomes of row i.

    ``rows`` are slots (−1: no key or time) and times. ``ids[i]``: slot, two words of the id, time,
    content. ``prints[i]``: slot, time, content, two words of the connection. ``horizon`` −1 is
    none.
    """
    slots, times = rows
    id_words, print_words = ids.shape[1], prints.shape[1]
    for i in range(len(slots)):
        s, t = slots[i], times[i]
        if s < 0:
            out[i] = UNKEYED
            continue
        if horizon >= 0 and t < latest[s] - horizon:
            out[i] = TOO_OLD
            continue
        out[i] = KEPT
        if has_id[i]:
            at, e = find(by_id[0], by_id[1], ids[i], 3)
            if e < 0:
                put(by_id, at, ids[i], id_words)
            elif horizon >= 0 and by_id[1][e, 3] < latest[s] - horizon:
                by_id[1][e] = ids[i]  # forgotten, though still there
            else:
                out[i] = DUPLICATE
                for j in range(3, id_words):
                    if by_id[1][e, j] != ids[i, j]:
                        out[i] = CONFLICT
        elif by_content:
            key = print_words - 2
            at, e = find(by_feed[0], by_feed[1], prints[i], print_words)
            if e < 0:
                e = put(by_feed, at, prints[i], print_words)
                by_feed[1][e, print_words] = 0
            by_feed[1][e, print_words] += 1
            nth = by_feed[1][e, print_words]
            at, e = find(by_print[0], by_print[1], prints[i], key)
            if e < 0:
                e = put(by_print, at, prints[i], key)
                by_print[1][e, key] = 0
            if nth > by_print[1][e, key]:
                by_print[1][e, key] = nth
            else:
                out[i] = DUPLICATE
        if out[i] == KEPT:
            latest[s] = max(latest[s], t)
