/*
 * The memory of one simulated world's processes: each dead process's slabs serve the next, with the remains of other lives in
 * them as a real process may get, and in the end other worlds. Owned by the worlds (world.ts, past/past-world.ts).
 */
import type { Slab } from "#shared/ports/slab.ts";

/** Slabs that processes of earlier seeds left, by size. */
const spareSlabs = new Map<number, Slab[]>();

/** The memory of one world's processes: each dead process's slabs serve the next, and in the end other worlds. */
export class SlabStock {
  private readonly all = new Map<number, Slab[]>();
  private taken = new Map<number, number>();

  takeAllBack(): void {
    this.taken = new Map();
  }

  take(bytes: number): Slab {
    const ofSize = listOf(this.all, bytes);
    const place = this.taken.get(bytes) ?? 0;
    this.taken.set(bytes, place + 1);
    const known = ofSize[place];
    if (known !== undefined) return known;
    const spare = listOf(spareSlabs, bytes).pop();
    // One seed gives one run, whatever ran before it.
    spare?.bytes.fill(0);
    const slab: Slab = spare ?? { bytes: Buffer.alloc(bytes), address: 0 };
    ofSize.push(slab);
    return slab;
  }

  /** The world is over. */
  giveUp(): void {
    for (const [bytes, slabs] of this.all) listOf(spareSlabs, bytes).push(...slabs);
    this.all.clear();
  }
}

function listOf(map: Map<number, Slab[]>, bytes: number): Slab[] {
  const known = map.get(bytes);
  if (known !== undefined) return known;
  const list: Slab[] = [];
  map.set(bytes, list);
  return list;
}
