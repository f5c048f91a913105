// A whole volume on a disk that fills up: what was acknowledged is never lost and never fails, who writes hears ENOSPC
// before, reads go on, and the service resumes by itself when there is room. Another program takes the room at will.
import { describe, expect, it } from "vitest";
import type { VarveError } from "#shared/domain/errors.ts";
import { MiB, type OpenSession, StorageWorld } from "./storage-world.ts";

const blockBytes = 4096;

/** What a client knows: for each block its acknowledged content and those that may or may not be there. */
class Client {
  readonly world: StorageWorld;
  readonly blocks: number;
  /** Undefined: zero. */
  readonly acknowledged: (Buffer | undefined)[];
  readonly unsure = new Map<number, Buffer[]>();
  readonly refusals: VarveError[] = [];
  writes = 0;

  constructor(world: StorageWorld) {
    this.world = world;
    this.blocks = world.record.sizeBytes / blockBytes;
    this.acknowledged = Array.from({ length: this.blocks });
  }

  /** Several writes at once, to blocks of their own; all answered when it resolves. */
  async burst(opened: OpenSession, count: number, blocksMax: number): Promise<void> {
    const taken = new Set<number>();
    const answers: Promise<void>[] = [];
    for (let index = 0; index < count; index += 1) {
      const length = this.world.random(1, blocksMax + 1);
      const first = this.world.random(0, this.blocks - length + 1);
      const range = Array.from({ length }, (_, at) => first + at);
      if (range.some((block) => taken.has(block))) continue;
      for (const block of range) taken.add(block);
      answers.push(this.#write(opened, first, range));
    }
    await this.world.until(Promise.all(answers));
    // A client takes its time, too.
    await this.world.until(new Promise<void>((resolve) => void this.world.clock.after(20, resolve)));
  }

  async #write(opened: OpenSession, first: number, range: readonly number[]): Promise<void> {
    const bytes = this.world.content(range.length * blockBytes);
    const error = await this.world.write(opened, first * blockBytes, bytes);
    if (error !== null) {
      this.refusals.push(error);
      return;
    }
    this.writes += 1;
    for (const [at, block] of range.entries()) {
      this.acknowledged[block] = bytes.subarray(at * blockBytes, (at + 1) * blockBytes);
    }
  }

