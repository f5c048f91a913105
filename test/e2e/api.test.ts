// The HTTP API of a running server by plain fetch: every route, what it answers, the OpenAPI page that describes it, and
// Prometheus text. One server for the file; each test has its own volume.
// Wrong requests and their messages: bad-input.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiConnection, ApiImageReport, ApiStatus, ApiVolume } from "#shared/api/http-api.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const MiB = 1024 * 1024;
const directory = mkdtempSync(join(tmpdir(), "varve-api-"));
const nbd = `unix:${join(directory, "nbd.sock")}`;
let base = "";
let server: VarveProcess;

beforeAll(async () => {
  const http = `127.0.0.1:${await freePort()}`;
  base = `http://${http}`;
  server = await VarveProcess.start({ dataDir: join(directory, "data"), nbd: [nbd], http });
});
afterAll(async () => {
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

async function call<T = unknown>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
  const response = await fetch(`${base}${path}`, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const text = await response.text();
  return { status: response.status, body: (text === "" ? undefined : JSON.parse(text)) as T };
}

test("a volume is created, shown, listed, set, resized and deleted", async () => {
  const created = await call<ApiVolume>("POST", "/v1/volumes", { name: "life", size: "16M" });
  expect(created).toMatchObject({
    status: 201,
    body: { name: "life", sizeBytes: 16 * MiB, durability: "write", condition: "serving", failure: null },
  });
  expect(created.body.uris).toEqual([`nbd+unix:///life?socket=${join(directory, "nbd.sock")}`]);
  expect(created.body.figures).toMatchObject({ epoch: 1, oldestLsn: 1 });
  const { createdAt } = created.body;
  expect(Date.now() - Date.parse(createdAt)).toBeLessThan(60_000);

  expect((await call<ApiVolume>("GET", "/v1/volumes/life")).body.id).toBe(created.body.id);
  expect((await call<ApiVolume[]>("GET", "/v1/volumes")).body.map((one) => one.name)).toContain("life");
  const set = await call<ApiVolume>("PATCH", "/v1/volumes/life", { durability: "flush" });
  expect(set).toMatchObject({ status: 200, body: { durability: "flush" } });
  const grown = await call<ApiVolume>("POST", "/v1/volumes/life/resize", { size: 32 * MiB });
  expect(grown).toMatchObject({ status: 200, body: { sizeBytes: 32 * MiB } });
  const shrunk = await call<ApiVolume>("POST", "/v1/volumes/life/resize", { size: "8M", shrink: true });
  expect(shrunk).toMatchObject({ status: 200, body: { sizeBytes: 8 * MiB } });
  expect(await call("DELETE", "/v1/volumes/life")).toEqual({ status: 204, body: undefined });
  expect((await call("GET", "/v1/volumes/life")).status).toBe(404);
});

test("an image check of a healthy volume finds nothing, and the volume serves on", async () => {
  await call("POST", "/v1/volumes", { name: "sound", size: "16M" });
  const checked = await call<ApiImageReport>("POST", "/v1/volumes/sound/image/check");
  expect(checked).toMatchObject({ status: 200, body: { name: "sound", clean: true } });
  const client = await NbdClient.connect(nbd, "sound");
  await client.write(0, Buffer.alloc(4096, 7));
  await client.disconnect();
  expect((await call<ApiVolume>("GET", "/v1/volumes/sound")).body.condition).toBe("serving");
});

test("connections, status and metrics follow a client", async () => {
  await call("POST", "/v1/volumes", { name: "watched", size: "16M" });
  const client = await NbdClient.connect(nbd, "watched");
  await client.write(0, Buffer.alloc(8192, 1));
  await client.read(0, 4096);
  const connections = await call<ApiConnection[]>("GET", "/v1/connections");
  const own = connections.body.find((one) => one.volume === "watched");
  expect(own).toMatchObject({
    requestsInFlight: 0,
    counters: { writeRequests: 1, readRequests: 1, writtenBytes: 8192 },
  });
  const status = await call<ApiStatus>("GET", "/v1/status");
  expect(status.body).toMatchObject({ pid: server.pid, nbd: [nbd], dataDirectory: join(directory, "data") });
  expect(status.body.connections).toBeGreaterThanOrEqual(1);
  expect(status.body.freeBytes).toBeGreaterThan(0);

  const metrics = await (await fetch(`${base}/metrics`)).text();
  expect(metrics).toMatch(/^varve_volume_up\{volume="watched"\} 1$/m);
  expect(metrics).toMatch(/^varve_volume_attached_clients\{volume="watched"\} 1$/m);
  expect(metrics).toMatch(/^varve_nbd_written_bytes [1-9]\d*$/m);
  for (const line of metrics.trimEnd().split("\n")) {
    expect(line).toMatch(
      /^(# TYPE varve_[a-z_]+ (gauge|counter)|varve_[a-z_]+(\{volume="[a-z0-9._-]+"\})? -?[0-9.]+)$/,
    );
  }
  await client.disconnect();
});

test("health is said in a word", async () => {
  expect(await (await fetch(`${base}/healthz`)).text()).toBe("ok\n");
  expect(await (await fetch(`${base}/readyz`)).text()).toBe("ready\n");
});

test("the OpenAPI page names every route, and the routes that it names exist", async () => {
  interface Operation {
    readonly responses: Readonly<Record<string, unknown>>;
  }
  const { body } = await call<{ openapi: string; paths: Record<string, Record<string, Operation>> }>(
    "GET",
    "/openapi.json",
  );
  expect(body.openapi).toMatch(/^3\./);
  expect(
    Object.entries(body.paths)
      .flatMap(([path, methods]) => Object.keys(methods).map((one) => `${one} ${path}`))
      .sort(),
  ).toEqual([
    "delete /v1/nodes/{node}/drain",
    "delete /v1/volumes/{name}",
    "delete /v1/volumes/{name}/replicas/{node}",
    "delete /v1/volumes/{name}/snapshots/{snapshot}",
    "get /healthz",
    "get /metrics",
    "get /readyz",
    "get /v1/attachments",
    "get /v1/bucket/deleted",
    "get /v1/bucket/reports/{id}",
    "get /v1/bucket/usage",
    "get /v1/connections",
    "get /v1/jobs",
    "get /v1/jobs/{id}",
    "get /v1/nodes",
    "get /v1/replicas",
    "get /v1/status",
    "get /v1/volumes",
    "get /v1/volumes/{name}",
    "get /v1/volumes/{name}/changes",
    "get /v1/volumes/{name}/history",
    "get /v1/volumes/{name}/points/{point}/blocks",
    "get /v1/volumes/{name}/snapshots",
    "patch /v1/nodes/{node}",
    "patch /v1/volumes/{name}",
    "post /v1/bucket/check",
    "post /v1/bucket/collect",
    "post /v1/bucket/deleted/{name}/undelete",
    "post /v1/nodes/{node}/drain",
    "post /v1/volumes",
    "post /v1/volumes/{name}/arrive",
    "post /v1/volumes/{name}/arrived",
    "post /v1/volumes/{name}/clones",
    "post /v1/volumes/{name}/fill",
    "post /v1/volumes/{name}/image/{operation}",
    "post /v1/volumes/{name}/move",
    "post /v1/volumes/{name}/replicas",
    "post /v1/volumes/{name}/replicas/{node}/repair",
    "post /v1/volumes/{name}/resize",
    "post /v1/volumes/{name}/rollback",
    "post /v1/volumes/{name}/scrub",
    "post /v1/volumes/{name}/snapshots",
    "post /v1/volumes/{name}/takeover",
    "post /v1/volumes/{name}/tier",
    "post /v1/volumes/{name}/verify",
  ]);
  for (const [path, methods] of Object.entries(body.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const place = path
        .replace("{name}", "nobody")
        .replace("{operation}", "check")
        .replaceAll(/\{[a-z]+\}/gi, "none");
      const { status } = await fetch(`${base}${place}`, { method: method.toUpperCase() });
      expect(Object.keys(operation.responses), `${method} ${path} answered ${status}`).toContain(
        String(status),
      );
    }
  }
});

test("what belongs to several machines is refused on one", async () => {
  for (const [method, path, body] of [
    ["GET", "/v1/nodes"],
    ["GET", "/v1/replicas"],
    ["GET", "/v1/attachments"],
    ["POST", "/v1/volumes/any/takeover"],
    ["POST", "/v1/volumes/any/replicas", {}],
    ["DELETE", "/v1/volumes/any/replicas/shelf"],
    ["POST", "/v1/volumes/any/replicas/shelf/repair"],
    ["POST", "/v1/volumes/any/move", { from: "shelf" }],
    ["POST", "/v1/volumes/any/verify", {}],
    ["POST", "/v1/volumes/any/scrub", { node: "shelf" }],
    ["POST", "/v1/nodes/shelf/drain"],
    ["DELETE", "/v1/nodes/shelf/drain"],
    ["POST", "/v1/volumes", { name: "copies", size: "16M", replicas: 2 }],
  ] as const) {
    expect(await call(method, path, body)).toMatchObject({ status: 400, body: { tag: "NotAClusterError" } });
  }
  expect((await call<ApiVolume[]>("GET", "/v1/volumes")).body.map((one) => one.name)).not.toContain("copies");
});
