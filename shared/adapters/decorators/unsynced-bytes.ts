/*
 * The part of a file's content that was written and not synced, in process memory: patches over what the file below holds.
 * Owned by unsynced-file.ts, one per file; reads lay it over the bytes from below, a sync takes the steps out in order.
 * Kept by 4 KiB page so that a read looks at few patches; ranges too large for pages (a trim of the disk) stand in a list.
 */
export type UnsyncedStep =
  | { readonly kind: "write"; readonly data: Uint8Array; readonly offset: number }
  | { readonly kind: "punch" | "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "truncate"; readonly sizeBytes: number };

/** Bytes, or zeroes where there are none, for [from, to). */
interface Patch {
  readonly order: number;
  readonly from: number;
  readonly to: number;
  readonly data: Uint8Array | null;
}

const pageBytes = 4096;
const chunkBytes = 1024 * 1024;

export class UnsyncedBytes {
  sizeBytes: number;
  #steps: { readonly order: number; readonly step: UnsyncedStep }[] = [];
  #pages = new Map<number, Patch[]>();
  #wide: Patch[] = [];
  /** 1 MiB chunks that hold patched pages: data, as far as holes are asked for. */
  #chunks = new Set<number>();
  #order = 0;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  get empty(): boolean {
    return this.#steps.length === 0;
  }

  add(step: UnsyncedStep): void {
    this.#order += 1;
    this.#steps.push({ order: this.#order, step });
    this.#patch(this.#order, step);
  }

  #patch(order: number, step: UnsyncedStep): void {
    if (step.kind === "truncate") {
      if (step.sizeBytes < this.sizeBytes) this.#patchWide(order, step.sizeBytes, Number.MAX_SAFE_INTEGER);
      this.sizeBytes = step.sizeBytes;
    } else if (step.kind === "write") {
      this.#patchPages(order, step.offset, step.offset + step.data.length, step.data);
      this.sizeBytes = Math.max(this.sizeBytes, step.offset + step.data.length);
    } else if (step.length <= chunkBytes) {
      this.#patchPages(order, step.offset, step.offset + step.length, null);
    } else this.#patchWide(order, step.offset, step.offset + step.length);
  }

  #patchPages(order: number, from: number, to: number, data: Uint8Array | null): void {
    for (let at = from; at < to; ) {
      const page = Math.floor(at / pageBytes);
      const end = Math.min(to, (page + 1) * pageBytes);
      const patch: Patch = { order, from: at, to: end, data: data?.subarray(at - from, end - from) ?? null };
      const whole = end - at === pageBytes;
      const known = whole ? undefined : this.#pages.get(page);
      if (known === undefined) this.#pages.set(page, [patch]);
      else known.push(patch);
      this.#chunks.add(Math.floor(at / chunkBytes));
      at = end;
    }
  }

  #patchWide(order: number, from: number, to: number): void {
    for (const page of this.#pages.keys()) {
      if (page * pageBytes >= from && (page + 1) * pageBytes <= to) this.#pages.delete(page);
    }
    this.#wide.push({ order, from, to, data: null });
  }

  /** Lays the patches over `target`, which holds the bytes from below at [offset, offset + target.length). */
  cover(target: Uint8Array, offset: number): void {
    if (this.empty) return;
    const end = offset + target.length;
    const wide = this.#wide.filter((patch) => patch.from < end && patch.to > offset);
    const patches = [...wide];
    for (let page = Math.floor(offset / pageBytes); page * pageBytes < end; page += 1) {
      const here = this.#pages.get(page);
      if (here !== undefined) patches.push(...here);
    }
    if (wide.length > 0) patches.sort((a, b) => a.order - b.order);
    for (const patch of patches) {
      const from = Math.max(patch.from, offset);
      const to = Math.min(patch.to, end);
      if (from >= to) continue;
      if (patch.data === null) target.fill(0, from - offset, to - offset);
      else target.set(patch.data.subarray(from - patch.from, to - patch.from), from - offset);
    }
  }

  /** The end of the patched chunk around `offset`; `offset` itself where it is not in one. */
  patchedUntil(offset: number): number {
    const chunk = Math.floor(offset / chunkBytes);
    return this.#chunks.has(chunk) ? (chunk + 1) * chunkBytes : offset;
  }

  /** Start of the first patched chunk behind `offset`, or -1. */
  nextPatched(offset: number): number {
    let best = -1;
    for (const chunk of this.#chunks) {
      const start = chunk * chunkBytes;
      if (start > offset && (best === -1 || start < best)) best = start;
    }
    return best;
  }

  /** All steps there are now, oldest first, and a function that forgets them once they went down. */
  take(): { readonly steps: readonly UnsyncedStep[]; readonly forget: () => void } {
    const until = this.#order;
    return {
      steps: this.#steps.map(({ step }) => step),
      forget: () => {
        const kept = this.#steps.filter(({ order }) => order > until);
        this.#steps = [];
        this.#pages = new Map();
        this.#wide = [];
        this.#chunks = new Set();
        // What came meanwhile is laid down again; the size is the newest already.
        const { sizeBytes } = this;
        for (const { order, step } of kept) {
          this.#steps.push({ order, step });
          this.#patch(order, step);
        }
        this.sizeBytes = sizeBytes;
      },
    };
  }
}
