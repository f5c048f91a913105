// What a user set for the past holds in the running server: a background fill keeps its rate, and takes none where none was set.
import { expect, test } from "vitest";
import { bytesOf, PastServer } from "../tools/past-server.ts";

const MiB = 2 ** 20;

/** Makes a clone of four extents; resolves with how long its background fill took. */
async function fillSeconds(args: readonly string[]): Promise<number> {
  const content = bytesOf(7, 16 * MiB);
  const server = await PastServer.start(["disk:16M"], { args });
  try {
    await server.write("disk", 0, content);
    await server.snapshot("disk", "whole");
    const began = performance.now();
    const { job } = await server.clone("disk", "whole", "copy");
    if (job === null) throw new Error("a clone that is filled has a job");
    expect((await server.ended(job)).state).toBe("done");
    const seconds = (performance.now() - began) / 1000;
    expect((await server.read("copy", 0, content.length)).equals(content)).toBe(true);
    return seconds;
  } finally {
    await server.end();
  }
}

test("--fill-rate 4M: four extents take three seconds and more, and without it less", async () => {
  expect(await fillSeconds(["--fill-rate", "4M"])).toBeGreaterThan(2.9);
  expect(await fillSeconds([])).toBeLessThan(2.9);
});
