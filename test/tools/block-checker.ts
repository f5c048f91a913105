// The self-describing block checker over NBD: a random load of writes, FUA writes, zeroes, trims, reads and flushes on any
// number of connections, with many overlapping in flight, and the check of the whole volume after a crash or a pause.
// Callers: crash rounds, soak, power cut in the VM. Next on data's way: nbd-client.ts; block-ledger.ts judges.

import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { BlockLedger, type LedgerPoint } from "./block-ledger.ts";
import type { Finding, Operation, Survives } from "./block-operation.ts";
import { type NbdClient, NbdRequestError } from "./nbd-client.ts";
import { commandFlag } from "./nbd-wire.ts";
import { SeededRandom } from "./seeded-random.ts";

type Action = "write" | "fua" | "zero" | "trim" | "read" | "flush";

export interface CheckerOptions {
  readonly sizeBytes: number;
  readonly seed: number;
  readonly survives: Survives;
  readonly unitBytes?: number;
  /** Smallest length and alignment that the server takes; 1 sends offsets at any byte. */
  readonly alignBytes?: number;
  readonly requestBytesMax?: number;
  readonly weights?: Readonly<Record<Action, number>>;
}

export interface ByteRange {
  readonly from: number;
  readonly to: number;
}

export interface RunLimits {
  /** Requests in flight per connection. */
  readonly depth: number;
  readonly operationsMax?: number;
  readonly signal?: AbortSignal;
  /** Bytes [from, to) that writes, zeroes and trims keep to; reads go anywhere. */
  readonly writes?: ByteRange;
  /** Rest of each worker after a request, for a load that leaves the machine room. */
  readonly thinkTimeMs?: number;
  /** Told how long each acknowledged request took. */
  readonly onAnswer?: (ms: number) => void;
}

export interface RunResult {
  operations: number;
  acknowledged: number;
  bytesWritten: number;
  /** Wrong data seen by reads that ran beside the writes. */
  findings: Finding[];
  /** Requests that the server answered with an error. */
  requestErrors: string[];
  connectionLost: string | undefined;
}

const defaultWeights: Readonly<Record<Action, number>> = {
  write: 62,
  fua: 6,
  zero: 5,
  trim: 5,
  read: 18,
  flush: 4,
};
const listMax = 50;
const verifyReadBytes = 1024 * 1024;

export class BlockChecker {
  readonly ledger: BlockLedger;
  private readonly random: SeededRandom;
  private readonly options: Required<Omit<CheckerOptions, "survives">>;

  constructor(options: CheckerOptions) {
    this.options = {
      unitBytes: 4096,
      alignBytes: 1,
      requestBytesMax: 1024 * 1024,
      weights: defaultWeights,
      ...options,
    };
    this.random = new SeededRandom(options.seed);
    this.ledger = new BlockLedger({
      sizeBytes: options.sizeBytes,
      unitBytes: this.options.unitBytes,
      tag: randomBytes(8).readBigUInt64LE(0),
      survives: options.survives,
    });
  }

  /** Runs until the limit, the signal, or the loss of every connection; then nothing is in flight any more. */
  async run(clients: readonly NbdClient[], limits: RunLimits): Promise<RunResult> {
    const result: RunResult = {
      operations: 0,
      acknowledged: 0,
      bytesWritten: 0,
      findings: [],
      requestErrors: [],
      connectionLost: undefined,
    };
    const workers: Promise<void>[] = [];
    for (const client of clients) {
      for (let index = 0; index < limits.depth; index += 1) {
        workers.push(this.work(client, this.random.fork(), limits, result));
      }
    }
    await Promise.all(workers);
    return result;
  }

  /**
   * Reads the whole volume and judges it. After a restart the ledger goes on from what was found; `quiet` is for a
   * pause without a restart, when everything that was acknowledged must be there.
   */
  async verify(client: NbdClient, after: "restart" | "quiet"): Promise<Finding[]> {
    const check = after === "restart" ? this.ledger.restartCheck() : undefined;
    const findings: Finding[] = [];
    await this.each(async (offset, length) => {
      const read = this.ledger.readIssued(offset, length);
      const data = await client.read(offset, length);
      if (check) check.add(offset, data);
      else findings.push(...this.ledger.readDone(read, data));
    });
    return check ? check.finish() : findings;
  }

  /** Reads a whole disk that is to show a point of this one. `isDisk`: it is this one, which went back to it. */
  async verifyPoint(client: NbdClient, point: LedgerPoint, isDisk: boolean): Promise<Finding[]> {
    const check = this.ledger.takenCheck(point, isDisk);
    await this.each(async (offset, length) => check.add(offset, await client.read(offset, length)));
    return check.finish();
  }

