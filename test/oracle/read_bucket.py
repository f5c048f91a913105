#!/usr/bin/python3
"""Reads a Varve bucket (a directory) without Varve: a second implementation of docs/formats/bucket.md, used as a test oracle.

  read_bucket.py DIR list                       volumes, their snapshots and which points open
  read_bucket.py DIR export VOLUME POINT OUT    the raw disk of VOLUME (name or id) at POINT: snapshot, lsn:N, RFC 3339 time

Needs Python's standard library and zstd: the module zstandard (Debian: python3-zstandard), or else the command `zstd`.
Every object is checked by its SHA-256, and chunks by the one they are named by.
"""
import datetime, hashlib, json, os, re, struct, subprocess, sys

try:
    import zstandard
except ImportError:
    zstandard = None

EXTENT, FRAME = 4 << 20, 256 << 10
WRITE, ZERO, ZERO_ALLOCATED, TRIM, EPOCH, MARK, RESIZE, REBASE = range(8)


class Refused(Exception):
    """What the bucket holds, or what was asked for, can't be read."""


def need(condition, message):
    if not condition:
        raise Refused(message)


def unzstd(data, size):
    if zstandard is not None:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    else:
        raw = subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    need(len(raw) == size, f"{len(raw)} bytes unpacked instead of {size}")
    return raw


class Bucket:
    def __init__(self, root):
        self.root = root

    def get(self, key):
        """A whole object; the SHA-256 at its end is checked."""
        need(re.fullmatch(r"[a-zA-Z0-9._/-]{1,512}", key) and ".." not in key, f"{key!r} is no key")
        path = os.path.join(self.root, key)
        need(os.path.isfile(path), f"{key}: named, but not there")
        with open(path, "rb") as file:
            data = file.read()
        need(len(data) > 32 and hashlib.sha256(data[:-32]).digest() == data[-32:], f"{key}: damaged")
        return data

    def open(self, key, magic, known=(1,)):
        data = self.get(key)
        kind, version, flags = struct.unpack_from("<4sHH", data)
        need(kind == magic, f"{key}: is no {magic.decode()}")
        need(version in known, f"{key}: version {version}, this reader knows {known}")
        need(flags == 0, f"{key}: encrypted, or flags of a newer version ({flags})")
        return data

    def content(self, key, magic, known=(1,)):
        """The JSON of a sealed object."""
        data = self.open(key, magic, known)
        packed, raw = struct.unpack_from("<II", data, 8)
        need(len(data) == 48 + packed, f"{key}: {len(data)} bytes instead of {48 + packed}")
        return json.loads(unzstd(data[16:16 + packed], raw))

    def manifest(self, volume_id):
        """The present manifest: the one with the greatest key."""
        prefix = f"volumes/{volume_id}/manifests"
        folder = os.path.join(self.root, prefix)
        names = os.listdir(folder) if os.path.isdir(folder) else []
        need(names, f"volume {volume_id} has no manifest")
        m = self.content(f"{prefix}/{max(names)}", b"VMAN", (1, 2))
        name = f"{m['lineNumber']:06}.{m['line']}.{m['archiverEpoch']:08}.{m['number']:010}"
        need((m["volumeId"], name) == (volume_id, max(names)), f"{prefix}/{max(names)}: is another manifest")
        return m

    def manifests(self):
        ids = sorted(os.listdir(os.path.join(self.root, "volumes")))
        return [self.manifest(volume_id) for volume_id in ids if re.fullmatch("[0-9a-f]{16}", volume_id)]

    def volume(self, name):
        found = [m for m in self.manifests() if name in (m["volumeId"], m["name"])]
        found = [m for m in found if m["deletedAtMs"] is None] or found
        need(found, f"no volume {name}")
        need(len(found) == 1, f"{name} may be: {', '.join(m['volumeId'] for m in found)}")
        return found[0]


