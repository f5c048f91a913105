// What `varve attach` says before it asks anything of the kernel: an export that is not there, a volume whose answers may come before
// they are safe, an address that does not speak NBD. With a real server; the kernel's side is test/vm/attach.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../tools/free-port.ts";
import { varve } from "../tools/varve-command.ts";
import { VarveProcess } from "../tools/varve-process.ts";

const directory = mkdtempSync(join(tmpdir(), "varve-attach-"));
let server: VarveProcess;
let nbd = "";
let http = "";

beforeAll(async () => {
  nbd = `127.0.0.1:${await freePort()}`;
  http = `127.0.0.1:${await freePort()}`;
  server = await VarveProcess.start({
    dataDir: join(directory, "data"),
    nbd: [nbd],
    http,
    volumes: ["kept:8M", "early:8M,durability=flush"],
  });
});
afterAll(async () => {
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

test("an unknown volume, and an unknown point of a known one", async () => {
  for (const name of ["other", "kept@never"]) {
    const result = await varve(["attach", name, "--server", nbd]);
    expect(result.stderr).toContain(`varve: ${nbd} does not serve ${name}: `);
    expect(result.stderr).toContain("hint: ");
    expect(result.code).toBe(2);
  }
});

test("a volume with durability flush is refused, with the way out", async () => {
  const result = await varve(["attach", "early", "--server", nbd]);
  expect(result.stderr).toBe(
    "varve: early has durability flush, which can't be attached\n" +
      "hint: After a fail-over the kernel could not know of lost answers: varve volume set early --durability write.\n",
  );
  expect(result.code).toBe(2);
});

test("a server that does not speak NBD, and one that says nothing", async () => {
  const stranger = createServer((socket) =>
    socket.end("220 mail.example ready, and more than a greeting\r\n"),
  );
  await new Promise<void>((resolve) => stranger.listen(0, "127.0.0.1", resolve));
  const { port } = stranger.address() as AddressInfo;
  const mail = await varve(["attach", "kept", "--server", `127.0.0.1:${port}`]);
  stranger.close();
  expect(mail.stderr).toContain(`varve: 127.0.0.1:${port} does not speak NBD as Varve does\n`);
  expect(mail.code).toBe(2);
  const silent = await varve(["attach", "kept", "--server", http]);
  expect(silent.stderr).toContain(`varve: no NBD server at ${http}: no answer within 10 s\n`);
  expect(silent.code).toBe(75);
});

test("the second gateway is asked where the first is away, and --wait waits for one", async () => {
  const startedAtMs = performance.now();
  const none = await varve(["attach", "kept", "--server", "127.0.0.1:1", "--wait", "1"]);
  expect(performance.now() - startedAtMs).toBeGreaterThan(1000);
  expect(none.code).toBe(75);
  const other = await varve(["attach", "early", "--server", "127.0.0.1:1", "--server", nbd]);
  expect(other.stderr).toContain("early has durability flush");
});