  /** One write where nothing is yet. */
  async fill(opened: OpenSession, block: number): Promise<void> {
    await this.world.until(this.#write(opened, block, [block, block + 1, block + 2, block + 3]));
  }

  async trimAll(opened: OpenSession): Promise<void> {
    const { sizeBytes } = this.world.record;
    expect(await this.world.until(this.world.trim(opened, 0, sizeBytes))).toBeNull();
    this.acknowledged.fill(undefined);
  }

  async check(opened: OpenSession): Promise<void> {
    const zero = Buffer.alloc(blockBytes);
    for (let block = 0; block < this.blocks; block += 1) {
      const found = await this.world.read(opened, block * blockBytes, blockBytes);
      const expected = this.acknowledged[block] ?? zero;
      if (!found.equals(expected)) throw new Error(`block ${block} is not what was acknowledged`);
    }
  }
}

/** 8 MiB for images is left of 20 when log (three segments) and reserve have theirs. */
async function startWorld(
  seed: number,
): Promise<{ world: StorageWorld; client: Client; opened: OpenSession }> {
  const world = new StorageWorld(seed, {
    sizeBytes: 16 * MiB,
    quotaBytes: 20 * MiB,
    log: { segmentBytes: 2 * MiB, logBytesMax: 8 * MiB, retainedBytes: 0, sparesMax: 2 },
  });
  await world.makeVolume();
  const opened = await world.open();
  return { world, client: new Client(world), opened };
}

/** Until the image has no room; a full log alone gets some by a checkpoint. */
async function writeUntilRefused(client: Client, opened: OpenSession): Promise<void> {
  const isFull = (): boolean => client.refusals.some((error) => error._tag === "OutOfSpaceError");
  for (let round = 0; round < 400 && !isFull(); round += 1) await client.burst(opened, 8, 16);
  expect(isFull(), "the disk fills up").toBe(true);
}

describe("a volume on a full disk", { timeout: 60_000 }, () => {
  it("refuses with ENOSPC before anything acknowledged could fail, and reads on", async () => {
    for (let seed = 1; seed <= 3; seed += 1) {
      const { world, client, opened } = await startWorld(seed);
      await writeUntilRefused(client, opened);
      expect(client.refusals.map((error) => error.kind)).toEqual(client.refusals.map(() => "Full"));
      await client.check(opened);
      expect(opened.reserve.counters.releases, "nothing but the volume fills this disk").toBe(0);
      expect(opened.halts).toEqual([]);
      await world.close(opened);
      expect(opened.reserve.status().promisedBytes).toBe(0);
      const again = await world.open();
      await client.check(again);
      await world.close(again);
    }
  });

  it("goes on when the client trims, and overwrites what has its blocks all the while", async () => {
    const { world, client, opened } = await startWorld(11);
    await writeUntilRefused(client, opened);
    // Room that a log segment gives back is used up, too.
    const empty = client.acknowledged.indexOf(undefined);
    const block = client.acknowledged.findIndex((content) => content !== undefined);
    let overwrites = 0;
    for (let round = 0; round < 50; round += 1) {
      await client.fill(opened, empty);
      const bytes = world.content(blockBytes);
      const error = await world.until(world.write(opened, block * blockBytes, bytes));
      // A full log refuses for a while; the image never does.
      expect(error?._tag).not.toBe("OutOfSpaceError");
      if (error !== null) continue;
      overwrites += 1;
      client.acknowledged[block] = bytes;
    }
    expect(overwrites).toBeGreaterThan(20);
    expect((await world.until(world.write(opened, empty * blockBytes, world.content(MiB))))?.kind).toBe(
      "Full",
    );
    await client.trimAll(opened);
    await world.until(opened.session.checkpoint());
    await world.clock.run(2000);
    const writes = client.writes;
    await client.burst(opened, 8, 8);
    expect(client.writes).toBeGreaterThan(writes);
    await client.check(opened);
    await world.close(opened);
  });

  it("gives up the reserve when another program takes the room of what was acknowledged, and recovers", async () => {
    let releases = 0;
    for (let seed = 21; seed <= 30; seed += 1) {
      const { world, client, opened } = await startWorld(seed);
      for (let round = 0; round < 60; round += 1) {
        await client.burst(opened, world.random(1, 8), 16);
        if (world.random(0, 4) === 0) {
          // All of the room that is left, or none.
          await world.foreignFile(world.random(0, 2) === 0 ? world.disk.quotaBytes : 0);
        }
        if (round % 20 === 19) await client.check(opened);
      }
      for (const error of client.refusals) expect(error.kind, error.message).toBe("Full");
      await world.foreignFile(0);
      await client.trimAll(opened);
      await world.until(opened.session.checkpoint());
      await world.clock.run(5000);
      const writes = client.writes;
      await client.burst(opened, 4, 4);
      expect(client.writes, "service resumes").toBe(writes + 4);
      await client.check(opened);
      expect(opened.halts).toEqual([]);
      releases += opened.reserve.counters.releases;
      await world.close(opened);
      const again = await world.open();
      await client.check(again);
      await world.close(again);
    }
    expect(releases, "the reserve was needed").toBeGreaterThan(3);
  });

  it("comes up again after a power cut on a full disk, with the reserve or once there is room", async () => {
    let refusedOpens = 0;
    for (let seed = 51; seed <= 60; seed += 1) {
      const { world, client, opened } = await startWorld(seed);
      for (let round = 0; round < 20; round += 1) await client.burst(opened, world.random(1, 8), 16);
      if (seed % 2 === 0) await world.foreignFile(world.disk.quotaBytes);
      await client.burst(opened, 8, 16);
      world.crash();
      await world.foreignFile(world.disk.quotaBytes);
      let again: OpenSession | null = await world.open().catch((error: VarveError) => {
        expect(error.kind, error.message).toBe("Full");
        refusedOpens += 1;
        return null;
      });
      if (again === null) {
        await world.foreignFile(0);
        again = await world.open();
      }
      await client.check(again);
      expect(again.halts).toEqual([]);
    }
    expect(refusedOpens, "the reserve does for most").toBeLessThan(10);
  });

  it("gives promised room back when log or image halts", async () => {
    for (let seed = 71; seed <= 76; seed += 1) {
      const { world, client, opened } = await startWorld(seed);
      await client.burst(opened, 8, 16);
      world.disk.faults.writeError = 1;
      const failing = Array.from({ length: 6 }, (_, at) =>
        world.write(opened, at * 65_536, world.content(65_536)),
      );
      await world.until(Promise.all(failing));
      await world.clock.run(200);
      expect(opened.halts).toHaveLength(1);
      opened.disk.close();
      await world.until(opened.session.close()).catch(() => undefined);
      expect(opened.reserve.status().promisedBytes).toBe(0);
    }
  });
});