class Segment:
    """A segment: its records and the columns of its footer."""

    def __init__(self, bucket, volume_id, ref):
        key = ref["key"]
        data = bucket.open(key, b"VSGM")
        at = len(data) - 72
        start, packed, raw, coding = struct.unpack_from("<QIII", data, at)
        need(data[at + 24:at + 28] == b"VSGE" and start + packed == at, f"{key}: no footer")
        footer = data[start:at] if coding == 1 else unzstd(data[start:at], raw)
        need(footer[:48] == data[8:56], f"{key}: head and footer differ")
        self.line = footer[8:16].hex()
        self.first, self.last, self.previous = struct.unpack_from("<QQQ", footer, 16)
        size, frames, batches, entries, texts, _ = struct.unpack_from("<IIIIII", footer, 40)
        same = (footer[:8].hex(), self.first, self.last) == (volume_id, ref["firstLsn"], ref["lastLsn"])
        need(same and len(data) == ref["bytes"], f"{key}: is not what its reference says")
        columns, place = [], 64
        for column in "bQ bQ bQ eQ eQ fQ bI bI eI fI fI eB fB".split():
            column = str({"b": batches, "e": entries, "f": frames}[column[0]]) + column[1]
            columns.append(struct.unpack_from("<" + column, footer, place))
            place += struct.calcsize("<" + column)
        need(place + texts == len(footer), f"{key}: the footer is not filled")
        self.times, _epochs, self.checksums, self.offsets, self.lengths, _xxh64 = columns[:6]  # SHA-256 has covered it
        batch_places, self.batch_entries, self.places, frame_starts, frame_lengths, self.kinds, codings = columns[6:]
        pieces = []
        for number in range(frames):
            stored = data[frame_starts[number]:frame_starts[number] + frame_lengths[number]]
            length = min(FRAME, size - number * FRAME)
            pieces.append(stored if codings[number] == 1 else unzstd(stored, length))
        self.records = b"".join(pieces)
        need(len(self.records) == size, f"{key}: {len(self.records)} bytes of records instead of {size}")
        before = self.previous
        for record, checksum in zip(batch_places, self.checksums):
            own, magic = struct.unpack_from("<Q4s", self.records, record)
            (chained,) = struct.unpack_from("<Q", self.records, record + 56)
            need((own, magic, chained) == (checksum, b"VBAT", before), f"{key}: record at {record} breaks the chain")
            before = checksum


class Disk:
    """The raw disk in a sparse file."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.size = 0

    def resize(self, size, kept=None):
        """Grows with zeroes; what is cut off, here from `kept` on, does not come back."""
        os.ftruncate(self.file, size if kept is None else kept)
        os.ftruncate(self.file, size)
        self.size = size

    def write(self, offset, data):
        need(offset + len(data) <= self.size, f"write of {len(data)} bytes at {offset} past the end {self.size}")
        need(os.pwrite(self.file, data, offset) == len(data), "a short write: is the disk full?")

    def zero(self, offset, length):
        """Overwrites only what is no hole, so that trims of a whole large disk take no time."""
        at, end = offset, offset + length
        need(end <= self.size, f"zeroes to {end} past the end {self.size}")
        while at < end:
            try:
                at = os.lseek(self.file, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return
            stop = min(end, os.lseek(self.file, at, os.SEEK_HOLE))
            for start in range(at, stop, EXTENT):
                self.write(start, bytes(min(EXTENT, stop - start)))
            at = stop


def segment_refs(bucket, manifest):
    """References to all segments that are there, in order."""
    refs = []
    for page in manifest["pages"]:
        content = bucket.content(page["key"], b"VIDX")
        need(content["volumeId"] == manifest["volumeId"], f"{page['key']}: of another volume")
        refs += content["segments"]
    return refs + manifest["segments"]


def start_from_base(bucket, manifest, base, disk):
    content = bucket.content(base["key"], b"VBAS")
    need((content["s"], content["e"]) == (base["s"], base["e"]), f"{base['key']}: is not what its reference says")
    disk.resize(content["sizeBytes"], kept=0)
    for number, page_key in [(n, key) for n, key in enumerate(content["pages"]) if key is not None]:
        page = bucket.content(page_key, b"VBPG")
        own = f"volumes/{manifest['volumeId']}/pages/{page['serial']:016}-{number:08}."
        need(page_key.startswith(own), f"{page_key}: is another page")
        for extent, name in enumerate(page["chunks"], number * 1024):
            offset = extent * EXTENT
            if name is not None and offset < disk.size:
                disk.write(offset, chunk_content(bucket, name)[:disk.size - offset])


def chunk_content(bucket, name):
    key = f"chunks/{name[:2]}/{name}"
    data = bucket.open(key, b"VCHK")
    pieces = []
    for row in range(16):
        _, start, length, coding = struct.unpack_from("<QIII", data, 64 + row * 24)
        stored = data[start:start + length]
        pieces.append(bytes(FRAME) if coding == 0 else stored if coding == 1 else unzstd(stored, FRAME))
    content = b"".join(pieces)
    need(hashlib.sha256(content).hexdigest() == name.split(".")[0], f"{key}: is not the content it is named by")
    return content


def apply_log(bucket, manifest, after, upto, disk):
    """Applies entries after + 1 to upto, which must all be there."""
    done = after
    for ref in segment_refs(bucket, manifest) if upto > after else []:
        if ref["lastLsn"] <= done or ref["firstLsn"] > upto:
            continue
        need(ref["firstLsn"] <= done + 1, f"{manifest['name']}: entry {done + 1} is no longer there")
        segment = Segment(bucket, manifest["volumeId"], ref)
        lines = [a["line"] for a in manifest["ancestors"] if segment.last <= a["lastLsn"]] + [manifest["line"]]
        need(segment.line == lines[0], f"{ref['key']}: is of another line")
        for entry in range(done + 1 - segment.first, min(upto, segment.last) + 1 - segment.first):
            kind, offset, length = segment.kinds[entry], segment.offsets[entry], segment.lengths[entry]
            if kind == WRITE:
                place = segment.places[entry]
                disk.write(offset, segment.records[place:place + length])
            elif kind in (ZERO, ZERO_ALLOCATED, TRIM):
                disk.zero(offset, length)
            elif kind == RESIZE:
                disk.resize(offset)
            else:
                need(kind in (EPOCH, MARK), f"{ref['key']}: a rebase where none may be")
        done = min(upto, segment.last)
    need(done == upto, f"{manifest['name']}: entry {done + 1} is not there")


def fold(bucket, manifest, point, disk):
    """The disk at a point: docs/formats/bucket.md, "Reading a point"."""
    rebase = max((r for r in manifest["rebases"] if r["lsn"] <= point), key=lambda r: r["lsn"], default=None)
    after = rebase["lsn"] if rebase else 0
    bases = [b for b in manifest["bases"] if after <= b["s"] and b["e"] <= point]
    if bases:
        base = max(bases, key=lambda b: b["s"])
        start_from_base(bucket, manifest, base, disk)
        after = base["s"]
    elif rebase:
        fold(bucket, manifest, rebase["toLsn"], disk)
    elif manifest["origin"]:
        origin = manifest["origin"]
        fold(bucket, bucket.manifest(origin["volumeId"]), origin["lsn"], disk)
        disk.resize(manifest["beginBytes"])
    else:
        disk.resize(manifest["beginBytes"], kept=0)
    apply_log(bucket, manifest, after, point, disk)


def resolve(bucket, manifest, text):
    """The LSN that a snapshot's name, lsn:N or a time means."""
    kept = {s["name"]: s["lsn"] for s in manifest["snapshots"]}
    if text in kept:
        return kept[text]
    numbered = re.fullmatch("lsn:([0-9]+)", text)
    lsn = int(numbered[1]) if numbered else point_of_time(bucket, manifest, text)
    opens = manifest["retainedFromLsn"] <= lsn <= manifest["archivedLsn"]
    opens = opens or lsn in [named["lsn"] for named in manifest["snapshots"] + manifest["pins"]]
    opens = opens and not any(gap["fromLsn"] <= lsn < gap["toLsn"] for gap in manifest["gaps"])
    need(opens, f"lsn:{lsn} does not open; lsn:{manifest['retainedFromLsn']} to lsn:{manifest['archivedLsn']} do")
    return lsn


