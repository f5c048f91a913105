/*
 * Makes names in a directory durable, many at once: who asks while a sync of the same directory runs joins the next one,
 * because the running one may have begun before their rename. Parallel puts and a collector's deletes then share a few
 * syncs instead of paying one each. Called by directory.ts.
 */
import { open } from "node:fs/promises";

interface Turn {
  readonly running: Promise<void>;
  next: Promise<void> | null;
}

export class DirectorySync {
  private readonly turns = new Map<string, Turn>();

  /** Resolves when every change of a name in `directory` that was made before this call is durable. */
  run(directory: string): Promise<void> {
    const turn = this.turns.get(directory);
    if (turn === undefined) return this.begin(directory);
    turn.next ??= turn.running.then(
      () => this.begin(directory),
      () => this.begin(directory),
    );
    return turn.next;
  }

  private begin(directory: string): Promise<void> {
    const running = syncDirectory(directory);
    const turn: Turn = { running, next: null };
    this.turns.set(directory, turn);
    const end = (): void => {
      if (turn.next === null && this.turns.get(directory) === turn) this.turns.delete(directory);
    };
    running.then(end, end);
    return running;
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
