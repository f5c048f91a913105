/*
 * What reads of one volume's replicas have shown. A node applies what the log holds, also an entry whose answer never reached this gateway: a
 * client sees its bytes, and must not see older ones from a node that is behind. So whoever is asked next must at least show as much
 * (docs/specs/cluster.md#a-gateway). The node that showed it only goes forward, and is held up by nothing. Owned by remote-replica.ts.
 */
export class ShownReads {
  /** Has applied, or is applying, all that was shown; null: it failed since. */
  #node: string | null = null;
  #lsn = 0;

  /** What a read asked of `node` must at least show, where `acknowledged` is what any must. */
  leastLsn(node: string, acknowledged: number): number {
    return node === this.#node ? acknowledged : Math.max(acknowledged, this.#lsn);
  }

  /** An answer of `node` whose bytes may show entries up to `lsn`. */
  answered(node: string, lsn: number): void {
    if (lsn >= this.#lsn) this.#node = node;
    this.#lsn = Math.max(this.#lsn, lsn);
  }

  /** After a kill it may be behind what it showed, until it has applied the log again. */
  failed(node: string): void {
    if (node === this.#node) this.#node = null;
  }
}
