/*
 * Bounds work that holds memory, for all volumes of a process together: who wants a slot waits in line. Segments take one from
 * gathering to the end of the upload, extents of bases from reading to the same.
 */
export class WorkSlots {
  private free: number;
  private readonly waiting: (() => void)[] = [];
  /** One memory that was handed back, for whoever gathers next. */
  private spare: ArrayBuffer | null = null;

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
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const next = this.waiting.shift();
      if (next === undefined) this.free += 1;
      else next();
    };
  }

  takeMemory(): ArrayBuffer | null {
    const { spare } = this;
    this.spare = null;
    return spare;
  }

  giveMemory(memory: ArrayBuffer): void {
    this.spare ??= memory;
  }
}