  /** The same judgement on the image file itself, after a clean stop: the file is the disk. */
  verifyFile(path: string): Finding[] {
    const check = this.ledger.restartCheck();
    const file = openSync(path, "r");
    for (let offset = 0; offset < this.options.sizeBytes; offset += verifyReadBytes) {
      const step = Buffer.alloc(Math.min(verifyReadBytes, this.options.sizeBytes - offset));
      readSync(file, step, 0, step.length, offset);
      check.add(offset, step);
    }
    closeSync(file);
    return check.finish();
  }

  private async each(step: (offset: number, length: number) => Promise<void>): Promise<void> {
    const { sizeBytes } = this.options;
    for (let offset = 0; offset < sizeBytes; offset += verifyReadBytes) {
      await step(offset, Math.min(verifyReadBytes, sizeBytes - offset));
    }
  }

  private async work(
    client: NbdClient,
    random: SeededRandom,
    limits: RunLimits,
    result: RunResult,
  ): Promise<void> {
    const operationsMax = limits.operationsMax ?? Number.POSITIVE_INFINITY;
    while (limits.signal?.aborted !== true && result.operations < operationsMax) {
      result.operations += 1;
      const action = random.weighted(this.options.weights);
      const sentAtMs = performance.now();
      try {
        await this.act(client, random, action, { result, writes: limits.writes });
        result.acknowledged += 1;
        limits.onAnswer?.(performance.now() - sentAtMs);
        if (limits.thinkTimeMs !== undefined) await pauseMs(limits.thinkTimeMs);
      } catch (cause) {
        if (!(cause instanceof NbdRequestError)) {
          result.connectionLost = cause instanceof Error ? cause.message : String(cause);
          return;
        }
        if (result.requestErrors.length < listMax) result.requestErrors.push(cause.message);
      }
    }
  }

  private async act(
    client: NbdClient,
    random: SeededRandom,
    action: Action,
    { result, writes }: { readonly result: RunResult; readonly writes: ByteRange | undefined },
  ): Promise<void> {
    const { ledger } = this;
    if (action === "flush") {
      const issuedAt = ledger.flushIssued();
      await client.flush();
      ledger.flushed(issuedAt);
      return;
    }
    const { offset, length } = this.range(random, action === "read" ? undefined : writes);
    if (action === "read") {
      const read = ledger.readIssued(offset, length);
      const data = await client.read(offset, length).catch((cause: unknown) => {
        ledger.readFailed(read);
        throw cause;
      });
      const findings = ledger.readDone(read, data);
      result.findings.push(...findings.slice(0, Math.max(0, listMax - result.findings.length)));
      return;
    }
    const kind = action === "fua" ? "write" : action;
    const fua = action === "fua" || (action !== "write" && random.chance(0.1));
    const operation: Operation = ledger.issue(kind, offset, length, fua);
    const flags = fua ? commandFlag.fua : 0;
    if (kind === "write") {
      result.bytesWritten += length;
      await client.write(offset, ledger.payload(operation), flags);
    } else if (kind === "trim") await client.trim(offset, length, flags);
    else await client.writeZeroes(offset, length, flags | (random.chance(0.3) ? commandFlag.noHole : 0));
    ledger.acknowledge(operation);
  }

  /** Half block-aligned, half anywhere; a third near the start, so that requests in flight overlap often. */
  private range(random: SeededRandom, within?: ByteRange): { offset: number; length: number } {
    const { unitBytes, alignBytes, requestBytesMax } = this.options;
    const { from, to } = within ?? { from: 0, to: this.options.sizeBytes };
    const sizeBytes = to - from;
    const aligned = random.chance(0.5);
    const grain = aligned ? unitBytes : alignBytes;
    const longest = Math.min(requestBytesMax, sizeBytes);
    const shortest = Math.min(Math.max(512, grain), longest);
    const length = Math.max(grain, roundDown(random.logUniform(shortest, longest + 1), grain));
    const room = sizeBytes - length;
    const reach = random.chance(0.33) ? Math.min(room, 2 * requestBytesMax) : room;
    return { offset: from + roundDown(random.between(0, reach + 1), grain), length };
  }
}

export function describe(finding: Finding): string {
  return `${finding.kind} at ${finding.offset}+${finding.length}: ${finding.detail}`;
}

function pauseMs(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function roundDown(value: number, grain: number): number {
  return value - (value % grain);
}
