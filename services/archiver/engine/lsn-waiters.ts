/*
 * Those who wait until a volume is archived up to an entry. Owned by volume-archiver.ts.
 */
import { VarveError } from "#shared/domain/errors.ts";

interface Waiter {
  readonly lsn: number;
  readonly resolve: () => void;
  readonly reject: (error: VarveError) => void;
}

export class LsnWaiters {
  private waiting: Waiter[] = [];

  wait(lsn: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ lsn, resolve, reject });
    });
  }

  get some(): boolean {
    return this.waiting.length > 0;
  }

  reached(lsn: number): void {
    const ready = this.waiting.filter((waiter) => waiter.lsn <= lsn);
    this.waiting = this.waiting.filter((waiter) => waiter.lsn > lsn);
    for (const { resolve } of ready) resolve();
  }

  fail(error: VarveError): void {
    for (const { reject } of this.waiting.splice(0)) reject(error);
  }
}

export function archiveClosed(name: string): VarveError {
  return new VarveError("ArchiveClosedError", "Retry", `the archive of volume ${name} is closed`);
}
