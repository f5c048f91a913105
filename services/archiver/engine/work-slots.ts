/*
 * Bounds work that holds memory, for all volumes of a process together: who wants a slot waits in line. Segments take one from
 * gathering to the end of the upload, extents of bases from reading to the same.
 */
/** A busy volume fills one while another is sealed, and others are uploaded. */
const spareMax = 4;

export class WorkSlots {
  private free: number;
  private readonly waiting: (() => void)[] = [];
  /** Memory that was handed back, for whoever gathers next. */
  private readonly spare: SharedArrayBuffer[] = [];

  constructor(count: number) {
    this.free = count;
  }

  /** Resolves with what gives the slot back; it may be called twice. */
  async take(): Promise<() => void> {
    if (this.free > 0) this.free -= 1;
    else {
      await new Promise<void>((resolve) => {
        this.waiting.push(resolve);
      });
    }
    return this.held();
  }

  /** The same where one is free now; null where none is. */
  takeNow(): (() => void) | null {
    if (this.free === 0) return null;
    this.free -= 1;
    return this.held();
  }

  takeMemory(): SharedArrayBuffer | null {
    return this.spare.pop() ?? null;
  }

  giveMemory(memory: SharedArrayBuffer): void {
    if (this.spare.length < spareMax) this.spare.push(memory);
  }

  private held(): () => void {
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const next = this.waiting.shift();
      if (next === undefined) this.free += 1;
      else next();
    };
  }
}
