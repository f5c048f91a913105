/*
 * Memory of what was fetched, lent to all who read it: given back to the system at once when the last of them is done, not when the
 * collector comes by. frame-reader.ts makes one for each fetch and one for each frame that the cache keeps.
 */
import { invariant } from "#shared/domain/invariant.ts";
import { releaseMemory } from "../../memory/release-memory.ts";

export class LentMemory {
  /** Whoever makes it is the first. */
  private users = 1;
  private readonly owned: Buffer[] = [];
  private readonly held: LentMemory[] = [];

  /** Bytes that nobody reads after the last user. */
  own(bytes: Buffer): void {
    this.owned.push(bytes);
  }

  /** Another's memory, taken for as long as this one has users. */
  hold(memory: LentMemory): void {
    memory.take();
    this.held.push(memory);
  }

  take(): void {
    invariant(this.users > 0, "memory is lent before it is given back");
    this.users += 1;
  }

  giveBack(): void {
    invariant(this.users > 0, "memory is given back once by each");
    this.users -= 1;
    if (this.users > 0) return;
    for (const bytes of this.owned.splice(0)) releaseMemory(bytes);
    for (const memory of this.held.splice(0)) memory.giveBack();
  }
}
