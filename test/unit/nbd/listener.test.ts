// Addresses: TCP and unix, several at once, stale and live socket files, wrong ones. What can't be listened on is a typed
// error that names the address and what to do, and leaves no other listener open.
// NbdServer with memory exports, real sockets and files in a temporary directory.

import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { addressText, type NbdAddress } from "../../../services/gateway/engine/nbd-listener.ts";
import { NbdServer } from "../../../services/gateway/engine/nbd-server.ts";
import { MemoryDirectory, MemoryExport } from "../../tools/memory-export.ts";
import { command, encodeGo, info, option } from "../../tools/nbd-wire.ts";
import { ManualClock, nativeSlabs, RawClient } from "./gateway.ts";

let dir: string;
let servers: NbdServer[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "varve-listen-"));
});

afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
  rmSync(dir, { recursive: true, force: true });
});

async function listen(...addresses: NbdAddress[]): Promise<NbdServer> {
  const directory = new MemoryDirectory([new MemoryExport("disk0")]);
  const server = new NbdServer({
    directory,
    listen: addresses,
    clock: new ManualClock(),
    slabs: nativeSlabs,
  });
  servers.push(server);
  await server.start();
  return server;
}

async function serves(address: string): Promise<void> {
  const client = await RawClient.transmitting(address);
  expect(await client.errnoOf(command.read, 0, 4096)).toBe(0);
  client.destroy();
}

async function foreignServer(path: string): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ path }, resolve));
  return server;
}

test("several addresses at once, a port of its own choice", async () => {
  const path = join(dir, "a.sock");
  const server = await listen({ path }, { host: "127.0.0.1", port: 0 }, { host: "::1", port: 0 });
  const texts = server.addresses().map(addressText);
  expect(texts[0]).toBe(`unix:${path}`);
  expect(texts[1]).toMatch(/^127\.0\.0\.1:[1-9]\d+$/);
  expect(texts[2]).toMatch(/^\[::1\]:[1-9]\d+$/);
  await serves(texts[0] ?? "");
  await serves(texts[1] ?? "");
  expect(server.counters().connectionsAccepted).toBe(2);
});

test("over TCP an option's replies do not wait for acknowledgements (TCP_NODELAY)", async () => {
  const server = await listen({ host: "127.0.0.1", port: 0 });
  const client = await RawClient.haggling(server.addresses().map(addressText)[0] ?? "");
  const startedAtMs = performance.now();
  for (let count = 0; count < 30; count += 1) {
    await client.ask(option.info, encodeGo("disk0", [info.name, info.description, info.blockSize]));
  }
  // With Nagle's algorithm each costs 40 ms and more: 1.2 s.
  expect(performance.now() - startedAtMs).toBeLessThan(900);
  client.destroy();
});

test("a socket file is for owner and group, and goes with the server", async () => {
  const path = join(dir, "a.sock");
  const server = await listen({ path });
  expect(statSync(path).mode & 0o777).toBe(0o660);
  server.close();
  await new Promise((resolve) => setImmediate(resolve));
  expect(existsSync(path)).toBe(false);
});

test("a stale socket file is replaced", async () => {
  const path = join(dir, "a.sock");
  const dead = await foreignServer(join(dir, "b.sock"));
  // A dead server's file: moved away, so that its own close does not find it.
  const { renameSync } = await import("node:fs");
  renameSync(join(dir, "b.sock"), path);
  await new Promise((resolve) => dead.close(resolve));
  expect(existsSync(path)).toBe(true);
  await listen({ path });
  await serves(`unix:${path}`);
});

test("a socket that somebody answers on is left alone", async () => {
  const path = join(dir, "a.sock");
  const live = await foreignServer(path);
  await expect(listen({ path })).rejects.toMatchObject({ _tag: "NbdListenError", kind: "Invalid" });
  expect(existsSync(path)).toBe(true);
  live.close();
});

test("a file that is no socket is left alone", async () => {
  const path = join(dir, "precious");
  writeFileSync(path, "data");
  await expect(listen({ path })).rejects.toMatchObject({ _tag: "NbdListenError", fields: { path } });
  expect(statSync(path).size).toBe(4);
});

test("a port in use is named, and nothing else stays open", async () => {
  const first = await listen({ host: "127.0.0.1", port: 0 });
  const taken = first.addresses()[0];
  const path = join(dir, "a.sock");
  if (taken === undefined || "path" in taken) throw new Error("no TCP address");
  await expect(listen({ path }, taken)).rejects.toMatchObject({
    _tag: "NbdListenError",
    fields: { address: addressText(taken), code: "EADDRINUSE" },
  });
  expect(existsSync(path)).toBe(false);
});

test("an address that this machine does not have, and a directory that is not there", async () => {
  await expect(listen({ host: "203.0.113.7", port: 0 })).rejects.toMatchObject({
    fields: { code: "EADDRNOTAVAIL" },
  });
  await expect(listen({ path: join(dir, "no", "a.sock") })).rejects.toMatchObject({
    _tag: "NbdListenError",
  });
});
