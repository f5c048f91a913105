// kill -9 of the real process at every named failpoint (docs/specs/archive.md#failpoints) under load: one client whose every entry is known,
// a second volume under the block checker, evictions and collections asked for meanwhile. After the next start nothing acknowledged is
// lost, the bucket check is clean, and points of the past are exactly what was sent. failpoints.test.ts does it with large writes.
import { describe, expect, test } from "vitest";
import type { FailpointName } from "#shared/ports/failpoint.ts";
import { BlockChecker, describe as describeFinding } from "../tools/block-checker.ts";
import { PastServer } from "../tools/past-server.ts";
import { SeededRandom } from "../tools/seeded-random.ts";
import { SentHistory } from "../tools/sent-history.ts";
import { varve } from "../tools/varve-command.ts";

const MiB = 1024 * 1024;
const sizeBytes = 16 * MiB;

/** Which visit ends the process: later ones meet a past that is longer. */
const visits: Readonly<Record<FailpointName, number>> = {
  append: 150,
  seal: 2,
  upload: 2,
  publish: 3,
  base: 2,
  release: 3,
  evict: 2,
  collect: 3,
};

describe("kill -9 at a failpoint, under load", () => {
  test.each(Object.entries(visits))("%s, visit %i", { timeout: 180_000 }, async (name, visit) => {
    const random = new SeededRandom(visit * 7919 + name.length);
    const checker = new BlockChecker({ sizeBytes: 8 * MiB, seed: random.uint32(), survives: "acknowledged" });
    const disk = new SentHistory("disk0", () => Buffer.alloc(sizeBytes));
    const server = await PastServer.start([`disk0:${sizeBytes}`, "busy:8M"], {
      env: { VARVE_TEST_FAILPOINT: `${name}:${visit}`, VARVE_TEST_GRACE_MS: "0" },
    });
    try {
      await server.ok("PATCH", "/volumes/disk0", { residency: "tiered", coldAfter: "30d" });
      const { exited } = server.process;
      const load = Promise.allSettled([clientOf(server, disk, random), busyClient(server, checker)]);
      await upkeep(server, exited);
      expect(await exited, `it came to ${name}`).toMatchObject({ signal: "SIGKILL" });
      await load;
      await server.kill();

      await server.up({ volumes: [], env: {} });
      await disk.reopened(server);
      await disk.judgePresent(server, "after the kill");
      const busy = await server.connect("busy");
      expect((await checker.verify(busy, "restart")).map(describeFinding)).toEqual([]);
      await busy.disconnect();
      await disk.judge(server, random, 25, "after the kill");
      await server.stop();
      const check = await varve(["bucket", "check", "--bucket", `file://${server.dataDir}/bucket`]);
      expect(check.code, check.stdout + check.stderr).toBe(0);
    } finally {
      await server.end();
    }
  });
});

/** First something in every extent, then small requests in the first one, so that the others become cold. */
async function clientOf(server: PastServer, disk: SentHistory, random: SeededRandom): Promise<void> {
  const client = await server.connect("disk0");
  try {
    for (let offset = 0; offset < sizeBytes; offset += 512 * 1024) {
      await disk.write(client, offset, Buffer.alloc(64 * 1024, random.between(1, 255)));
    }
    for (;;) {
      const bytes = Buffer.alloc(random.between(1, 9000), random.between(1, 255));
      await disk.write(client, random.between(0, 3 * MiB), bytes);
    }
  } finally {
    client.destroy();
  }
}

async function busyClient(server: PastServer, checker: BlockChecker): Promise<void> {
  const client = await server.connect("busy");
  await checker.run([client], { depth: 4 });
}

/** Asks for bases, evictions and collections until the process is gone. */
async function upkeep(server: PastServer, exited: Promise<unknown>): Promise<void> {
  const life = { over: false };
  const watch = exited.then(() => {
    life.over = true;
  });
  const deadlineMs = performance.now() + 90_000;
  while (!life.over && performance.now() < deadlineMs) {
    // Whoever asks a process that dies gets no answer.
    await server.call("POST", "/volumes/disk0/tier", { coldAfter: "0s" }).catch(() => undefined);
    await Promise.race([watch, pause(1500)]);
    await server.call("POST", "/bucket/collect", {}).catch(() => undefined);
    await Promise.race([watch, pause(500)]);
    if (!life.over) await server.read("disk0", 12 * MiB, 4096).catch(() => undefined);
  }
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