def point_of_time(bucket, manifest, text):
    need(re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", text), f"{text!r} is no snapshot, lsn:N or time")
    time = datetime.datetime.fromisoformat(text)
    need(time.tzinfo is not None, f"{text!r} has no zone")
    asked = (time - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(milliseconds=1)
    batches = []
    for ref in segment_refs(bucket, manifest):
        segment = Segment(bucket, manifest["volumeId"], ref)
        ends = segment.batch_entries[1:] + (len(segment.kinds),)
        batches += [(time, segment.first + end - 1) for time, end in zip(segment.times, ends)]
    need(batches and asked <= max(manifest["writtenAtMs"], batches[-1][0]), f"{text} is in the future of this bucket")
    pairs = zip(batches, [time for time, _ in batches[1:]] + [float("inf")])
    found = [last for (time, last), after in pairs if time <= asked and (asked < after or after < time == asked)]
    need(found, f"{text} is before the oldest entry")
    need(len(found) == 1, f"the clock went back; {text} may be: {', '.join(f'lsn:{lsn}' for lsn in found)}")
    return found[0]


def main(arguments):
    if arguments[1:] == ["list"]:
        for m in Bucket(arguments[0]).manifests():
            state = "" if m["deletedAtMs"] is None else ", deleted"
            points = f"lsn:{m['retainedFromLsn']} to lsn:{m['archivedLsn']}"
            print(f"{m['name']} {m['volumeId']} {m['sizeBytes']} bytes, {points}{state}")
            for snapshot in m["snapshots"]:
                print(f"  {snapshot['name']} lsn:{snapshot['lsn']}")
    elif arguments[1:2] == ["export"] and len(arguments) == 5:
        bucket = Bucket(arguments[0])
        manifest = bucket.volume(arguments[2])
        lsn = resolve(bucket, manifest, arguments[3])
        fold(bucket, manifest, lsn, Disk(arguments[4]))
        print(f"{manifest['name']}@lsn:{lsn}")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Refused, ValueError) as refused:
        sys.exit(f"read_bucket.py: {refused}")
