/*
 * Room in the log, as volume-writer.ts promises it away: to the open draft and to reserved slots, each by its whole slab, until
 * the batch is appended (then the log itself counts it) or given up. So an append never finds less room than its requests
 * were told of. Knows, too, why the last request found no memory, and which slots are filled only to be refused.
 */
import { VarveError } from "#shared/domain/errors.ts";
import type { Slab } from "#shared/ports/slab.ts";
import type { LogWriter } from "#shared/ports/write-log.ts";

export class LogRoom {
  private readonly log: LogWriter;
  private readonly onReturned: () => void;
  private promisedBytes = 0;
  private waits = false;
  /** Slots without room: their payload is taken in so that the request can be answered and the session goes on. */
  private readonly roomless = new Set<Slab>();

  /** `onReturned`: promised room came back; who waits for room may ask again. */
  constructor(log: LogWriter, onReturned: () => void) {
    this.log = log;
    this.onReturned = onReturned;
  }

  /** The log can't take `bytes` more with certainty now, beside what was promised. */
  lacks(bytes: number): boolean {
    return this.log.state().roomBytes - this.promisedBytes < bytes;
  }

  /** Whether a request that can't be taken now waits for the log (LogListener.room), not for memory. */
  wait(forLog: boolean): boolean {
    this.waits = forLog;
    return forLog;
  }

  /** What wait() said last. Asking clears it. */
  takeWaits(): boolean {
    const { waits } = this;
    this.waits = false;
    return waits;
  }

  promise(slab: Slab): void {
    this.promisedBytes += slab.bytes.byteLength;
  }

  /** The slab's batch is about to be appended, or is given up. A batch takes room by its record, which is at most its slab. */
  giveBack(slab: Slab): void {
    this.promisedBytes -= slab.bytes.byteLength;
    this.onReturned();
  }

  /** The slot in this slab will be filled, and then refused, unless room comes meanwhile. */
  leaveOut(slab: Slab): void {
    this.roomless.add(slab);
  }

  /** Null: the filled slot in this slab has room. */
  refusalOf(slab: Slab): VarveError | null {
    if (!this.roomless.has(slab)) return null;
    if (this.lacks(slab.bytes.byteLength)) return this.log.state().refusal ?? logBusy();
    this.roomless.delete(slab);
    this.promise(slab);
    return null;
  }

  /** A slot was not used. */
  cancel(slab: Slab): void {
    if (!this.roomless.delete(slab)) this.giveBack(slab);
  }
}

function logBusy(): VarveError {
  return new VarveError("LogRoomError", "Full", "the log has no room for this write yet", {
    hint: "Free space on the data directory's disk, or raise the log limit; then write again.",
  });
}
