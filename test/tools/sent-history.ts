// What a client sent to one volume, entry by entry from LSN 1 on, and the disk that it makes after each: the oracle of tests that
// open points of the past on the real system (test/e2e/any-point.test.ts, test/crash/failpoints-past.test.ts). One client, one request
// at a time: each request is one entry.
import { expect } from "vitest";
import type { NbdClient } from "./nbd-client.ts";
import type { PastServer } from "./past-server.ts";
import type { SeededRandom } from "./seeded-random.ts";

export type SentEntry =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: "zero"; readonly offset: number; readonly length: number }
  | { readonly kind: "resize"; readonly sizeBytes: number }
  | { readonly kind: "rollback"; readonly toLsn: number }
  /** An epoch or a mark. */
  | { readonly kind: "nothing" };

export class SentHistory {
  readonly name: string;
  readonly entries: SentEntry[] = [{ kind: "nothing" }];
  /** Sent, and not answered: it is the next entry, or never was one. */
  unanswered: SentEntry | null = null;
  private readonly begin: () => Buffer;

  /** Begins with the epoch entry of the first opening. */
  constructor(name: string, begin: () => Buffer) {
    this.name = name;
    this.begin = begin;
  }

  get lastLsn(): number {
    return this.entries.length;
  }

  /** The disk after entry `lsn`. */
  at(lsn: number): Buffer {
    const last = this.entries[lsn - 1];
    if (last?.kind === "rollback") return this.at(last.toLsn);
    const from = this.entries.slice(0, lsn).findLastIndex((entry) => entry.kind === "rollback") + 1;
    let disk = from === 0 ? this.begin() : this.at(from);
    for (const entry of this.entries.slice(from, lsn)) {
      if (entry.kind === "write") entry.bytes.copy(disk, entry.offset);
      else if (entry.kind === "zero") disk.fill(0, entry.offset, entry.offset + entry.length);
      else if (entry.kind === "resize") disk = resized(disk, entry.sizeBytes);
    }
    return disk;
  }

  get present(): Buffer {
    return this.at(this.lastLsn);
  }

  async write(client: NbdClient, offset: number, bytes: Buffer): Promise<void> {
    await this.send({ kind: "write", offset, bytes }, client.write(offset, bytes));
  }

  /** Either way of zeroing. */
  async zero(client: NbdClient, offset: number, length: number, trims: boolean): Promise<void> {
    const request = trims ? client.trim(offset, length) : client.writeZeroes(offset, length);
    await this.send({ kind: "zero", offset, length }, request);
  }

  /** A request at a random place; most meet in `places`, so that they overlap. */
  async sendAny(client: NbdClient, random: SeededRandom, places: readonly number[]): Promise<void> {
    const { size } = client;
    const length = random.chance(0.1) ? random.between(1, 200_000) : random.between(1, 12_000);
    const place = places[random.between(0, places.length)] ?? 0;
    const wanted = random.chance(0.8) ? place + random.between(0, 16_000) : random.between(0, size);
    const offset = Math.min(wanted, size - length);
    const kind = random.between(0, 10);
    if (kind >= 7) return await this.zero(client, offset, length, kind === 7);
    const content = Buffer.alloc(length, random.between(1, 255));
    content.writeUInt8(this.lastLsn % 256, random.between(0, length));
    await this.write(client, offset, content);
  }

  /** The server was started again after a kill: its log says whether the last request was taken. */
  async reopened(server: PastServer): Promise<void> {
    const found = (await server.volume(this.name)).figures?.lastLsn;
    if (this.unanswered !== null && found === this.lastLsn + 2) this.entries.push(this.unanswered);
    this.unanswered = null;
    this.entries.push({ kind: "nothing" });
    expect(found, `entries of ${this.name}`).toBe(this.lastLsn);
  }

  /** `count` random points, and the last one, read whole over NBD. */
  async judge(server: PastServer, random: SeededRandom, count: number, what: string): Promise<number> {
    const { lastLsn } = this;
    expect((await server.volume(this.name)).figures?.lastLsn, `entries of ${this.name}, ${what}`).toBe(
      lastLsn,
    );
    const lsns = new Set([lastLsn]);
    while (lsns.size < Math.min(count, lastLsn)) lsns.add(random.between(1, lastLsn + 1));
    for (const lsn of lsns) await this.judgeExport(server, `${this.name}@lsn:${lsn}`, this.at(lsn), what);
    return lsns.size;
  }

  async judgePresent(server: PastServer, what: string): Promise<void> {
    await this.judgeExport(server, this.name, this.present, what);
  }

  private async send(entry: SentEntry, request: Promise<void>): Promise<void> {
    this.unanswered = entry;
    await request;
    this.unanswered = null;
    this.entries.push(entry);
  }

  private async judgeExport(server: PastServer, name: string, right: Buffer, what: string): Promise<void> {
    const client = await server.connect(name);
    expect(client.size, `size of ${name}, ${what}`).toBe(right.length);
    const found = await client.read(0, right.length);
    await client.disconnect();
    if (found.equals(right)) return;
    const at = found.findIndex((byte, index) => byte !== right[index]);
    expect.fail(`${name} is wrong at byte ${at}: ${found[at]}, not ${right[at]}; ${what}`);
  }
}

function resized(disk: Buffer, bytes: number): Buffer {
  const next = Buffer.alloc(bytes);
  disk.copy(next);
  return next;
}
