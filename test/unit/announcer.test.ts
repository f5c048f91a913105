// An announcer whose socket breaks says so, once, and is found again.
import { createSocket, type Socket } from "node:dgram";
import { expect, test } from "vitest";
import { Announcer, browse } from "#shared/adapters/discovery/multicast.ts";

test("a socket that breaks after the start is told of, and opened again", async () => {
  const sockets: Socket[] = [];
  const notes: string[] = [];
  const announcer = await Announcer.start({
    onAddress: "127.0.0.1",
    announcement: () => ({ name: "breaks", address: "127.0.0.1", port: 10_809, version: "0", exports: [] }),
    onNote: (text) => notes.push(text),
    makeSocket: () => {
      const socket = createSocket({ type: "udp4", reuseAddr: true });
      sockets.push(socket);
      return socket;
    },
  });
  const isFound = async (): Promise<boolean> =>
    (await browse(["127.0.0.1"], 200)).some(({ name }) => name === "breaks");
  expect(await isFound()).toBe(true);
  for (const _ of [1, 2]) sockets[0]?.emit("error", new Error("the network is down"));
  expect(notes).toEqual([expect.stringContaining("127.0.0.1 broke: the network is down")]);
  expect(await isFound()).toBe(false);
  await expect.poll(isFound, { timeout: 5000 }).toBe(true);
  expect(notes[1]).toContain("is back");
  await announcer.close();
});
