// The link of a relaying gateway to one that holds a volume, against the real NBD server on a memory export: bytes and errors come through,
// and whatever the other side does wrong ends the link without an answer to its client first.
import { createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { SystemClock } from "#shared/adapters/clock/system.ts";
import type { VarveError } from "#shared/domain/errors.ts";
import {
  type NbdOptionReplyNumber,
  nbdCommand,
  nbdOption,
  nbdOptionReply,
} from "#shared/formats/nbd-numbers.ts";
import { encodeExportInfo, encodeGreeting, encodeOptionReply } from "#shared/formats/nbd-option.ts";
import { encodeSimpleReply } from "#shared/formats/nbd-transmission.ts";
import { RelayLink } from "../../../services/gateway/engine/relay-link.ts";

let servers: Server[] = [];
afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
});

/** A holder that greets, gives an export, and then does what the test says with each request's cookie. */
async function holder(
  answer: (socket: Socket, cookie: number, type: number) => void,
  type: NbdOptionReplyNumber = nbdOptionReply.ack,
): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.write(encodeGreeting());
    let chosen = false;
    socket.on("data", (bytes: Buffer) => {
      if (!chosen) {
        chosen = true;
        socket.write(encodeOptionReply(nbdOption.go, nbdOptionReply.info, encodeExportInfo(65_536, 1)));
        socket.write(encodeOptionReply(nbdOption.go, type, Buffer.from("not here")));
        return;
      }
      for (let at = 0; at + 28 <= bytes.length; at += 28) {
        answer(socket, bytes.readUInt32BE(at + 12), bytes.readUInt16BE(at + 6));
      }
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  return `127.0.0.1:${(server.address() as { port: number }).port}`;
}

const reply = (cookie: number, errno: number): Buffer => {
  const bytes = Buffer.alloc(16);
  encodeSimpleReply(new DataView(bytes.buffer, bytes.byteOffset, 16), 0, errno, 0, cookie);
  return bytes;
};

async function open(address: string, events: string[]): Promise<RelayLink> {
  return await RelayLink.open({ address, exportName: "relay:disk0" }, new SystemClock(), (error) =>
    events.push(`lost ${error._tag}`),
  );
}

async function ask(
  link: RelayLink,
  type: number,
  events: string[],
  target?: Buffer,
): Promise<VarveError | null> {
  return await new Promise((resolve) => {
    const parts = target === undefined ? {} : { target };
    link.request(type, 0, { offset: 0, length: target?.length ?? 0 }, parts, (error) => {
      events.push(error === null ? "done" : error._tag);
      resolve(error);
    });
  });
}

describe("a relay link", () => {
  test("gets bytes that arrive in any pieces, and errors by their errno", async () => {
    const events: string[] = [];
    const address = await holder((socket, cookie, type) => {
      const answer =
        type === nbdCommand.read
          ? Buffer.concat([reply(cookie, 0), Buffer.from("12345")])
          : reply(cookie, 28);
      for (const byte of answer) socket.write(Buffer.from([byte]));
    });
    const link = await open(address, events);
    expect(link.sizeBytes).toBe(65_536);
    const target = Buffer.alloc(5);
    const [read, flush] = await Promise.all([
      ask(link, nbdCommand.read, events, target),
      ask(link, nbdCommand.flush, events),
    ]);
    expect([read, flush?.kind, target.toString()]).toEqual([null, "Full", "12345"]);
    link.close();
  });

  test("that is cut, or answers what nobody asked, tells its owner first and then fails what waits", async () => {
    for (const wrong of ["cut", "cookie", "magic"] as const) {
      const events: string[] = [];
      const address = await holder((socket, cookie) => {
        if (wrong === "cut") socket.destroy();
        else socket.write(wrong === "cookie" ? reply(cookie + 9, 0) : Buffer.alloc(16, 1));
      });
      const link = await open(address, events);
      expect(await ask(link, nbdCommand.flush, events)).toMatchObject({ kind: "Retry" });
      expect([wrong, events]).toEqual([wrong, ["lost RelayLost", "RelayLost"]]);
      expect(await ask(link, nbdCommand.flush, events)).toMatchObject({ _tag: "RelayLost" });
    }
  });

  test("to nobody, or to a gateway that refuses, is an error that names the address", async () => {
    const refusing = await holder(() => undefined, nbdOptionReply.unknown);
    await expect(open(refusing, [])).rejects.toMatchObject({
      _tag: "RelayError",
      kind: "Retry",
      message: `the gateway at ${refusing} can't be reached from here: not here`,
    });
    await expect(open("127.0.0.1:1", [])).rejects.toMatchObject({ _tag: "RelayError" });
    await expect(open("unix:/nowhere/nbd.sock", [])).rejects.toMatchObject({ _tag: "RelayError" });
  });
});
