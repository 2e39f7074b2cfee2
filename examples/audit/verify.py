#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Verify writ's ledgers with Python's standard library alone.

This is a second reader of the formats in docs/audit.md, written from that page. It shares
no code with writ, so that what both of them verify does not rest on one program.

    verify.py ledger DIR VKEYFILE            verify the segments in a directory
    verify.py log DIR VKEYFILE [AGENTKEY]... verify a collector's own log, and in it the
                                             heads of the agents whose keys are given
    verify.py proof FILE VKEYFILE AGENTKEY   verify that a collector's log has an agent's
                                             head ("writ log prove")
    verify.py kit DIR                        run a test kit against this reader

It ends with 0 where everything verifies, and with 1 where something does not. It does not
read bodies: see "needs" in the test kit.
"""

import base64
import binascii
import hashlib
import hmac
import re
import struct
import sys
from pathlib import Path

MAX_RECORD = 65_535


class Bad(Exception):
    """What does not hold, with the test kit's word for it."""

    def __init__(self, word, why):
        super().__init__(f"{word}: {why}")
        self.word = word


# --- Ed25519 (RFC 8032, section 5.1), in extended coordinates ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def decompress(raw):
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * SQRT_M1 % P
    if y >= P or (x * x - x2) % P or (x == 0 and sign):
        raise ValueError("not a point")
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def compress(p):
    inverse = pow(p[2], P - 2, P)
    x, y = p[0] * inverse % P, p[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class Multiples:
    """The multiples of a point that are often needed, made once: d * 16**i for each digit d."""

    def __init__(self, point):
        self.rows = []
        for _ in range(64):
            row = [NEUTRAL]
            for _ in range(15):
                row.append(add(row[-1], point))
            self.rows.append(row)
            point = add(row[15], point)

    def times(self, n):
        out = NEUTRAL
        for row in self.rows:
            if n & 15:
                out = add(out, row[n & 15])
            n >>= 4
        return out


BASE = Multiples(decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little")))


class Key:
    """A verifier key: who it is of, its id, and what it signed."""

    def __init__(self, vkey):
        self.name, key_id, key = vkey.split("+", 2)
        raw = decode64(key)
        if len(raw) != 33 or raw[0] != 1:
            raise ValueError("not an Ed25519 vkey")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + raw).digest()[:4]
        if self.id.hex() != key_id:
            raise ValueError("the key id is not that of the key")
        self.public = raw[1:]
        x, y, z, t = decompress(self.public)
        self.minus = Multiples((P - x, y, z, P - t))

    def signed(self, message, signature):
        r, s = signature[:32], int.from_bytes(signature[32:], "little")
        if len(signature) != 64 or s >= L:
            return False
        k = int.from_bytes(hashlib.sha512(r + self.public + message).digest(), "little") % L
        return compress(add(BASE.times(s), self.minus.times(k))) == r


def decode64(text):
    """Strict base64: one text for one value."""
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != (text if isinstance(text, str) else text.decode()):
        raise binascii.Error("another spelling")
    return raw


# --- the Merkle tree of RFC 6962 ---


def leaf_hash(record):
    return hashlib.sha256(b"\x00" + record).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A compact range: the perfect subtrees of the tree so far, the largest first."""

    def __init__(self, size=0, hashes=()):
        self.size = size
        self.hashes = list(hashes)

    def append(self, record):
        node, size = leaf_hash(record), self.size
        while size & 1:
            node = node_hash(self.hashes.pop(), node)
            size >>= 1
        self.hashes.append(node)
        self.size += 1

    def root(self):
        if not self.hashes:
            return hashlib.sha256(b"").digest()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def inclusion_root(index, size, leaf, path):
    """RFC 9162, section 2.1.3.2: the root that a path leads to."""
    if index >= size:
        raise Bad("receipt", "the index is not in the tree")
    fn, sn, node = index, size - 1, leaf
    for sibling in path:
        if sn == 0:
            raise Bad("receipt", "the path is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Bad("receipt", "the path is too short")
    return node


# --- records ---

VARINT, FIXED64, BYTES = 0, 1, 2
RECORD = {1: BYTES, 2: FIXED64, 3: VARINT, 4: BYTES, 5: FIXED64, 6: VARINT, 7: FIXED64, 8: BYTES, 9: BYTES, 10: BYTES, 11: BYTES, 12: BYTES}
COMMITMENT = {1: BYTES, 2: BYTES}
SEALED = {1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT}


def varint(raw, at):
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise Bad("record", "a varint that does not end")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if (byte == 0 and shift > 7) or value >> 64:
        raise Bad("record", "a varint that is not the shortest, or too large")
    return value, at


def fields(raw, schema, repeated=()):
    """Read a message in canonical form: {number: value}, lists for what is repeated."""
    out, at, last = {}, 0, 0
    while at < len(raw):
        tag, at = varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if schema.get(number) != wire:
            raise Bad("record", f"field {number} of wire type {wire}")
        if number < last or (number == last and number not in repeated):
            raise Bad("record", f"field {number} out of order or twice")
        last = number
        if wire == VARINT:
            value, at = varint(raw, at)
        else:
            size = 8
            if wire == BYTES:
                size, at = varint(raw, at)
            if size > len(raw) - at:
                raise Bad("record", "cut short")
            value, at = raw[at : at + size], at + size
            if wire == FIXED64:
                value = int.from_bytes(value, "little")
        if number in repeated:
            out.setdefault(number, []).append(value)
        elif not value:
            raise Bad("record", f"field {number} is written at its default")
        else:
            out[number] = value
    return out


def text(raw, most):
    try:
        s = raw.decode()
    except UnicodeDecodeError as err:
        raise Bad("record", "not UTF-8") from err
    if len(s) > most:
        raise Bad("record", f"more than {most} characters")
    return s


def check_record(raw, log_id, index):
    if not 1 <= len(raw) <= MAX_RECORD:
        raise Bad("record", f"{len(raw)} bytes")
    r = fields(raw, RECORD, repeated=(11,))
    text(r.get(4, b""), 128)
    last = b""
    commitments = r.get(11, [])
    for c in commitments:
        c = fields(c, COMMITMENT)
        path = c.get(1, b"")
        text(path, 1024)
        if path <= last or len(c.get(2, b"")) != 32:
            raise Bad("record", "commitments out of order or of another form")
        last = path
    sealed = fields(r[12], SEALED) if 12 in r else {}
    for ok, why in (
        (r.get(1) == log_id, "it belongs to another ledger"),
        (r.get(2, 0) == index, f"its index is {r.get(2, 0)}, want {index}"),
        (r.get(3, 0) >= 1, "no epoch"),
        (1 <= r.get(6, 0) <= 16, f"kind {r.get(6, 0)}"),
        (len(r.get(8, b"")) <= 16, "a long decision id"),
        (len(r.get(9, b"")) <= 32, "a long bundle digest"),
        (len(commitments) <= 256, "too many commitments"),
        (
            all(len(sealed.get(n, b"")) <= most for n, most in ((1, 10), (2, 32), (3, 128), (4, 20480))),
            "sealed originals of another form",
        ),
    ):
        if not ok:
            raise Bad("record", why)
    return r


# --- segments ---

HEADER, RECORD_FRAME, HEAD, SEAL = range(4)


def crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def frames(raw):
    at = 0
    if not raw:
        raise Bad("frame", "an empty segment")
    while at < len(raw):
        if len(raw) - at < 9:
            raise Bad("frame", "cut short")
        length, crc, kind = struct.unpack_from("<IIB", raw, at)
        right = {HEAD: length == 108, SEAL: length == 40}.get(kind, 1 <= length <= MAX_RECORD)
        if kind > SEAL or not right:
            raise Bad("frame", f"type {kind}, length {length}")
        payload = raw[at + 9 : at + 9 + length]
        if len(payload) < length:
            raise Bad("frame", "cut short")
        if crc32c(raw[at : at + 4] + raw[at + 8 : at + 9 + length]) != crc:
            raise Bad("frame", "wrong CRC")
        yield kind, payload
        at += 9 + length


def head_text(origin, size, root):
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()


class Segment:
    """What one segment says, verified."""

    def __init__(self, raw, key):
        self.key = key
        self.log_id = hashlib.sha256(key.name.encode()).digest()
        self.tree = None
        self.sealed = False
        self.heads = self.covered = 0  # covered: size of the tree under the last head
        self.root = b""
        for kind, payload in frames(raw):
            if (kind == HEADER) != (self.tree is None):
                raise Bad("structure", "a header that is not first, or a first frame that is none")
            if self.sealed:
                raise Bad("structure", "a frame after the seal")
            (self.header, self.record, self.head, self.seal)[kind](payload)

    def header(self, b):
        if b[:8] != b"WRITDLOG" or len(b) < 30:
            raise Bad("structure", "no header")
        version, self.epoch, self.first, n = struct.unpack_from("<IQQH", b, 8)
        origin, count, hashes = b[30 : 30 + n], b[30 + n : 31 + n], b[31 + n :]
        want = self.first.bit_count()
        if version != 1 or self.epoch < 1 or origin != self.key.name.encode() or count != bytes([want]) or len(hashes) != 32 * want:
            raise Bad("structure", "a header of another version, epoch, origin or range")
        self.range = [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
        self.tree, self.covered = Tree(self.first, self.range), self.first

    def record(self, raw):
        r = check_record(raw, self.log_id, self.tree.size)
        if r[3] != self.epoch:
            raise Bad("record", f"epoch {r[3]} in a segment of epoch {self.epoch}")
        self.tree.append(raw)

    def head(self, b):
        size, root, key_id, signature = struct.unpack("<Q32s4s64s", b)
        if size != self.tree.size or size == self.covered:
            raise Bad("structure", f"a head of size {size} after {self.tree.size} records")
        if root != self.tree.root():
            raise Bad("head", f"the root of size {size} is not that of the records")
        if key_id != self.key.id or not self.key.signed(head_text(self.key.name, size, root), signature):
            raise Bad("head", f"the head of size {size} is not signed with the key")
        self.heads, self.covered, self.root = self.heads + 1, size, root

    def seal(self, b):
        size, root = struct.unpack("<Q32s", b)
        if size != self.tree.size or size != self.covered or root != self.tree.root():
            raise Bad("structure", "a seal that does not fit")
        self.sealed = True


def verify_ledger(directory, key):
    """Verify a directory of segments: prints what it holds, raises Bad."""
    names = sorted(p.name for p in Path(directory).glob("*.dlog"))
    if not names:
        raise Bad("structure", f"no segments in {directory}")
    before, heads = None, 0
    for name in names:
        if not re.fullmatch(r"\d{8,}-\d{20}\.dlog", name):
            raise Bad("structure", f"{name} is no name of a segment")
        s = Segment((Path(directory) / name).read_bytes(), key)
        if name != f"{s.epoch:08d}-{s.first:020d}.dlog":
            raise Bad("structure", f"{name} says another epoch or index than its header")
        if before and not (before.sealed and s.first == before.tree.size and s.epoch >= before.epoch and s.range == before.tree.hashes):
            raise Bad("structure", f"{name} does not go on where the one before ended")
        if before is None:
            first = s.first
        elif not s.heads:
            s.root = before.root
        before, heads = s, heads + s.heads
    print(f"verified  {key.name}\nrecords   {first} to {before.covered}, under {heads} signed heads\nroot      {before.root.hex()} of size {before.covered}")


# --- notes, receipts, commitments ---


def open_note(raw, key):
    """The text of a signed note that a key signed, and how many signatures it has."""
    text, blank, signatures = raw.rpartition(b"\n\n")
    lines = signatures.split(b"\n")
    if not blank or lines.pop() != b"" or not lines:
        raise Bad("head", "no signed note")
    text += b"\n"
    good = False
    for line in lines:
        dash, name, sig = (line.split(b" ") + [b"", b""])[:3]
        try:
            sig = decode64(sig)
        except (binascii.Error, ValueError) as err:
            raise Bad("head", "a signature line that is none") from err
        if dash != "—".encode() or len(sig) < 5:
            raise Bad("head", "a signature line that is none")
        if name == key.name.encode() and sig[:4] == key.id:
            if not key.signed(text, sig[4:]):
                raise Bad("head", "wrong signature")
            good = True
    if not good:
        raise Bad("head", "not signed with the key")
    return text, len(lines)


def open_head(raw, key):
    text, signatures = open_note(raw, key)
    found = re.fullmatch(rb"([^\n]+)\n(0|[1-9][0-9]*)\n([A-Za-z0-9+/]{43}=)\n", text)
    if not found or int(found[2]) >> 64:
        raise Bad("head", "no checkpoint of three lines")
    try:
        root = decode64(found[3])
    except binascii.Error as err:
        raise Bad("head", "bad root") from err
    return found[1].decode(), int(found[2]), root, signatures


def verify_receipt(raw, key):
    magic = b"writ/receipt/v1\n"
    try:
        if raw[: len(magic)] != magic:
            raise Bad("receipt", "another first line")
        at = len(magic) + 4
        (length,) = struct.unpack_from("<I", raw, len(magic))
        record, count = raw[at : at + length], raw[at + length]
        at += length + 1
        path = [raw[i : i + 32] for i in range(at, at + 32 * count, 32)]
        origin, size, root, signatures = open_head(raw[at + 32 * count :], key)
        if origin != key.name or signatures != 1 or count > 64:
            raise Bad("receipt", "of another ledger, or of another form")
        r = fields(record, RECORD, repeated=(11,))
        if r.get(1) != hashlib.sha256(origin.encode()).digest():
            raise Bad("receipt", "the record is of another ledger")
        if inclusion_root(r.get(2, 0), size, leaf_hash(record), path) != root:
            raise Bad("receipt", "the path does not lead to the root")
    except (Bad, struct.error, IndexError) as err:
        raise Bad("receipt", err) from err
    return {"index": r.get(2, 0), "size": size, "root": root.hex()}


def commit(v, payload):
    def hkdf(secret, info):
        extracted = hmac.digest(bytes(32), secret, "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")

    def sized(x):
        return struct.pack("<Q", len(x)) + x

    log_id, path = hashlib.sha256(v["origin"].encode()).digest(), v["path"].encode()
    record_salt = hmac.digest(bytes.fromhex(v["commit-key"]), b"writ/record-salt/v1" + log_id + struct.pack("<Q", int(v["index"])), "sha256")
    salt = hkdf(record_salt, b"writ/salt/v1" + path)
    digest = hmac.digest(salt, b"".join(map(sized, (b"writ/commit/v1", log_id, path, payload))), "sha256")
    return {"salt": salt.hex(), "digest": digest.hex()}


# --- a collector's own log ---

ENTRY = {1: FIXED64, 2: BYTES, 3: BYTES}
FINDING = {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: BYTES, 6: BYTES, 7: BYTES}


def tile_path(number, width):
    digits = f"{number % 1000:03d}"
    while number >= 1000:
        number //= 1000
        digits = f"x{number % 1000:03d}/{digits}"
    return digits if width == 256 else f"{digits}.p/{width}"


def read_tile(directory, kind, number, width):
    """A tile or entry bundle; a partial one may have been replaced by the full one."""
    path = Path(directory) / "tile" / kind
    if width < 256 and not (path / tile_path(number, width)).exists():
        width = 256
    return (path / tile_path(number, width)).read_bytes()


def log_entries(directory, size):
    for first in range(0, size, 256):
        width, at = min(256, size - first), 0
        raw = read_tile(directory, "entries", first // 256, width)
        for _ in range(width):
            (length,) = struct.unpack_from(">H", raw, at)
            entry = raw[at + 2 : at + 2 + length]
            if len(entry) != length:
                raise Bad("frame", f"an entry after {first} is cut short")
            yield entry
            at += 2 + length


def check_tiles(directory, hashes):
    """Hold the tiles against the leaves, level by level."""
    level = 0
    while hashes:
        above = []
        for first in range(0, len(hashes), 256):
            part = hashes[first : first + 256]
            if not read_tile(directory, str(level), first // 256, len(part)).startswith(b"".join(part)):
                raise Bad("head", f"tile {first // 256} of level {level} is not that of the tree")
            if len(part) == 256:
                while len(part) > 1:
                    part = [node_hash(part[i], part[i + 1]) for i in range(0, len(part), 2)]
                above += part
        hashes, level = above, level + 1


def check_entry(raw):
    """An entry of a log: {2: head} or {3: finding}."""
    try:
        e = fields(raw, ENTRY)
        if 3 in e:
            fields(e[3], FINDING)
    except Bad as bad:
        raise Bad("entry", bad) from bad
    if (2 in e) == (3 in e):
        raise Bad("entry", "neither a head nor a finding, or both")
    return e


def verify_log(directory, key, agents):
    """Verify a log, and that the heads in it are signed and grow."""
    origin, size, root, signatures = open_head((Path(directory) / "checkpoint").read_bytes(), key)
    if origin != key.name:
        raise Bad("head", "a checkpoint of another log")
    tree, leaves, newest, findings = Tree(), [], {}, 0
    for entry in log_entries(directory, size):
        tree.append(entry)
        leaves.append(leaf_hash(entry))
        e = check_entry(entry)
        if 3 in e:
            findings += 1
            continue
        ledger = e[2].split(b"\n", 1)[0].decode()
        if ledger in agents:
            _, grown, _, _ = open_head(e[2], agents[ledger])
            if grown <= newest.get(ledger, 0):
                raise Bad("head", f"entry {tree.size - 1}: {ledger} does not grow")
            newest[ledger] = grown
    if tree.root() != root:
        raise Bad("head", "the checkpoint's root is not that of the entries")
    check_tiles(directory, leaves)
    print(f"verified  {origin}\nlog       {size} entries, {findings} of them findings, under {signatures} signatures\nroot      {root.hex()} of size {size}")
    for ledger, grown in sorted(newest.items()):
        print(f"ledger    {ledger} of size {grown}")


def verify_proof(path, key, agent):
    """Verify a C2SP tlog-proof of an entry, which it has as extra data, and the head in it."""
    proof, blank, checkpoint = Path(path).read_bytes().partition(b"\n\n")
    found = re.fullmatch(rb"c2sp\.org/tlog-proof@v1\nextra ([^\n]+)\nindex (0|[1-9][0-9]*)((?:\n[A-Za-z0-9+/]{43}=){0,64})", proof)
    if not blank or not found:
        raise Bad("proof", "no C2SP tlog-proof with extra data")
    entry, index, path = decode64(found[1]), int(found[2]), [decode64(line) for line in found[3].split()]
    origin, size, root, signatures = open_head(checkpoint, key)
    if origin != key.name or inclusion_root(index, size, leaf_hash(entry), path) != root:
        raise Bad("proof", "the path does not lead to the checkpoint's root")
    e = check_entry(entry)
    if 2 not in e:
        raise Bad("proof", "the entry is a finding")
    ledger, grown, head, _ = open_head(e[2], agent)
    if ledger != agent.name:
        raise Bad("proof", "the head is another ledger's")
    print(f"verified  {origin}\nentry     {index} of {size}, under {signatures} signatures\nledger    {ledger} of size {grown}, root {head.hex()}")


# --- the test kit ---


def run(v, payload):
    """What this reader finds in a vector, or Bad."""
    kind = v["kind"]
    if kind == "record":
        check_record(payload, hashlib.sha256(v["origin"].encode()).digest(), int(v["index"]))
        return {"leaf": leaf_hash(payload).hex()}
    if kind == "commitment":
        return commit(v, payload)
    if kind == "entry":
        check_entry(payload)
        return {"leaf": leaf_hash(payload).hex()}
    key = Key(v["vkey"])
    if kind == "segment":
        s = Segment(payload, key)
        return {"records": s.covered - s.first, "heads": s.heads, "size": s.covered, "root": s.root.hex()}
    if kind == "checkpoint":
        origin, size, root, _ = open_head(payload, key)
        return {"origin": origin, "size": size, "root": root.hex()}
    if kind == "receipt":
        return verify_receipt(payload, key)
    raise KeyError(f"unknown kind {kind}")


def run_kit(directory):
    wrong = passed = left = 0
    for path in sorted(Path(directory).glob("*.txt")):
        head, _, body = path.read_text().partition("\n\n")
        v = dict(line.split(": ", 1) for line in head.split("\n"))
        if v.get("needs") == "bodies":
            left += 1
            continue
        found = {}
        try:
            found = run(v, base64.b64decode(body))
            word = "valid"
        except Bad as bad:
            word = bad.word
        differ = [f"{name} is {value}, want {v.get(name)}" for name, value in found.items() if str(value) != v.get(name)]
        if word != v["expect"]:
            differ.append(f"{word}, want {v['expect']}")
        if differ:
            print(f"{path.name}: {'; '.join(differ)}")
            wrong += 1
        passed += not differ
    print(f"{passed} vectors as expected, {wrong} not, {left} left out")
    return wrong == 0 and passed > 0


def read_key(path):
    return Key(Path(path).read_text().strip())


def verified(verify, *arguments):
    try:
        verify(*arguments)
    except (Bad, ValueError, struct.error, IndexError) as bad:
        print(f"NOT verified  {bad}")
        return 1
    return 0


def main(arguments):
    match arguments:
        case ["ledger", directory, vkey]:
            return verified(verify_ledger, directory, read_key(vkey))
        case ["log", directory, vkey, *agents]:
            keys = map(read_key, agents)
            return verified(verify_log, directory, read_key(vkey), {key.name: key for key in keys})
        case ["proof", path, vkey, agent]:
            return verified(verify_proof, path, read_key(vkey), read_key(agent))
        case ["kit", directory]:
            return 0 if run_kit(directory) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
