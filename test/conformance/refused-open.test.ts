// What real clients make of an export that does not open (docs/formats/nbd.md, Handshake): qemu goes on asking for as long as it was
// told to, whatever the refusal, and libnbd's tools say which it was, with the server's own words. The server is the product's
// NbdServer in front of memory exports, so that a test says when it refuses. Beside it: qemu.test.ts, libnbd.test.ts.

import { afterEach, beforeEach, expect, test } from "vitest";
import { type ErrorKind, VarveError } from "../../shared/domain/errors.ts";
import { MemoryExport } from "../tools/memory-export.ts";
import { nbdUri } from "../tools/varve-process.ts";
import { type Gateway, startGateway } from "../unit/nbd/gateway.ts";
import { client, succeed } from "./served-disk.ts";

const away = new VarveError("BucketAway", "Retry", "the bucket does not answer", {
  hint: "It is asked again.",
});
let gateway: Gateway;

beforeEach(async () => {
  gateway = await startGateway([new MemoryExport("disk0")]);
});

afterEach(() => gateway.close());

const opensReach = async (opens: number): Promise<void> => {
  while (gateway.directory.opens < opens) await new Promise((resolve) => setTimeout(resolve, 20));
};

const qemuOptions = (extra: string): string =>
  `driver=nbd,server.type=unix,server.path=${gateway.path},export=disk0,${extra}`;

test("qemu with open-timeout asks again until it opens", async () => {
  for (const kind of ["Retry", "Internal"] as const) {
    gateway.directory.opens = 0;
    gateway.directory.refusals.set("disk0", new VarveError("Away", kind, "not now"));
    const args = ["--image-opts", "-c", "read 0 4k", qemuOptions("open-timeout=20")];
    const opened = succeed("qemu-io", ...args);
    await opensReach(2);
    gateway.directory.refusals.clear();
    expect(await opened).toContain("read 4096/4096");
  }
});

test("qemu with reconnect-delay asks again until its reads are answered", async () => {
  // The first read is answered; then the session is cut and refused for a while.
  const args = ["--image-opts", "-c", "read 0 4k", "-c", "sleep 1500", "-c", "read 8k 4k"];
  const both = succeed("qemu-io", ...args, qemuOptions("reconnect-delay=20"));
  await opensReach(1);
  await new Promise((resolve) => setTimeout(resolve, 700));
  const before = gateway.directory.opens;
  gateway.directory.refusals.set("disk0", away);
  gateway.server.disconnectExport("disk0");
  await opensReach(before + 1);
  gateway.directory.refusals.clear();
  expect(await both).toMatch(/read 4096\/4096 bytes at offset 0[^]*read 4096\/4096 bytes at offset 8192/);
});

const told: readonly [ErrorKind, string, RegExp][] = [
  ["Retry", "BucketAway", /transport endpoint shutdown/],
  ["Invalid", "PointNotThere", /No such file or directory/],
  ["Invalid", "FlushVolumeRefused", /not supported/],
  ["Invalid", "PointSyntaxError", /Invalid argument/],
  ["Corrupt", "Damaged", /not supported/],
];
test("libnbd says which refusal it was, qemu says why", async () => {
  for (const [kind, tag, words] of told) {
    gateway.directory.refusals.set("disk0", new VarveError(tag, kind, "because of this"));
    const run = await client("nbdinfo", nbdUri(`unix:${gateway.path}`, "disk0"));
    expect(run.code).not.toBe(0);
    expect([tag, run.stderr]).toEqual([tag, expect.stringMatching(words)]);
    const image = await client("qemu-img", "info", nbdUri(`unix:${gateway.path}`, "disk0"));
    expect(image.stderr).toContain("because of this");
  }
});
