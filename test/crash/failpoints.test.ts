// The real process ends by SIGKILL at each named failpoint of the archiver (docs/specs/archive.md#failpoints), while a client writes.
// After the next start every acknowledged byte is there, no name in the bucket points at nothing, and the past goes on.
import { randomBytes } from "node:crypto";
import { describe, expect, test } from "vitest";
import { PastServer } from "../tools/past-server.ts";
import { varve } from "../tools/varve-command.ts";

const MiB = 1024 * 1024;
const blocks = 32;

/** What was acknowledged, and the one write that may have been taken without an answer. */
class WrittenDisk {
  readonly bytes = Buffer.alloc(blocks * MiB);
  private unanswered: { readonly block: number; readonly content: Buffer } | null = null;

  /** Writes blocks until the connection ends or `most` were written. */
  async fill(server: PastServer, most: number): Promise<void> {
    const client = await server.connect("disk0");
    // Half of a block does not compress: 16 of them are a segment's worth of chunks, too.
    const content = Buffer.concat([randomBytes(MiB / 2), Buffer.alloc(MiB / 2, 7)]);
    try {
      for (let count = 0; count < most; count += 1) {
        const block = (count * 7) % blocks;
        content.writeUInt32LE(count + 1, 0);
        this.unanswered = { block, content: Buffer.from(content) };
        await client.write(block * MiB, content);
        content.copy(this.bytes, block * MiB);
        this.unanswered = null;
      }
    } finally {
      client.destroy();
    }
  }

  expectOn(found: Buffer, what: string): void {
    for (let block = 0; block < blocks; block += 1) {
      const now = found.subarray(block * MiB, (block + 1) * MiB);
      const old = this.bytes.subarray(block * MiB, (block + 1) * MiB);
      const maybe = this.unanswered?.block === block ? this.unanswered.content : old;
      expect(now.equals(old) || now.equals(maybe), `${what}: block ${block}`).toBe(true);
    }
    found.copy(this.bytes);
    this.unanswered = null;
  }
}

/** MiB to write until the failpoint must have been met; a base is due after 256 MiB of log. */
const enough = { seal: 40, upload: 40, publish: 40, release: 40, base: 400 } as const;

describe("kill at a failpoint", () => {
  for (const [name, most] of Object.entries(enough)) {
    test(`${name}: nothing that was acknowledged is lost, no name dangles`, {
      timeout: 240_000,
    }, async () => {
      const server = await PastServer.start(["disk0:32M"], { env: { VARVE_TEST_FAILPOINT: name } });
      const disk = new WrittenDisk();
      try {
        const { exited } = server.process;
        // Held checks and bases come some moments after the writes that make them due.
        await disk.fill(server, most).catch(() => undefined);
        const late = new Promise<null>((resolve) => {
          setTimeout(() => resolve(null), 90_000).unref();
        });
        const exit = await Promise.race([exited, late]);
        expect(exit, "the process met its failpoint").toMatchObject({ signal: "SIGKILL" });
        await server.kill();

        await server.up({ env: {} });
        disk.expectOn(await server.read("disk0", 0, blocks * MiB), "after the kill");
        const snapshot = await server.snapshot("disk0", "after");
        await disk.fill(server, 20);
        disk.expectOn(await server.read("disk0", 0, blocks * MiB), "written on");
        await server.stop();
        const check = await varve(["bucket", "check", "--bucket", `file://${server.dataDir}/bucket`]);
        expect(check.code, check.stdout + check.stderr).toBe(0);

        await server.up({ env: {} });
        const past = await server.read(`disk0@lsn:${snapshot.lsn}`, 0, MiB);
        expect(past.length).toBe(MiB);
        disk.expectOn(await server.read("disk0", 0, blocks * MiB), "started again");
      } finally {
        await server.end();
      }
    });
  }
});
