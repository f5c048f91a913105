// A volume under the block checker: random writes, zeroes, trims, reads and flushes all the time, a snapshot every few seconds, and each
// snapshot opened and judged against the ledger while the load goes on. Older snapshots are opened again by name and by LSN and must
// still be the same bytes. Caller: swarm-run.ts.

import { createHash } from "node:crypto";
import type { ApiSnapshot } from "#shared/api/past-api.ts";
import { BlockChecker, describe } from "../tools/block-checker.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import type { SwarmContext } from "./swarm-volume.ts";

export const checkedBytes = 16 * 2 ** 20;
const readBytes = 2 ** 20;
const requestBytesMax = 64 * 1024;
/** Two workers that rest in between: sixteen volumes are to share two cores with the server and the bucket. */
const depth = 2;
const thinkTimeMs = 15;
const snapshotEveryMs = 3000;
const keptSnapshots = 6;

interface Kept {
  readonly name: string;
  readonly lsn: number;
  readonly hash: string;
}

export class CheckedVolume {
  readonly name: string;
  private readonly checker: BlockChecker;
  private readonly random: SeededRandom;
  private readonly kept: Kept[] = [];
  private taken = 0;

  constructor(name: string, seed: number) {
    this.name = name;
    this.random = new SeededRandom(seed);
    this.checker = new BlockChecker({
      sizeBytes: checkedBytes,
      seed,
      survives: "acknowledged",
      requestBytesMax,
    });
  }

  /** Until the signal. */
  async run(context: SwarmContext): Promise<void> {
    const load = this.load(context);
    await context.pause(this.random.between(0, snapshotEveryMs));
    while (!context.signal.aborted) {
      await this.snapshot(context);
      await context.pause(snapshotEveryMs);
    }
    await load;
  }

  /** Nothing runs any more: all that was acknowledged is there, and every kept snapshot is what it was. */
  async judge(context: SwarmContext): Promise<void> {
    const client = await NbdClient.connect(context.server.nbd, this.name);
    this.tell(context, this.name, await this.checker.verify(client, "quiet"));
    await client.disconnect();
    for (const kept of this.kept) await this.again(context, kept, `${this.name}@${kept.name}`);
  }

  private async load(context: SwarmContext): Promise<void> {
    const client = await NbdClient.connect(context.server.nbd, this.name);
    const onAnswer = (ms: number): void => context.took("request", ms, this.name);
    const result = await this.checker.run([client], { depth, thinkTimeMs, signal: context.signal, onAnswer });
    context.counts.requests += result.acknowledged;
    context.counts.bytesWritten += result.bytesWritten;
    this.tell(context, this.name, result.findings);
    for (const error of result.requestErrors) context.fail(this.name, error);
    if (result.connectionLost !== undefined) context.fail(this.name, result.connectionLost);
    else await client.disconnect();
  }

  private async snapshot(context: SwarmContext): Promise<void> {
    const { server, counts } = context;
    this.taken += 1;
    const name = `s${this.taken}`;
    const asked = this.checker.ledger.pointAsked();
    const { lsn } = await context.timed<ApiSnapshot>("snapshot", this.name, async () =>
      server.snapshot(this.name, name),
    );
    const check = this.checker.ledger.pointCheck(asked);
    counts.snapshots += 1;
    const exported = `${this.name}@${name}`;
    const hash = await context.reading(async () =>
      this.read(context, exported, (offset, bytes) => check.add(offset, bytes)),
    );
    this.tell(context, exported, check.finish());
    counts.pointsVerified += 1;
    this.kept.push({ name, lsn, hash });
    const older = this.kept[this.random.between(0, this.kept.length)];
    if (older !== undefined && older.name !== name) {
      const byLsn = this.random.chance(0.5);
      await this.again(context, older, `${this.name}@${byLsn ? `lsn:${older.lsn}` : older.name}`);
    }
    if (this.kept.length > keptSnapshots) {
      const gone = this.kept.splice(this.random.between(0, this.kept.length - 1), 1)[0] as Kept;
      await server.ok("DELETE", `/volumes/${this.name}/snapshots/${gone.name}`);
    }
  }

  private async again(context: SwarmContext, kept: Kept, exported: string): Promise<void> {
    const hash = await context.reading(async () => this.read(context, exported, () => undefined));
    if (hash !== kept.hash) context.fail(exported, "read again, it holds other bytes than at first");
    context.counts.pointsReread += 1;
  }

  /** The whole of it; the first read counts as opening. */
  private async read(
    context: SwarmContext,
    exported: string,
    visit: (offset: number, bytes: Buffer) => void,
  ): Promise<string> {
    const hash = createHash("sha256");
    const opened = await context.timed("point open", exported, async () => {
      const client = await NbdClient.connect(context.server.nbd, exported);
      return { client, first: await client.read(0, readBytes) };
    });
    for (let offset = 0, bytes = opened.first; ; bytes = await opened.client.read(offset, readBytes)) {
      hash.update(bytes);
      visit(offset, bytes);
      offset += readBytes;
      if (offset >= checkedBytes) break;
    }
    await opened.client.disconnect();
    return hash.digest("hex");
  }

  private tell(context: SwarmContext, what: string, findings: Parameters<typeof describe>[0][]): void {
    for (const finding of findings) context.fail(what, describe(finding));
  }
}
