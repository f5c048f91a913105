/*
 * A set of bucket keys in 16 bytes each: 52-bit hashes in one open table. Two keys of one hash count as one, which keeps an
 * object more, never less: so it serves only for "may be named". Filled by bucket-marker.ts, asked by collector.ts.
 */
import { hash } from "node:crypto";

const leastSlots = 1024;
/** Slots are filled to at most this part. */
const fillMax = 0.7;

export class KeySet {
  private slots = new Float64Array(leastSlots);
  size = 0;

  add(key: string): void {
    if (this.size + 1 > this.slots.length * fillMax) this.grow();
    if (insert(this.slots, hashOf(key))) this.size += 1;
  }

  has(key: string): boolean {
    const wanted = hashOf(key);
    const { slots } = this;
    for (let at = wanted % slots.length; slots[at] !== 0; at = (at + 1) % slots.length) {
      if (slots[at] === wanted) return true;
    }
    return false;
  }

  private grow(): void {
    const larger = new Float64Array(this.slots.length * 2);
    for (const value of this.slots) if (value !== 0) insert(larger, value);
    this.slots = larger;
  }
}

function insert(slots: Float64Array, value: number): boolean {
  let at = value % slots.length;
  while (slots[at] !== 0) {
    if (slots[at] === value) return false;
    at = (at + 1) % slots.length;
  }
  slots[at] = value;
  return true;
}

/** 52 bits of SHA-1, never 0, which marks an empty slot. No attacker chooses keys: they are made of hashes and numbers. */
function hashOf(key: string): number {
  const digest = hash("sha1", key, "buffer");
  return digest.readUIntBE(0, 6) * 16 + ((digest[6] ?? 0) >> 4) + 1;
}
