/*
 * The overlay of one volume: acknowledged entries that the image does not hold yet, newest on top. The volume session adds a
 * batch when it may be acknowledged and drops it when the image applier has applied it; reads ask it first.
 * Write path: volume-writer.ts → here → services/storage/engine/image-applier.ts. Read path: volume-reader.ts → here.
 *
 * It holds no memory of its own: a write's bytes stay in its draft's slab until the draft is dropped.
 */
import type { BatchDraft } from "#shared/domain/batch-draft.ts";
import { entryKind } from "#shared/domain/entry.ts";
import { ExtentMap } from "#shared/domain/extent-map.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Slab } from "#shared/ports/slab.ts";

export type SlabDraft = BatchDraft<Slab>;

/** What an overlay range maps to: an entry's draft and what it makes of the range. */
export interface OverlayValue {
  readonly draft: SlabDraft;
  /** True: bytes in the draft's slab. False: reads as zero. */
  readonly holdsBytes: boolean;
  /** False where the range will take no space (trim, zero without NO_HOLE). */
  readonly allocated: boolean;
}

export class Overlay {
  private readonly map = new ExtentMap<OverlayValue>();
  private readonly valuesByDraft = new Map<SlabDraft, OverlayValue[]>();

  /** Called for each range of a read: slab position of its bytes, or -1 where it reads as zero. */
  get empty(): boolean {
    return this.map.size === 0;
  }

  get rangeCount(): number {
    return this.map.size;
  }

  /** Puts all entries of a draft on top, in order. */
  add(draft: SlabDraft): void {
    const values: OverlayValue[] = [];
    let bytesValue: OverlayValue | null = null;
    for (let index = 0; index < draft.entryCount; index++) {
      const kind = draft.kinds[index] as number;
      if (kind > entryKind.trim) continue;
      const offset = draft.offsets[index] as number;
      const length = draft.lengths[index] as number;
      if (kind === entryKind.write) {
        if (bytesValue === null) {
          bytesValue = { draft, holdsBytes: true, allocated: true };
          values.push(bytesValue);
        }
        const position = limits.batchHeaderBytesMax + (draft.payloadStarts[index] as number);
        this.map.insert(offset, offset + length, bytesValue, position);
      } else {
        const value = { draft, holdsBytes: false, allocated: kind === entryKind.zeroAllocated };
        values.push(value);
        this.map.insert(offset, offset + length, value, 0);
      }
    }
    this.valuesByDraft.set(draft, values);
  }

  /** Removes what still maps to the draft: the image holds it now. */
  drop(draft: SlabDraft): void {
    const values = this.valuesByDraft.get(draft);
    if (values === undefined) return;
    this.valuesByDraft.delete(draft);
    const bytesValue = values.find((value) => value.holdsBytes);
    let zeroIndex = 0;
    const zeroValues = values.filter((value) => !value.holdsBytes);
    for (let index = 0; index < draft.entryCount; index++) {
      const kind = draft.kinds[index] as number;
      if (kind > entryKind.trim) continue;
      const offset = draft.offsets[index] as number;
      const end = offset + (draft.lengths[index] as number);
      if (kind === entryKind.write) {
        if (bytesValue !== undefined) this.map.remove(offset, end, bytesValue);
      } else {
        const value = zeroValues[zeroIndex++];
        if (value !== undefined) this.map.remove(offset, end, value);
      }
    }
  }

  /**
   * Visits the covered ranges within [start, end) in order. `position` is the slab position of the range's first byte
   * (meaningless where the value holds no bytes).
   */
  visit(
    start: number,
    end: number,
    visitor: (start: number, end: number, value: OverlayValue, position: number) => void,
  ): void {
    this.map.visit(start, end, visitor);
  }

  /** All drafts that were added and not dropped. */
  drafts(): Iterable<SlabDraft> {
    return this.valuesByDraft.keys();
  }

  clear(): void {
    this.map.clear();
    this.valuesByDraft.clear();
  }
}
