/*
 * From archived to held: what was published is believed only when a settle time has passed and the bucket still has each object, at
 * its full length and with its own end. Then log may go. One timer while something waits, none otherwise. Told of each manifest by
 * volume-archiver.ts; what the bucket lost is stored again from the hot log, which is why the log waited.
 *
 *   published ─settle time─► checked ─all there─► held          ─one missing or other─► stored again ─settle time─► checked
 */
import { toVarveError, type VarveError } from "#shared/domain/errors.ts";
import { limits } from "#shared/domain/limits.ts";
import type { Timer } from "#shared/ports/clock.ts";
import type { ArchiveParts } from "./archive-parts.ts";
import type { BucketPatience } from "./bucket-patience.ts";

/** One object that must be there. */
export interface HeldObject {
  readonly key: string;
  /** Asks the bucket; false where the object is not there or not what was stored. */
  check(): Promise<boolean>;
  /** Stores it again, or makes it unneeded. Objects to check instead, after another settle time. */
  restore(): Promise<readonly HeldObject[]>;
}

/** What one manifest added: the log up to `lsn` is held when it and all before it are. */
interface Waiting {
  readonly lsn: number;
  /** Null where there is none, or the bucket lost some of it: then the manifest is without it, and it is never held. */
  baseKey: string | null;
  objects: readonly HeldObject[];
  dueMs: number;
  /** Every object was seen. */
  isThere: boolean;
}

export interface LedgerOptions {
  readonly parts: ArchiveParts;
  readonly patience: BucketPatience;
  readonly settleMs: number;
  readonly onHeld: (lsn: number) => void;
  readonly onFailed: (error: VarveError) => void;
}

export class HeldLedger {
  private readonly options: LedgerOptions;
  private readonly waiting: Waiting[] = [];
  private timer: Timer | null = null;
  private running: Promise<void> | null = null;
  private stopped = false;
  heldLsn: number;
  readonly heldBaseKeys = new Set<string>();
  readonly counters = { objectsChecked: 0, objectsRestored: 0 };

  constructor(options: LedgerOptions, heldLsn: number) {
    this.options = options;
    this.heldLsn = heldLsn;
  }

  /** 0: all is held; else the time after which the last of it is looked at. */
  get leftMs(): number {
    const nowMs = this.options.parts.clock.monotonicMs();
    return this.waiting.reduce(
      (most, { dueMs, isThere }) => (isThere ? most : Math.max(most, dueMs - nowMs)),
      Math.min(1, this.waiting.length),
    );
  }

  /** Published now: `objects` and with them the log up to `lsn`. */
  add(lsn: number, objects: readonly HeldObject[], baseKey: string | null = null): void {
    const dueMs = this.options.parts.clock.monotonicMs() + this.options.settleMs;
    this.waiting.push({ lsn, objects, dueMs, baseKey, isThere: false });
    this.arm();
  }

  stop(): void {
    this.stopped = true;
    this.timer?.cancel();
    this.timer = null;
  }

  async settled(): Promise<void> {
    await this.running;
  }

  private arm(): void {
    if (this.stopped || this.running !== null) return;
    this.timer?.cancel();
    this.timer = null;
    const dueMs = this.waiting.reduce(
      (least, item) => (item.isThere ? least : Math.min(least, item.dueMs)),
      Number.POSITIVE_INFINITY,
    );
    if (dueMs === Number.POSITIVE_INFINITY) return;
    const leftMs = dueMs - this.options.parts.clock.monotonicMs();
    if (leftMs > 0) {
      this.timer = this.options.parts.clock.after(leftMs, () => {
        this.timer = null;
        this.arm();
      });
      return;
    }
    this.running = this.run()
      .catch((cause: unknown) => {
        if (!this.stopped) this.options.onFailed(toVarveError(cause, "checking what the bucket holds"));
        this.stopped = true;
      })
      .finally(() => {
        this.running = null;
        this.arm();
      });
  }

  /** Looks at all that is due. What comes later waits for what comes first only with being held. */
  private async run(): Promise<void> {
    const { clock } = this.options.parts;
    for (;;) {
      const item = this.waiting.find((one) => !one.isThere && one.dueMs <= clock.monotonicMs());
      if (item === undefined || this.stopped) return;
      const missing = await this.missing(item.objects);
      if (this.stopped) return;
      const restored: HeldObject[] = [];
      if (missing.length > 0) item.baseKey = null;
      for (const object of missing) restored.push(...(await this.restore(object)));
      this.counters.objectsRestored += missing.length;
      item.objects = restored;
      item.isThere = restored.length === 0;
      item.dueMs = clock.monotonicMs() + this.options.settleMs;
      this.advance();
    }
  }

  private advance(): void {
    let lsn = this.heldLsn;
    while (this.waiting[0]?.isThere) {
      const { lsn: itsLsn, baseKey } = this.waiting[0];
      this.waiting.shift();
      if (baseKey !== null) this.heldBaseKeys.add(baseKey);
      lsn = Math.max(lsn, itsLsn);
    }
    if (lsn === this.heldLsn) return;
    this.heldLsn = lsn;
    this.options.parts.failpoint("release");
    this.options.onHeld(lsn);
  }

  private async restore(object: HeldObject): Promise<readonly HeldObject[]> {
    return await this.options.patience.run(
      "store a lost object again",
      () => object.restore(),
      () => this.stopped,
    );
  }

  private async missing(objects: readonly HeldObject[]): Promise<readonly HeldObject[]> {
    const missing: HeldObject[] = [];
    const left = [...objects];
    const lane = async (): Promise<void> => {
      for (let next = left.shift(); next !== undefined && !this.stopped; next = left.shift()) {
        const object = next;
        const isThere = await this.options.patience.run(
          "check an object",
          () => object.check(),
          () => this.stopped,
        );
        this.counters.objectsChecked += 1;
        if (!isThere) missing.push(object);
      }
    };
    await Promise.all(Array.from({ length: limits.archiveRequestsAtOnceMax }, lane));
    return missing;
  }
}

/** The bucket's object ends with these bytes, at exactly that length. One small GET. */
export async function endsAs(
  store: ArchiveParts["store"],
  object: { readonly key: string; readonly bytes: number; readonly digest: Uint8Array },
): Promise<boolean> {
  const { key, bytes, digest } = object;
  // One byte more than there should be: a longer object shows.
  const end = await store.get(key, { start: bytes - digest.length, length: digest.length + 1 });
  return end !== null && Buffer.compare(end, digest) === 0;
}
