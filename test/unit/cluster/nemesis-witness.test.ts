// The nemesis' witness must be able to fail: gateways that answer old states are found out, each by what its volume promises.
import { describe, expect, test } from "vitest";
import type { ReadPolicy } from "#shared/domain/volume.ts";
import { type RegisterClient, Witness, witnessBytes } from "../../cluster/nemesis-witness.ts";

/** Two gateways of one disk; the first one answers reads as the disk was when `lost` was set. */
class TwoGateways {
  readonly #disk = Buffer.alloc(witnessBytes);
  #old: Buffer | null = null;

  readonly next: RegisterClient = {
    read: async (offset, length) => Buffer.from(this.#disk.subarray(offset, offset + length)),
    write: async (offset, data) => this.#disk.set(data, offset),
  };

  readonly first: RegisterClient = {
    read: async (offset, length) => Buffer.from((this.#old ?? this.#disk).subarray(offset, offset + length)),
    write: async (offset, data) =>
      this.#old === null ? this.next.write(offset, data) : new Promise(() => undefined),
  };

  /** `forgets`: even what it acknowledged itself. */
  loseFirst(forgets: boolean): void {
    this.#old = forgets ? Buffer.alloc(witnessBytes) : Buffer.from(this.#disk);
  }
}

async function witnessed(policy: ReadPolicy, forgets: boolean): Promise<Witness> {
  const witness = new Witness(policy, 0);
  const gateways = new TwoGateways();
  witness.on(gateways.first, "gate-1");
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(witness.findings).toEqual([]);
  gateways.loseFirst(forgets);
  const beside = witness.on(gateways.next, "gate-2");
  await new Promise((resolve) => setTimeout(resolve, 400));
  await beside.stop();
  return witness;
}

describe("the witness of old reads", () => {
  test("with strict reads takes no state that is older than what anybody acknowledged", async () => {
    const { findings, counts } = await witnessed("strict", false);
    expect(counts.older).toBeGreaterThan(0);
    expect(findings[0]).toMatch(
      /^strict reads, through gate-1: register \d+ shows \d+, \d+ was acknowledged, \d+ written/,
    );
  });

  test("with available reads takes what that gateway last acknowledged, and counts it", async () => {
    const { findings, counts } = await witnessed("available", false);
    expect([findings, counts.older > 0]).toEqual([[], true]);
  });

  test("with available reads takes nothing that is older than that", async () => {
    const { findings } = await witnessed("available", true);
    expect(findings[0]).toMatch(
      /^available reads, through gate-1: register \d+ shows 0, \d+ was acknowledged, \d+ written/,
    );
  });

  test("after a rollback takes what was there at the point, and nothing that was undone", async () => {
    const witness = new Witness("strict", 0);
    const disk = Buffer.alloc(witnessBytes);
    const client: RegisterClient = {
      read: async (offset, length) => Buffer.from(disk.subarray(offset, offset + length)),
      write: async (offset, data) => disk.set(data, offset),
    };
    const written = async (): Promise<void> => {
      const connection = witness.on(client, "gate-1");
      await new Promise((resolve) => setTimeout(resolve, 300));
      await connection.stop();
    };
    await written();
    const point = witness.pointTaken(witness.pointAsked());
    const atPoint = Buffer.from(disk);
    await written();
    const undone = Buffer.from(disk);
    expect(await witness.judgePoint(client, point, true)).toContainEqual(
      expect.stringMatching(/as at the point$/),
    );
    disk.set(atPoint);
    expect(await witness.judgePoint(client, point, true)).toEqual([]);
    await written();
    expect(witness.findings).toEqual([]);
    disk.set(undone);
    await written();
    expect(witness.findings).toContainEqual(expect.stringMatching(/which a rollback undid$/));
  });
});
