// Each row of docs/errors.md that a user can cause with words: command lines, environment, addresses, requests. Asserts exit
// code or HTTP status, the whole message and the hint, and that no byte of any volume changed. Damaged files:
// bad-files.test.ts. The last test holds this file and the page together.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ErrorBody } from "#shared/api/error-body.ts";
import { freePort } from "../tools/free-port.ts";
import { NbdClient } from "../tools/nbd-client.ts";
import { contentOf, varve } from "../tools/varve-command.ts";
import { repositoryDir, VarveProcess } from "../tools/varve-process.ts";
import { wrongCommands } from "./wrong-commands.ts";
import { type WrongRequest, wrongRequests } from "./wrong-requests.ts";

const directory = mkdtempSync(join(tmpdir(), "varve-bad-"));
const stopped = join(directory, "data");
const taken = createServer();
let takenPort = 0;

beforeAll(async () => {
  const nbd = `unix:${join(directory, "nbd.sock")}`;
  const server = await VarveProcess.start({ dataDir: stopped, nbd: [nbd], volumes: ["kept:8M"] });
  const client = await NbdClient.connect(nbd, "kept");
  await client.write(0, Buffer.from("what was there before"));
  await client.disconnect();
  await server.stop();
  mkdirSync(join(stopped, "volumes", "stranger"));
  writeFileSync(join(stopped, "volumes", "stranger", "letter.txt"), "dear");
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const address = taken.address();
  takenPort = typeof address === "object" && address !== null ? address.port : 0;
});
afterAll(() => {
  taken.close();
  rmSync(directory, { recursive: true, force: true });
});

const filled = (text: string): string => text.replaceAll("{D}", stopped).replaceAll("{P}", String(takenPort));
/** What must not change: the catalogue, and the disk itself. A start on the way to its error may open and close a log. */
const untouched = (): string =>
  contentOf(join(stopped, "volumes", "stranger")) +
  readFileSync(join(stopped, "catalog.json"), "utf8") +
  readFileSync(join(stopped, "volumes", "kept", "disk.raw"))
    .subarray(0, 4096)
    .toString("latin1");

describe("a wrong command", () => {
  test.each(wrongCommands)("$id: varve $words", async ({ words, env, code, says, hint }) => {
    const before = untouched();
    const result = await varve(filled(words).split(" "), env ?? {});
    const lines = result.stderr.trimEnd().split("\n");
    expect(lines).toEqual([...says.map((line) => `varve: ${filled(line)}`), `hint: ${filled(hint)}`]);
    expect(result.code).toBe(code);
    expect(result.stdout).toBe("");
    expect(untouched()).toBe(before);
  });

  test("--json gives the same as JSON on stderr", async () => {
    const result = await varve(["volume", "delete", "none", "--data", stopped, "--json"]);
    expect(JSON.parse(result.stderr)).toEqual({
      error: {
        tag: "UnknownVolumeError",
        kind: "Invalid",
        message: 'there is no volume named "none"',
        hint: "Volumes: kept.",
        fields: { name: "none" },
      },
    });
    expect(result.code).toBe(2);
  });
});

describe("a wrong request", () => {
  let server: VarveProcess;
  let client: NbdClient;
  let port = 0;

  beforeAll(async () => {
    port = await freePort();
    const nbd = `unix:${join(directory, "api.sock")}`;
    server = await VarveProcess.start({
      dataDir: join(directory, "served"),
      nbd: [nbd],
      http: `127.0.0.1:${port}`,
      volumes: ["kept:8M", "other:8M"],
    });
    client = await NbdClient.connect(nbd, "kept");
    const first = {
      id: "",
      method: "POST",
      path: "/v1/volumes/other/snapshots",
      status: 201,
      tag: "",
      says: "",
    };
    await ask({ ...first, body: '{"name":"first"}', headers: { "content-type": "application/json" } });
  });
  afterAll(async () => {
    await client.disconnect();
    await server.stop();
  });

  /** node:http, because fetch sets Host itself. */
  const ask = async (wrong: WrongRequest): Promise<{ status: number; body: ErrorBody }> => {
    const { request } = await import("node:http");
    return await new Promise((resolve, reject) => {
      const { method, path, headers = {} } = wrong;
      const call = request({ host: "127.0.0.1", port, method, path, headers }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) as ErrorBody }),
        );
      });
      call.on("error", reject);
      call.end(wrong.body);
    });
  };
  const volumes = async (): Promise<unknown> => {
    const all = (await (await fetch(`http://127.0.0.1:${port}/v1/volumes`)).json()) as {
      name: string;
      sizeBytes: number;
      durability: string;
    }[];
    return all.map(({ name, sizeBytes, durability }) => ({ name, sizeBytes, durability }));
  };

  test.each(wrongRequests)("$id: $method $path", async (wrong) => {
    const before = await volumes();
    const { status, body } = await ask(wrong);
    expect(body.tag).toBe(wrong.tag);
    if (wrong.open === true) expect(body.message.startsWith(wrong.says), body.message).toBe(true);
    else expect(body.message).toBe(wrong.says);
    expect(body.hint).not.toBe("");
    expect(status).toBe(wrong.status);
    expect(await volumes()).toEqual(before);
  });
});

test("docs/errors.md has exactly these rows, with these messages", () => {
  const page = readFileSync(join(repositoryDir, "docs", "errors.md"), "utf8");
  const rows = new Map(
    [...page.matchAll(/^\| `([a-z0-9-]+)` \| (.*) \|$/gm)].map(([, id = "", rest = ""]) => [id, rest]),
  );
  const own = [...rows.keys()].filter((id) => !/^(file|repair)-/.test(id)).sort();
  expect(own).toEqual([...wrongCommands, ...wrongRequests].map((wrong) => wrong.id).sort());
  for (const { id, words, says, hint, code } of wrongCommands) {
    const row = rows.get(id) ?? "";
    for (const text of [words, ...says, hint]) expect(row, id).toContain(inTable(text));
    expect(row, id).toContain(`| ${code}`);
  }
  for (const { id, method, path, says, status, tag } of wrongRequests) {
    const row = rows.get(id) ?? "";
    for (const text of [`${method} ${path}`, says, tag]) expect(row, id).toContain(inTable(text));
    expect(row, id).toContain(`| ${status}`);
  }
});

/** As it stands in a table cell of the page. */
function inTable(text: string): string {
  return text.replaceAll("{D}", "DATA").replaceAll("{P}", "PORT").replaceAll("|", "\\|");
}
