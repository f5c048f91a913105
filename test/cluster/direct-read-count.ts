// How many reads gateways did of an image on their own machine by themselves, and how many they asked a node for, over all their lives: each
// life of a gateway's session begins to count anew. Called by nemesis-lab.ts.
export interface ReadCounters {
  readonly directReads?: number;
  readonly remoteReads?: number;
}

export class DirectReadCount {
  readonly #direct = new Map<string, number>();
  readonly #remote = new Map<string, number>();

  /** `session`: a name that no other session has. */
  note(session: string, { directReads = 0, remoteReads = 0 }: ReadCounters): void {
    this.#direct.set(session, Math.max(directReads, this.#direct.get(session) ?? 0));
    this.#remote.set(session, Math.max(remoteReads, this.#remote.get(session) ?? 0));
  }

  get direct(): number {
    return sum(this.#direct);
  }

  get remote(): number {
    return sum(this.#remote);
  }
}

function sum(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((all, one) => all + one, 0);
}
