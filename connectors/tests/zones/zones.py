"""Prints local times around changes of clocks, and what Python's zoneinfo makes of them (fold=0: the first of two), in seconds since 1970."""
# python3 zones.py > zones.txt  (made with version 2025b of the database)
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

ZONES = {"Europe/Berlin": (1978, 2037), "America/New_York": (1970, 2037), "America/St_Johns": (1987, 2024), "Australia/Lord_Howe": (1981, 2037),
         "Asia/Kolkata": (2000, 2001), "Pacific/Apia": (2009, 2022), "Africa/Casablanca": (2008, 2019), "America/Caracas": (2007, 2017),
         "Antarctica/Troll": (2005, 2030), "UTC": (2020, 2021)}
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
def offset(zone, at):
    return at.astimezone(zone).utcoffset()
for name, (first, last) in ZONES.items():
    zone, at, changes = ZoneInfo(name), datetime(first, 1, 1, tzinfo=timezone.utc), []
    while at.year < last:
        after = at + timedelta(days=1)
        if offset(zone, at) != offset(zone, after):
            low, high = at, after
            while high - low > timedelta(seconds=1):
                mid = (low + (high - low) / 2).replace(microsecond=0)
                low, high = (mid, high) if offset(zone, mid) == offset(zone, at) else (low, mid)
            changes.append((high, offset(zone, at), offset(zone, after)))
        at = after
    step = max(1, len(changes) // 7)
    locals_ = {datetime(first, 7, 1, 12), datetime(last, 1, 1)}
    for when, before, after in changes[::step]:
        when = when.replace(tzinfo=None)
        low, high = min(when + before, when + after), max(when + before, when + after)
        locals_ |= {low - timedelta(seconds=1), low, low + (high - low) / 2, high - timedelta(seconds=1), high}
    for local in sorted(locals_):
        utc = (local.replace(tzinfo=zone) - EPOCH) // timedelta(seconds=1)
        print(name, local.isoformat(), utc)
