/*
 * The bytes that came from one client and are not handled yet: one slab, filled from the socket, parsed in place. It also
 * decides where the next read lands; that must not change while a read is promised to libuv (see target()). Filled by
 * nbd-connection.ts, parsed by nbd-negotiation.ts and nbd-transmission.ts.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Slab } from "#shared/ports/slab.ts";

export class NbdInput {
  readonly slab: Slab;
  readonly view: DataView;
  /** Bytes [parsed, filled) of the slab wait to be handled. */
  parsed = 0;
  filled = 0;
  private readonly whole: Buffer;

  constructor(slab: Slab) {
    invariant(
      slab.bytes.length >= limits.nbdInputBytes + limits.nbdInputSpareBytes,
      "an input slab has room to spare",
    );
    this.slab = slab;
    this.view = new DataView(slab.bytes.buffer, slab.bytes.byteOffset, slab.bytes.byteLength);
    this.whole = slab.bytes.subarray(0, limits.nbdInputBytes);
  }

  get waiting(): number {
    return this.filled - this.parsed;
  }

  /**
   * Where the next bytes go: behind what waits, never nowhere. While reading is stopped this answer stands, so that only
   * here bytes may move; the spare part of the slab guarantees room for the read after a stop.
   */
  target(): Buffer {
    if (this.parsed === this.filled) {
      this.parsed = 0;
      this.filled = 0;
      return this.whole;
    }
    if (this.parsed > 0 && this.filled > limits.nbdInputBytes / 2) {
      this.slab.bytes.copyWithin(0, this.parsed, this.filled);
      this.filled -= this.parsed;
      this.parsed = 0;
    }
    const room = limits.nbdInputBytes - this.filled;
    const end = room < limits.nbdInputSpareBytes ? this.slab.bytes.length : limits.nbdInputBytes;
    invariant(end > this.filled, "input has room for the next read");
    return this.slab.bytes.subarray(this.filled, end);
  }
}
